"""The state machine between frames and maps: windows, phases, start, end and cuts.

Pure: no threads, no files. ``N`` frames in give ``N`` results out, in order, except for
those that the ``skip`` policy reports in :attr:`Predictor.skipped`.

A window ends at frame ``n`` and its map is for frame ``n - ahead``, where ``ahead`` is the
number of frames after the window's map frame. What is missing at the ends of a video is
filled by the start policy:

- ``reverse``: the map of an early frame ``t`` comes from the frames ``t … t+T-1`` read
  backwards (HD2S, section 3.6); a video shorter than that is extended by going back
  through its frames. For networks without a state whose map is for the last frame.
- ``repeat``: the first frame is repeated before itself, the last one after itself.
- ``skip``: frames without a whole window have no map.

A frame that the model has no time for is *passed over*: it takes its place in the windows of
other frames and gets no map itself, so that windows stay uniform in time whatever the speed of
the model. A recurrent state takes its steps at the distance that the phases give it; where
frames are passed over there are fewer states, so that this distance is kept as well as can be.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Generator
from enum import Enum
from typing import Any, Final, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.backends import Backend, Output, Request
from salstream.runtime.errors import UsageError
from salstream.runtime.preprocess import prepare
from salstream.runtime.results import Result
from salstream.runtime.ring import FrameRing
from salstream.runtime.sources import Frame
from salstream.runtime.spec import GraphSpec

Start = Literal["reverse", "repeat", "skip"]
STARTS: Final = get_args(Start)
_LATEST_RUNS: Final = 10
_KEEP_TURNS: Final = 0.75
_WARN_AGAIN_S: Final = 60.0
MAX_STRIDE: Final = 256  # each frame of it has a ring

logger = logging.getLogger("salstream")


class _NoMap(Enum):
    SKIPPED = "by the start policy"
    PASSED = "passed over"


_Numbered = tuple[int, Output | _NoMap]
_Made = TypeVar("_Made")

Steps = Generator[Request, Output, list[Result]]
_LaneSteps = Generator[Request, Output, list[_Numbered]]


class Predictor:
    """Turns frames into results, one stream at a time.

    Args:
        backend: The graph to run.
        start: What to do where a window is not whole; None: ``reverse`` where the graph
            allows it, else ``repeat``.
        phases: Interleaved passes with a recurrent state each; None: what the graph wants at
            ``fps``.
        stride: Distance of the frames of a window, in frames of the source; None: what the
            graph wants at ``fps``. Every frame still gets its map.
        fps: Frame rate of the source; None: not known.

    Attributes:
        skipped: Frames without a map because of the start policy.
        passed: Frames without a map because they were passed over.

    Raises:
        UsageError: A value is out of range, or the graph cannot start in reverse.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        start: Start | None = None,
        phases: int | None = None,
        stride: int | None = None,
        fps: float | None = None,
    ) -> None:
        spec = backend.spec
        can_reverse = not backend.recurrent and spec.map_frame == spec.window - 1
        if start is None:
            start = "reverse" if can_reverse else "repeat"
        if start not in STARTS:
            raise UsageError(f"unknown start {start!r}; known: {', '.join(STARTS)}")
        if start == "reverse" and spec.window > 1 and not can_reverse:
            raise UsageError(
                f"{spec.model} cannot start in reverse, because it has a state or looks ahead; "
                "use repeat or skip"
            )
        if fps is not None and not 0 < fps < float("inf"):
            raise UsageError(f"fps must be above 0, got {fps}")
        self._phases_follow, self._stride_follows = phases is None, stride is None
        phases = spec.phases_at(fps) if phases is None else phases
        stride = min(MAX_STRIDE, spec.stride_at(fps)) if stride is None else stride
        if min(phases, stride) < 1:
            raise UsageError(f"phases and stride must be at least 1, got {phases} and {stride}")
        if stride > MAX_STRIDE:
            raise UsageError(f"a stride is at most {MAX_STRIDE}, got {stride}")
        self.spec = spec
        self.start: Start = start
        self.phases = phases
        self.stride = self._next_stride = stride
        self.skipped = 0
        self.passed = 0
        self._durations: list[float] = []
        self._warn_of_size_s = 0.0  # for a source that changes it all the time
        self._backend = backend
        # Those of a stride are kept: they may be pinned and on a GPU, where recordings hold their
        # addresses.
        self._rings: list[FrameRing] = []
        self._lanes: list[_Lane] = []
        self._size: tuple[int, ...] | None = None
        self._pushed = 0
        self._waiting: deque[Frame] = deque()
        self._outputs: dict[int, Output | _NoMap] = {}
        self._remembers = spec.window > 1 or backend.recurrent
        self.reset()

    def reset(self) -> None:
        """Forget every frame and state, as after a cut; frames without a result are gone."""
        self._clear()
        self._next_index = 0

    @property
    def reach(self) -> int:
        """How many frames before the newest one still matter for its map."""
        return self.stride * max(self.spec.window, self.phases) if self._remembers else 0

    @property
    def needs_passed_images(self) -> bool:
        """Whether a frame that is passed over may get its map from a later window."""
        return self.start == "reverse" or self.spec.map_frame < self.spec.window - 1

    @property
    def oldest_due(self) -> int:
        """Index of the oldest frame that waits for its map; of the next frame where none does."""
        return self._waiting[0].index if self._waiting else self._next_index

    def follow(self, fps: float) -> None:
        """Adapt phases and stride to a source's new rate, unless they were chosen by hand.

        Windows of two strides do not mix: a new one is a cut before the next frame.
        """
        if self._phases_follow:
            self.phases = self.spec.phases_at(fps)
            for lane in self._lanes:
                lane.phases = self.phases
        if self._stride_follows:
            self._next_stride = min(MAX_STRIDE, self.spec.stride_at(fps))

    def push(
        self,
        frame: Frame | NDArray[np.uint8],
        prepared: NDArray[np.uint8] | None = None,
        *,
        run: bool = True,
    ) -> list[Result]:
        """Take the next frame and return the results that became ready, in order.

        A frame of another size than the one before is a cut, as is one that says so: first
        come the results still due of the old frames, then everything is forgotten.

        Args:
            frame: A source's frame; or uint8 BGR, (height, width, 3), numbered here.
            prepared: What :func:`~salstream.runtime.preprocess.prepare` makes of it, where
                the caller has it already.
            run: False: pass over it. It takes its place in windows, and gets no map.
        """
        return self.drive(self.push_steps(frame, prepared, run=run))

    def push_steps(
        self,
        frame: Frame | NDArray[np.uint8],
        prepared: NDArray[np.uint8] | None = None,
        *,
        run: bool = True,
    ) -> Steps:
        """As ``push``, for whoever runs the graph: yields what to run, is sent the output."""
        if not isinstance(frame, Frame):
            if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3:
                raise UsageError("a frame must be a uint8 array of shape (height, width, 3)")
            frame = Frame(self._next_index, None, frame)
        self._next_index = frame.index + 1
        results: list[Result] = []
        size = frame.image.shape[:2]
        before = self._size or size
        if not frame.cut and before != size and self._remembers:
            self._warn_of_size(frame.index, size, before)
        if self._remembers and (frame.cut or before != size or self._next_stride != self.stride):
            results = yield from self._drain()
        self._size = size
        if prepared is None:
            prepared = prepare(frame, self.spec)
        lane = self._pushed % self.stride
        self._pushed += 1
        self._waiting.append(frame)
        outputs = yield from self._lanes[lane].push(prepared, run)
        return results + self._deliver(lane, outputs)

    def take_durations(self) -> list[float]:
        """Return the seconds that each run of the graph took since the last call."""
        durations, self._durations = self._durations, []
        return durations

    def flush(self) -> list[Result]:
        """End the stream: return the results still due, then forget everything."""
        return self.drive(self.flush_steps())

    def flush_steps(self) -> Steps:
        """As ``flush``, for whoever runs the graph."""
        results = yield from self._drain()
        self._next_index = 0
        return results

    def drive(self, steps: Generator[Request, Output, _Made]) -> _Made:
        """Run what is asked for, one after the other, and return what comes of it."""
        try:
            request = next(steps)
            while True:
                begin = time.perf_counter()
                output = self._backend.run(request.frames, request.state)
                self._durations.append(time.perf_counter() - begin)
                request = steps.send(output)
        except StopIteration as end:
            made: _Made = end.value
            return made

    def _warn_of_size(self, index: int, size: tuple[int, ...], before: tuple[int, ...]) -> None:
        now = time.monotonic()
        if now >= self._warn_of_size_s:
            self._warn_of_size_s = now + _WARN_AGAIN_S
            logger.warning(
                "frame %d has another size (%dx%d after %dx%d): the stream starts anew with it",
                *(index, *size, *before),
            )

    def _clear(self) -> None:
        self.stride = self._next_stride
        del self._rings[self.stride :]
        while len(self._rings) < self.stride:
            self._rings.append(self._backend.new_ring())
        for ring in self._rings:
            ring.clear()
        self._lanes = [_Lane(self.spec, self.start, self.phases, ring) for ring in self._rings]
        self._size = None
        self._pushed = 0
        self._waiting.clear()
        self._outputs.clear()

    def _drain(self) -> Steps:
        results: list[Result] = []
        for number, lane in enumerate(self._lanes):
            outputs = yield from lane.flush()
            results += self._deliver(number, outputs)
        self._clear()
        return results

    def _deliver(self, lane: int, outputs: list[_Numbered]) -> list[Result]:
        """Put a lane's outputs in line and return the results whose turn has come."""
        for number, output in outputs:
            self._outputs[number * self.stride + lane] = output
        results = []
        while self._waiting and self._pushed - len(self._waiting) in self._outputs:
            output = self._outputs.pop(self._pushed - len(self._waiting))
            frame = self._waiting.popleft()
            if isinstance(output, Output):
                results.append(self._result(frame, output))
            elif output is _NoMap.PASSED:
                self.passed += 1
            else:
                self.skipped += 1
        return results

    def _result(self, frame: Frame, output: Output) -> Result:
        return Result(
            frame.index,
            frame.time,
            frame.image,
            output.saliency[0],
            None if output.conspicuity is None else output.conspicuity[0],
            self.spec.size if self.spec.fit == "letterbox" else None,
            frame.pixel_aspect,
            frame.name,
            frame.label,
        )


class _Lane:
    """The frames ``stride`` apart: one ring, one state per phase.

    Gives pairs of a frame's number in the lane and what the graph says, or why it says nothing.
    """

    def __init__(self, spec: GraphSpec, start: Start, phases: int, ring: FrameRing) -> None:
        self._window = spec.window
        self._behind = spec.map_frame
        self._ahead = spec.window - 1 - spec.map_frame
        self._start = start
        self._ring = ring
        self.phases = phases
        self._states: list[Any] = []  # those after the latest runs, newest last
        self._turns = phases  # runs until a state's next step
        self._count = 0  # frames, repeated and mirrored ones at the end included
        self._runs: deque[int] = deque(maxlen=_LATEST_RUNS)  # the newest frames of their windows

    def push(self, frame: NDArray[np.uint8], run: bool) -> _LaneSteps:
        if self._count == 0 and self._start == "repeat":
            for _ in range(self._behind):
                self._ring.push(frame)
        if self._start == "skip" and self._count < self._behind:
            self._append(frame)
            return [(self._count - 1, _NoMap.SKIPPED), *(yield from self._run_full(run))]
        self._append(frame)
        return (yield from self._run_full(run))

    def flush(self) -> _LaneSteps:
        if self._count == 0:
            return []
        if self._start == "reverse":
            return (yield from self._flush_reversed())
        if self._start == "skip":
            first = max(self._behind, self._count - self._ahead)
            return [(number, _NoMap.SKIPPED) for number in range(first, self._count)]
        outputs: list[_Numbered] = []
        last = self._ring.window()[-1].copy()
        for _ in range(self._ahead):
            self._append(last)
            if self._ring.full:
                outputs.append((yield from self._forward(run=True)))
        return outputs

    def _flush_reversed(self) -> _LaneSteps:
        """Extend a short video by going back and forth through its frames."""
        outputs: list[_Numbered] = []
        frames = self._ring.window().copy()
        total = self._count
        period = max(1, 2 * total - 2)
        early = min(total, self._window - 1)
        while self._count < early + self._window - 1:
            number = self._count % period
            number = number if number < total else period - number
            self._append(frames[number - total])
            if self._ring.full:
                outputs.append((yield from self._backward(run=True)))
        return outputs

    def _append(self, frame: NDArray[np.uint8]) -> None:
        self._ring.push(frame)
        self._count += 1

    def _run_full(self, run: bool) -> _LaneSteps:
        """Run the window that the newest frame has made whole, both ways at the beginning."""
        if not self._ring.full:
            return []
        outputs = [(yield from self._forward(run))]
        if self._start == "reverse" and self._count < 2 * self._window - 1:
            outputs.append((yield from self._backward(run)))
        return outputs

    def _forward(self, run: bool) -> Generator[Request, Output, _Numbered]:
        number = self._count - 1 - self._ahead
        if not run:
            return number, _NoMap.PASSED
        output = yield Request(self._ring.batch(), self._take_state())
        self._states.append(output.state)
        return number, output

    def _take_state(self) -> Any:
        """Return the state whose last step was about ``phases`` frames ago."""
        self._runs.append(self._count)
        distance = (self._count - self._runs[0]) / max(1, len(self._runs) - 1)
        turns = self.phases / max(1.0, distance)
        # a change begins one state anew, or forgets one, so jitter must not make any
        if abs(turns - self._turns) > _KEEP_TURNS:
            self._turns = max(1, round(turns))
        self._states = self._states[-self._turns :]  # those that are older have seen too little
        return self._states.pop(0) if len(self._states) == self._turns else None

    def _backward(self, run: bool) -> Generator[Request, Output, _Numbered]:
        number = self._count - self._window
        if not run:
            return number, _NoMap.PASSED
        reverse = np.ascontiguousarray(self._ring.window()[None, ::-1])
        output = yield Request(reverse, None)
        return number, output
