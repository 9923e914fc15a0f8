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
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.backends import Backend, Output
from salstream.runtime.errors import UsageError
from salstream.runtime.preprocess import prepare
from salstream.runtime.results import Result
from salstream.runtime.ring import FrameRing
from salstream.runtime.sources import Frame
from salstream.runtime.spec import GraphSpec

Start = Literal["reverse", "repeat", "skip"]
STARTS: Final = get_args(Start)

logger = logging.getLogger("salstream")

_Numbered = tuple[int, Output | None]
_Infer = Callable[[Any, Any], Output]


class Predictor:
    """Turns frames into results, one stream at a time.

    Args:
        backend: The graph to run.
        start: What to do where a window is not whole; None: ``reverse`` where the graph
            allows it, else ``repeat``.
        phases: Interleaved passes with a recurrent state each; None: what the graph wants at
            ``fps``.
        stride: Distance of the frames of a window, in frames of the source. Every frame
            still gets its map.
        fps: Frame rate of the source; None: not known.

    Raises:
        UsageError: A value is out of range, or the graph cannot start in reverse.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        start: Start | None = None,
        phases: int | None = None,
        stride: int = 1,
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
        phases = spec.phases_at(fps) if phases is None else phases
        if min(phases, stride) < 1:
            raise UsageError(f"phases and stride must be at least 1, got {phases} and {stride}")
        self.spec = spec
        self.start: Start = start
        self.phases = phases
        self.stride = stride
        self.skipped = 0
        self._durations: list[float] = []
        self._backend = backend
        # Made once: they may be pinned and on a GPU, and recordings hold their addresses.
        self._rings = [backend.new_ring() for _ in range(stride)]
        self._lanes: list[_Lane] = []
        self._size: tuple[int, ...] | None = None
        self._pushed = 0
        self._waiting: deque[Frame] = deque()
        self._outputs: dict[int, Output | None] = {}
        self._remembers = spec.window > 1 or backend.recurrent
        self.reset()

    def reset(self) -> None:
        """Forget every frame and state, as after a cut; frames without a result are gone."""
        self._clear()
        self._next_index = 0

    def push(
        self, frame: Frame | NDArray[np.uint8], prepared: NDArray[np.uint8] | None = None
    ) -> list[Result]:
        """Take the next frame and return the results that became ready, in order.

        A frame of another size than the one before is a cut: first come the results still
        due of the old frames, then everything is forgotten.

        Args:
            frame: A source's frame; or uint8 BGR, (height, width, 3), numbered here.
            prepared: What :func:`~salstream.runtime.preprocess.prepare` makes of it, where
                the caller has it already.
        """
        if not isinstance(frame, Frame):
            if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3:
                raise UsageError("a frame must be a uint8 array of shape (height, width, 3)")
            frame = Frame(self._next_index, None, frame)
        self._next_index = frame.index + 1
        results: list[Result] = []
        size = frame.image.shape[:2]
        if self._remembers and self._size not in (None, size):
            logger.warning(
                "frame %d has another size (%dx%d after %dx%d): the stream starts anew with it",
                *(frame.index, *size, *(self._size or ())),
            )
            results = self._drain()
        self._size = size
        if prepared is None:
            prepared = prepare(frame.image, self.spec)
        lane = self._pushed % self.stride
        self._pushed += 1
        self._waiting.append(frame)
        return results + self._deliver(lane, self._lanes[lane].push(prepared))

    def take_durations(self) -> list[float]:
        """Return the seconds that each run of the graph took since the last call."""
        durations, self._durations = self._durations, []
        return durations

    def flush(self) -> list[Result]:
        """End the stream: return the results still due, then forget everything."""
        results = self._drain()
        self._next_index = 0
        return results

    def _clear(self) -> None:
        for ring in self._rings:
            ring.clear()
        self._lanes = [
            _Lane(self.spec, self.start, self.phases, ring, self._infer) for ring in self._rings
        ]
        self._size = None
        self._pushed = 0
        self._waiting.clear()
        self._outputs.clear()

    def _drain(self) -> list[Result]:
        results: list[Result] = []
        for number, lane in enumerate(self._lanes):
            results += self._deliver(number, lane.flush())
        self._clear()
        return results

    def _deliver(self, lane: int, outputs: Iterator[_Numbered]) -> list[Result]:
        """Put a lane's outputs in line and return the results whose turn has come."""
        for number, output in outputs:
            self._outputs[number * self.stride + lane] = output
        results = []
        while self._waiting and self._pushed - len(self._waiting) in self._outputs:
            output = self._outputs.pop(self._pushed - len(self._waiting))
            frame = self._waiting.popleft()
            if output is None:
                self.skipped += 1
            else:
                results.append(self._result(frame, output))
        return results

    def _result(self, frame: Frame, output: Output) -> Result:
        return Result(
            frame.index,
            frame.time,
            frame.image,
            output.saliency[0],
            None if output.conspicuity is None else output.conspicuity[0],
            self.spec.size if self.spec.fit == "letterbox" else None,
        )

    def _infer(self, frames: Any, state: Any) -> Output:
        begin = time.perf_counter()
        output = self._backend.run(frames, state)
        self._durations.append(time.perf_counter() - begin)
        return output


class _Lane:
    """The frames ``stride`` apart: one ring, one state per phase.

    Gives pairs of a frame's number in the lane and what the graph says (None: skipped).
    """

    def __init__(
        self, spec: GraphSpec, start: Start, phases: int, ring: FrameRing, infer: _Infer
    ) -> None:
        self._window = spec.window
        self._behind = spec.map_frame
        self._ahead = spec.window - 1 - spec.map_frame
        self._start = start
        self._infer = infer
        self._ring = ring
        self._states: list[Any] = [None] * phases
        self._count = 0  # frames, repeated and mirrored ones at the end included
        self._runs = 0

    def push(self, frame: NDArray[np.uint8]) -> Iterator[_Numbered]:
        if self._count == 0 and self._start == "repeat":
            for _ in range(self._behind):
                self._ring.push(frame)
        if self._start == "skip" and self._count < self._behind:
            yield self._count, None
        self._append(frame)
        if self._ring.full:
            yield self._forward()
            if self._start == "reverse" and self._count < 2 * self._window - 1:
                yield self._backward()

    def flush(self) -> Iterator[_Numbered]:
        if self._count == 0:
            return
        if self._start == "repeat":
            last = self._ring.window()[-1].copy()
            for _ in range(self._ahead):
                self._append(last)
                if self._ring.full:
                    yield self._forward()
        elif self._start == "skip":
            for number in range(max(self._behind, self._count - self._ahead), self._count):
                yield number, None
        else:
            yield from self._flush_reversed()

    def _flush_reversed(self) -> Iterator[_Numbered]:
        """Extend a short video by going back and forth through its frames."""
        frames = self._ring.window().copy()
        total = self._count
        period = max(1, 2 * total - 2)
        early = min(total, self._window - 1)
        while self._count < early + self._window - 1:
            number = self._count % period
            number = number if number < total else period - number
            self._append(frames[number - total])
            if self._ring.full:
                yield self._backward()

    def _append(self, frame: NDArray[np.uint8]) -> None:
        self._ring.push(frame)
        self._count += 1

    def _forward(self) -> _Numbered:
        phase = self._runs % len(self._states)
        self._runs += 1
        output = self._infer(self._ring.batch(), self._states[phase])
        self._states[phase] = output.state
        return self._count - 1 - self._ahead, output

    def _backward(self) -> _Numbered:
        reverse = np.ascontiguousarray(self._ring.window()[None, ::-1])
        return self._count - self._window, self._infer(reverse, None)
