"""A backend that computes nothing, and tells what it was asked."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.backends import Backend, Output
from salstream.runtime.spec import GraphSpec

Window = tuple[int, ...]


def spec(window: int = 1, map_frame: int | None = None, **facts: Any) -> GraphSpec:
    """Return the spec of a small graph; the map is for the last frame unless told."""
    return GraphSpec(
        model="fake",
        domain="test",
        height=4,
        width=6,
        window=window,
        map_frame=window - 1 if map_frame is None else map_frame,
        **facts,
    )


def numbered(number: int, size: tuple[int, int] = (4, 6)) -> NDArray[np.uint8]:
    """Return a BGR frame that carries a number below 65,536."""
    image = np.zeros((*size, 3), np.uint8)
    image[..., 0], image[..., 1] = number // 256, number % 256
    return image


class FakeBackend(Backend):
    """Notes, per map, the frames of its window and the windows that its state has seen.

    A map's value is the number of the run, divided by 1,000.
    """

    name = "fake"

    def __init__(self, graph: GraphSpec, recurrent: bool = False, seconds: float = 0.0) -> None:
        self.spec = graph
        self.recurrent = recurrent
        self.conspicuity = False
        self.runs: list[tuple[Window, tuple[Window, ...]]] = []
        self._seconds = seconds

    def run(self, frames: NDArray[np.uint8], state: Any) -> Output:
        assert frames.shape == (1, self.spec.window, *self.spec.size, 3)
        time.sleep(self._seconds)
        # prepare() turned BGR into RGB.
        window = tuple(int(f[0, 0, 2]) * 256 + int(f[0, 0, 1]) for f in frames[0])
        seen = state or ()
        self.runs.append((window, seen))
        value = (len(self.runs) - 1) / 1000
        saliency = np.full((1, *self.spec.size), value, np.float32)
        return Output(saliency, (*seen, window) if self.recurrent else None)

    def asked(self, saliency: NDArray[np.float32]) -> tuple[Window, tuple[Window, ...]]:
        """Return window and history of the run that gave a map."""
        return self.runs[round(float(saliency[0, 0]) * 1000)]
