"""Capture → predict → consume, each in a thread of its own, joined by short queues.

Decoding and resizing run beside inference, and both beside whatever the consumer does
with the results. An exception anywhere ends the stream: the consumer gets the results of
every frame that was read before, then that exception.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.backends import Output, Request
from salstream.runtime.predictor import Predictor
from salstream.runtime.preprocess import prepare
from salstream.runtime.results import Result
from salstream.runtime.sources import Frame, Source

_QUEUE_SIZE: Final = 4
_POLL_S: Final = 0.1
_JOIN_S: Final = 2.0
_LATEST: Final = 10_000


class Timings:
    """Milliseconds per stage, of the latest 10,000 frames."""

    def __init__(self) -> None:
        # arrays that go round: ten thousand numbers of Python's would take four times the memory
        self._stages: dict[str, NDArray[np.float64]] = {}
        self._counts: dict[str, int] = {}

    def add(self, stage: str, seconds: float) -> None:
        """Note one duration."""
        count = self._counts.get(stage, 0)
        if not count:
            self._stages[stage] = np.zeros(_LATEST)
        self._stages[stage][count % _LATEST] = seconds * 1000
        self._counts[stage] = count + 1

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Note how long the block takes."""
        begin = time.perf_counter()
        yield
        self.add(stage, time.perf_counter() - begin)

    def all_of(self, stage: str) -> NDArray[np.float64]:
        """Return the milliseconds of one stage, oldest first."""
        count = self._counts.get(stage, 0)
        if count <= _LATEST:
            return self._stages.get(stage, np.zeros(0))[:count].copy()
        return np.roll(self._stages[stage], -(count % _LATEST))

    def percentiles(self) -> dict[str, dict[str, float]]:
        """Return p50, p95 and p99 in milliseconds by stage."""
        return {
            stage: {
                f"p{p}": round(float(np.percentile(self.all_of(stage), p)), 3) for p in (50, 95, 99)
            }
            for stage in list(self._counts)
        }


_Item = TypeVar("_Item")


@dataclass
class Captured:
    """A frame that is ready for its window.

    Attributes:
        frame: As the source gave it.
        prepared: At the model's size.
        begin_s: When it came, or was asked for, on the clock of ``time.perf_counter``.
        part: Of the stream, counted from one failure or stall to the next.
        before: Frames that nobody took in time, oldest first: they are to be passed over.
    """

    frame: Frame
    prepared: NDArray[np.uint8]
    begin_s: float
    part: int = 0
    before: list[Captured] = field(default_factory=list)

    def take_over(self, unread: Captured, predictor: Predictor) -> int:
        """Take the place of a frame that nobody took.

        Args:
            unread: That frame.
            predictor: Says what still matters of it.

        Returns:
            How many frames no longer matter, and are gone.
        """
        frames = [*unread.before, unread, self]
        unread.before = []
        if not predictor.needs_passed_images:
            nothing = np.broadcast_to(np.uint8(0), unread.frame.image.shape)  # takes no memory
            unread.frame = replace(unread.frame, image=nothing)
        gone = max(0, len(frames) - 1 - predictor.reach)
        first = frames[gone]
        # where a cut follows what is gone, windows that it ends may reach back over the gap
        if gone and any(captured.frame.cut for captured in frames):
            first.frame = replace(first.frame, cut=True)
        self.before = frames[gone:-1]
        return gone


@dataclass(frozen=True, slots=True)
class Came:
    """What is still known of a captured frame when its map is made: no picture."""

    index: int
    begin_s: float
    part: int


Made = list[tuple[Result, Came]]


class Feed:
    """Pushes captured frames to a predictor, and says of each result how its frame came."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self._came: deque[Came] = deque()

    def steps(self, captured: Captured | None) -> Generator[Request, Output, Made]:
        """Push a frame, and before it what it took the place of; None: the end.

        As ``Predictor.push_steps``, for whoever runs the graph.
        """
        if captured is None:
            return self._made((yield from self.predictor.flush_steps()))
        made: Made = []
        for item in captured.before:
            made += yield from self._push(item, run=False)
        return made + (yield from self._push(captured, run=True))

    def _push(self, item: Captured, *, run: bool) -> Generator[Request, Output, Made]:
        self._came.append(Came(item.frame.index, item.begin_s, item.part))
        made = self._made(
            (yield from self.predictor.push_steps(item.frame, item.prepared, run=run))
        )
        while self._came and self._came[0].index < self.predictor.oldest_due:
            self._came.popleft()  # a frame without a map
        return made

    def _made(self, results: list[Result]) -> Made:
        made: Made = []
        for result in results:
            while (came := self._came.popleft()).index != result.index:
                pass  # a frame without a map
            made.append((result, came))
        return made


@dataclass
class _End:
    error: BaseException | None


class Stream:
    """The results of one source, in order; iterate over it once.

    Leaving the loop early, or the ``with`` block, stops the threads and closes the source.

    Args:
        source: Where the frames come from. A live one passes over its unread frame when a
            newer one comes, any other one waits.
        predictor: Turns frames into results.
        limit: Stop after so many frames; None reads to the end.

    Attributes:
        frames: Frames read so far, the dropped ones among them.
        maps: Results given so far.
        timings: Durations of the stages ``decode``, ``preprocess`` and ``infer``; the
            consumer may add its own.
    """

    def __init__(self, source: Source, predictor: Predictor, limit: int | None = None) -> None:
        self.source = source
        self.predictor = predictor
        self.frames = 0
        self.maps = 0
        self._gone = 0
        self.timings = Timings()
        self.limit = limit
        self._stop = threading.Event()
        self._captured: queue.Queue[Captured | _End] = queue.Queue(
            1 if source.live else _QUEUE_SIZE
        )
        self._results: queue.Queue[tuple[Result, float] | _End] = queue.Queue(_QUEUE_SIZE)
        self._threads = [
            threading.Thread(target=self._capture, name="salstream-capture", daemon=True),
            threading.Thread(target=self._predict, name="salstream-predict", daemon=True),
        ]
        self._iterator = self._consume()

    @property
    def skipped(self) -> int:
        """Frames that have no map because of the start policy."""
        return self.predictor.skipped

    @property
    def dropped(self) -> int:
        """Frames of a live source that came too fast, and have no map."""
        return self._gone + self.predictor.passed

    def __iter__(self) -> Iterator[Result]:
        return self._iterator

    def __next__(self) -> Result:
        return next(self._iterator)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the threads and close the source; safe to call again."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident is None:
                self.source.close()
            else:
                thread.join(_JOIN_S)

    def _consume(self) -> Iterator[Result]:
        try:
            if not self._stop.is_set():
                for thread in self._threads:
                    thread.start()
            while not isinstance(item := self._next(self._results), _End):
                result, begin_s = item
                self.maps += 1
                yield result
                self.timings.add("end_to_end", time.perf_counter() - begin_s)
            if item.error is not None:
                raise item.error
        finally:
            self.close()

    def _capture(self) -> None:
        error: BaseException | None = None
        try:
            frames = iter(self.source)
            while not self._stop.is_set() and self.frames != self.limit:
                begin = time.perf_counter()
                frame = next(frames, None)
                if frame is None:
                    break
                decoded = time.perf_counter()
                prepared = prepare(frame, self.predictor.spec)
                self.timings.add("decode", decoded - begin)
                self.timings.add("preprocess", time.perf_counter() - decoded)
                captured = Captured(frame, prepared, begin)
                if self.source.live:
                    self._replace_unread(captured)
                self.frames += 1
                self._put(self._captured, captured)
        except BaseException as caught:  # whatever it is, the consumer gets it
            error = caught
        finally:
            self.source.close()
        self._put(self._captured, _End(error))

    def _replace_unread(self, captured: Captured) -> None:
        with suppress(queue.Empty):
            unread = self._captured.get_nowait()
            assert isinstance(unread, Captured)
            self._gone += captured.take_over(unread, self.predictor)

    def _predict(self) -> None:
        feed = Feed(self.predictor)
        try:
            while not isinstance(item := self._next(self._captured), _End):
                self._give(self.predictor.drive(feed.steps(item)))
            self._give(self.predictor.drive(feed.steps(None)))
        except BaseException as caught:  # whatever it is, the consumer gets it
            item = _End(caught)
        self._put(self._results, item)

    def _next(self, of: queue.Queue[_Item | _End]) -> _Item | _End:
        """Wait for an item, but not longer than the stream lives."""
        while not self._stop.is_set():
            with suppress(queue.Empty):
                return of.get(timeout=_POLL_S)
        return _End(None)

    def _give(self, made: Made) -> None:
        """Hand results over, each with the time at which its frame was asked for."""
        for seconds in self.predictor.take_durations():
            self.timings.add("infer", seconds)
        for result, came in made:
            self._put(self._results, (result, came.begin_s))

    def _put(self, to: queue.Queue[Any], item: object) -> None:
        """Wait for room, but not longer than the stream lives."""
        while not self._stop.is_set():
            with suppress(queue.Full):
                to.put(item, timeout=_POLL_S)
                return
