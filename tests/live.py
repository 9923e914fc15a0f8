"""Cameras, a backend and outputs for the tests of live streams, and what a process holds."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clips import number_image, read_number
from fakes import numbered
from salstream.runtime import Result, SaliencyModel
from salstream.runtime.backends import Backend, Output
from salstream.runtime.live.source import Reconnect
from salstream.runtime.sources import Frame, Reader
from salstream.runtime.spec import GraphSpec

FAST = Reconnect(first_pause_s=0.05, longest_pause_s=0.2)
SIZE = (48, 64)


class Numbers(Backend):
    """Reads the numbers that the frames of its windows carry: a map's value is the run's number.

    A state is the numbers that it has seen.
    """

    name = "numbers"

    def __init__(
        self,
        window: int = 5,
        map_frame: int | None = None,
        recurrent: bool = True,
        seconds: float = 0,
    ) -> None:
        self.spec = GraphSpec(
            model="numbers",
            domain="test",
            height=SIZE[0],
            width=SIZE[1],
            window=window,
            map_frame=window - 1 if map_frame is None else map_frame,
        )
        self.recurrent = recurrent
        self.conspicuity = False
        self.runs: list[tuple[int | None, ...]] = []
        self.seen: list[tuple[int | None, ...]] = []
        self._seconds = seconds

    def run(self, frames: NDArray[np.uint8], state: Any) -> Output:
        time.sleep(self._seconds)
        window = tuple(read_number(frame) for frame in frames[0])
        self.runs.append(window)
        self.seen.append((state or ()) + window)
        saliency = np.full((1, *SIZE), (len(self.runs) - 1) / 10_000, np.float32)
        return Output(saliency, self.seen[-1] if self.recurrent else None)


class Keep:
    """An output that keeps everything."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.closed = False

    def write(self, result: Result) -> None:
        self.results.append(result)

    def close(self) -> None:
        self.closed = True


class Paced(Reader):
    """A camera of so many frames per second, which carry numbers."""

    def __init__(
        self, count: int, fps: float, begin: int = 0, fault: Exception | None = None
    ) -> None:
        super().__init__("paced", fps=fps, live=True)
        self._numbers = range(begin, begin + count)
        self._fault = fault

    def _read(self) -> Iterator[Frame]:
        begin = time.monotonic()
        for index, number in enumerate(self._numbers):
            time.sleep(max(0.0, begin + index / (self.fps or 1) - time.monotonic()))
            yield Frame(
                index, index / (self.fps or 1), numbered(number), captured_s=time.monotonic()
            )
        if self._fault is not None:
            raise self._fault


def model_of(backend: Backend) -> SaliencyModel:
    return SaliencyModel(Path("fake.onnx"), backend)


def our_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("salstream")]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counts, no paths


def tasks() -> int:
    """Threads of the process, those of libraries among them."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - counts, no paths


def megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


class JpegLike(Paced):
    """Its pictures are those of the servers."""

    def _read(self) -> Iterator[Frame]:
        for frame in super()._read():
            number = int(frame.image[0, 0, 0]) * 256 + int(frame.image[0, 0, 1])
            yield Frame(
                frame.index, frame.time, number_image(number, SIZE), False, frame.captured_s
            )
