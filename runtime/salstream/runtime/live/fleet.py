"""Several cameras, one model: each has its own ring, states and outputs, and fails alone.

Each camera has a thread that captures and one that writes; one thread runs the graph for all of
them. It serves whoever has waited longest. A live camera keeps one unread frame, so what it
shows is never old; a file waits until it is served.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from itertools import count
from types import TracebackType
from typing import Final, Self

from salstream.runtime.backends import Output, Request
from salstream.runtime.errors import SalstreamError, UsageError
from salstream.runtime.live.camera import Camera, Event, State
from salstream.runtime.live.source import CameraSource, Reconnect, ReconnectingSource
from salstream.runtime.logs import about
from salstream.runtime.model import SaliencyModel
from salstream.runtime.pipeline import Came, Captured, Feed, Made, Timings
from salstream.runtime.predictor import Predictor, Start
from salstream.runtime.preprocess import prepare
from salstream.runtime.results import Result
from salstream.runtime.signals import CLOSE_S, held
from salstream.runtime.sinks import Sink, StopStream
from salstream.runtime.sources import PicturesAs, redact
from salstream.runtime.sources.open import paths_in

_Steps = Generator[Request, Output, Made]

_ROOM: Final = 2  # results that may wait for a camera's outputs before it is passed by
_WATCH_S: Final = 0.1
_CLOSE_S: Final = 1.2  # for the model and the outputs to end
_LEAVE_S: Final = 0.2  # for captures; one that a silent server holds ends by itself, later


class Member:
    """What a fleet knows of one camera.

    Attributes:
        camera: What the outside sees.
        source: Where its frames come from.
        feed: Brings its frames to its windows and states; None before the first frame.
        timings: Durations: ``decode``, ``preprocess``, ``infer``, ``capture_to_map`` (from the
            arrival of a frame's data until its map), ``write``, ``end_to_end``.
        error: What ended it; None: nothing did, or its source came to its end.
        complete: Whether its outputs have been written and closed, and none of them failed.
    """

    def __init__(self, camera: Camera, source: ReconnectingSource, lock: threading.RLock) -> None:
        self.taken = threading.Condition(lock)  # its unread frame has been
        self.made = threading.Condition(lock)  # a result has been, or nothing more will be
        self.camera = camera
        self.source = source
        self.feed: Feed | None = None
        self.timings = Timings()
        self.error: BaseException | None = None
        self.complete = False
        self.unread: Captured | None = None
        self.captured = 0  # frames
        self.written = 0  # results that reached every output
        self.gone = 0  # dropped, and no window's any more
        self.turn = 0  # when it was served last
        self.fps: float | None = None
        self.sinks: list[Sink] = []
        self.writer: int | None = None  # the thread that writes and closes them
        self.results: deque[tuple[Result, float]] = deque()
        self.captured_all = False
        self.served_all = False
        self.leaving = False  # what its capture says from now on does not count
        self.closed = False

    @property
    def predictor(self) -> Predictor | None:
        """Its windows and states; None before the first frame."""
        return self.feed.predictor if self.feed else None

    def steps(self, captured: Captured | None) -> _Steps:
        """What there is to run for a frame, or for the end."""
        if self.feed is None:
            return []
        fps = self.source.fps
        if self.source.live and fps is not None and fps != self.fps:
            self.fps = fps
            self.feed.predictor.follow(fps)
        return (yield from self.feed.steps(captured))

    def count_dropped(self) -> None:
        """Tell the outside how many frames came, and how many of them too fast."""
        undecoded = self.source.dropped
        self.camera.frames = self.captured + undecoded
        if self.predictor is not None:
            self.camera.dropped = self.gone + self.predictor.passed + undecoded


class Fleet:
    """Several sources through one model; start it with ``run`` or a ``with`` block.

    Args:
        model: Runs them all.
        sources: By the camera's name: what :func:`~salstream.runtime.sources.open_source` takes,
            or a function that opens a source of your own.
        sinks: Returns a camera's outputs, which are opened before anything streams.
        on_event: Called with each change of a camera's state.
        start: As ``SaliencyModel.stream`` takes it; so are ``phases`` and ``stride``.
        fps: Frame rate of sources that do not know their own.
        limit: Stop a camera after so many frames.
        reconnect: When to open a live source again.
        timeout_s: Longest silence of a network source.
        batch: Cameras whose windows may share a run of the graph; None: as suits the backend.
        pictures: As ``SaliencyModel.stream`` takes it.

    Attributes:
        cameras: In the order of the sources; there from the beginning, for whoever watches.

    Raises:
        UsageError: There is no source, or a URL has a scheme that is not known, or an option
            does not fit the graph.
    """

    def __init__(
        self,
        model: SaliencyModel,
        sources: Mapping[str, CameraSource],
        *,
        sinks: Callable[[Camera], Iterable[Sink]] | None = None,
        on_event: Callable[[Event], None] | None = None,
        start: Start | None = None,
        phases: int | None = None,
        stride: int | None = None,
        fps: float | None = None,
        limit: int | None = None,
        reconnect: Reconnect | None = None,
        timeout_s: float = 5.0,
        batch: int | None = None,
        pictures: PicturesAs | None = None,
    ) -> None:
        if not sources:
            raise UsageError("there is no camera: name at least one source")
        self.model = model
        self._start: Start | None = start
        self._phases = phases
        self._stride = stride
        model.predictor(start=start, phases=phases, stride=stride)  # refuses what does not fit
        self._sinks = sinks
        self._limit = limit
        self._batch = batch or model.backend.batch
        lock = threading.RLock()  # guards what threads share of the members
        self._work = threading.Condition(lock)  # there is something to do for the model
        self._ended = threading.Condition(lock)  # a camera has
        self.members: list[Member] = []
        for name, source in sources.items():
            shown = source if isinstance(source, str | int) else getattr(source, "name", "frames")
            shown = f"camera {source}" if isinstance(source, int) else str(shown)
            if paths := paths_in(source):
                shown = f"{len(paths)} pictures"
            camera = Camera(name, redact(shown), on_event)
            opened = ReconnectingSource(
                source,
                camera,
                reconnect,
                fps=fps,
                timeout_s=timeout_s,
                pictures=pictures,
                alone=len(sources) == 1,
            )
            self.members.append(Member(camera, opened, lock))
        self.cameras = [member.camera for member in self.members]
        self._stop = False
        self._turns = count(1)
        self._error: BaseException | None = None
        self._workers: list[threading.Thread] = []
        self._captures: list[threading.Thread] = []

    def run(self) -> None:
        """Stream until every camera has ended; an exception ends them all.

        The outputs of an only camera are written by the calling thread, as windows want it.

        Raises:
            SalstreamError: The model failed, or a camera did.
        """
        first = self.members[0]
        alone = len(self.members) == 1
        try:
            self._begin(here=first if alone else None)
            if alone:
                self._write(first)
            with self._ended:
                while self.running:
                    self._ended.wait(0.5)
        finally:
            self.close()
        self._raise()

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:  # a signal, for example
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def running(self) -> bool:
        """Whether a camera has not ended yet."""
        return bool(self._workers) and not all(member.closed for member in self.members)

    @property
    def incomplete(self) -> list[str]:
        """Names of cameras whose outputs failed, or are not closed (yet)."""
        return [m.camera.name for m in self.members if m.sinks and not m.complete]

    def close(self) -> None:
        """End all cameras and complete their outputs; safe to call again.

        Within two seconds, but for outputs that the calling thread writes itself (those of an only
        camera that ``run`` streams): others that take longer go on in their own threads, and are
        ``incomplete`` until then.
        """
        with self._work:
            self._stop = True
            self._work.notify_all()
            for member in self.members:
                member.leaving = True
                member.made.notify_all()
        for member in self.members:
            member.source.close()
        if self._workers:
            for member in self.members:
                self._write(member)  # where no thread does: it was not started any more
        for threads, seconds in ((self._workers, _CLOSE_S), (self._captures, _LEAVE_S)):
            deadline = time.monotonic() + seconds
            for thread in threads:
                if thread.is_alive():  # else it was never started, or is over
                    thread.join(max(0.0, deadline - time.monotonic()))

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
        failed = [member for member in self.members if member.error is not None]
        if failed and len(self.members) == 1:
            assert failed[0].error is not None
            raise failed[0].error
        if failed:
            kind = UsageError if all(_is_usage(m.error) for m in failed) else SalstreamError
            raise kind(
                f"{len(failed)} of {len(self.members)} cameras failed: "
                + "; ".join(f"{member.camera.name}: {member.error}" for member in failed)
            )

    def _begin(self, here: Member | None = None) -> None:
        if self._workers:
            raise RuntimeError("a fleet runs once")
        opened: list[tuple[Member, Sink]] = []
        with ExitStack() as stack:
            for member in self.members:
                for sink in self._sinks(member.camera) if self._sinks else ():
                    stack.enter_context(closing(sink))
                    opened.append((member, sink))
            writers = [_thread("write", self._write, m) for m in self.members if m is not here]
            self._captures = [_thread("capture", self._capture, m) for m in self.members]
            self._workers = [_thread("predict", self._predict), *writers]
            for member, sink in opened:
                member.sinks.append(sink)
            stack.pop_all()  # from here on the writers close them, or close() does
        for thread in (*self._workers, *self._captures):
            thread.start()

    # Capture: one thread for each camera

    def _capture(self, member: Member) -> None:
        error: BaseException | None = None
        try:
            with about(member.camera.name):
                self._capture_frames(member)
        except BaseException as caught:  # whatever it is, it is this camera's alone
            error = caught
        finally:
            member.source.close()
            with self._work:
                if not member.leaving:
                    member.error = member.error or error
                member.captured_all = True
                self._work.notify_all()

    def _new_predictor(self, source: ReconnectingSource) -> Predictor:
        start: Start | None = "repeat" if source.live else None
        return self.model.predictor(
            start=self._start or start,
            phases=self._phases,
            stride=self._stride,
            fps=source.fps,
        )

    def _capture_frames(self, member: Member) -> None:
        frames = iter(member.source)
        while not self._stop and member.captured != self._limit:
            begin = time.perf_counter()
            frame = next(frames, None)
            if frame is None:
                return
            decoded = time.perf_counter()
            if frame.captured_s is not None:
                begin = decoded - (time.monotonic() - frame.captured_s)
            if member.feed is None:
                member.fps = member.source.fps
                member.feed = Feed(self._new_predictor(member.source))
            prepared = prepare(frame, self.model.spec)
            captured = Captured(frame, prepared, begin, member.source.part)
            member.timings.add("decode", decoded - begin)
            member.timings.add("preprocess", time.perf_counter() - decoded)
            with self._work:
                while not member.source.live and member.unread is not None and not member.leaving:
                    member.taken.wait(_WATCH_S)
                if member.unread is not None:
                    member.gone += captured.take_over(member.unread, member.feed.predictor)
                member.unread = captured
                member.captured += 1
                member.count_dropped()
                self._work.notify_all()

    # The model: one thread for all

    def _predict(self) -> None:
        try:
            while turns := self._next_turns():
                self._serve(turns)
        except BaseException as caught:  # whatever it is, the run ends with it
            self._error = caught
        with self._work:
            for member in self.members:
                member.error = member.error or self._error
                member.served_all = True
                member.made.notify_all()

    def _next_turns(self) -> list[tuple[Member, Captured | None]]:
        """Wait for cameras to serve, those first that have waited longest; none: it is the end."""
        while not self._stop:
            self._watch()
            with self._work:
                if all(member.served_all for member in self.members):
                    break
                ready = [member for member in self.members if _is_ready(member)]
                if not ready:
                    self._work.wait(_WATCH_S)
                    continue
                ready = sorted(ready, key=lambda member: member.turn)[: self._batch]
                turns = [(member, member.unread) for member in ready]
                for member in ready:
                    member.turn, member.unread = next(self._turns), None
                    member.taken.notify_all()
                return turns
        return []

    def _watch(self) -> None:
        """Say of cameras whose stream is open but brings nothing that they stall."""
        now = time.monotonic()
        for member in self.members:
            silent_s = now - member.source.heard_s
            limit_s = member.source.stalled_after_s
            if member.source.live and not member.captured_all and silent_s > limit_s:
                reason = f"no frame for {limit_s:g} s"
                member.camera.enter(State.STALLED, reason, after=(State.WARMING, State.LIVE))

    def _serve(self, turns: Sequence[tuple[Member, Captured | None]]) -> None:
        work = [(member, member.steps(captured)) for member, captured in turns]
        wanted: list[tuple[Member, _Steps, Request]] = []
        for member, steps in work:
            self._advance(member, steps, wanted)
        while wanted:
            begin = time.perf_counter()
            outputs = self.model.backend.run_batch([request for *_, request in wanted])
            seconds = (time.perf_counter() - begin) / len(wanted)
            asked, wanted = wanted, []
            for (member, steps, _), output in zip(asked, outputs, strict=True):
                member.timings.add("infer", seconds)
                self._advance(member, steps, wanted, output)
        with self._work:
            for member, captured in turns:
                member.count_dropped()
                if captured is None:
                    member.served_all = True
                    member.made.notify_all()

    def _advance(
        self,
        member: Member,
        steps: _Steps,
        wanted: list[tuple[Member, _Steps, Request]],
        output: object = None,
    ) -> None:
        """Go on until the graph has to run again, or until the results are there."""
        try:
            with about(member.camera.name):
                request = steps.send(output)  # type: ignore[arg-type] # the first one is None
        except StopIteration as end:
            for result, came in end.value:
                self._publish(member, result, came)
        else:
            wanted.append((member, steps, request))

    def _publish(self, member: Member, result: Result, came: Came) -> None:
        latency_s = time.perf_counter() - came.begin_s
        member.timings.add("capture_to_map", latency_s)
        member.camera.publish(result, latency_s)
        # a map of the connection before does not make the next one live
        if came.part == member.source.part:
            member.camera.enter(State.LIVE, after=(State.WARMING,))
        if member.sinks:
            with member.made:
                member.results.append((result, came.begin_s))
                member.made.notify_all()

    # Outputs: one thread for each camera

    def _write(self, member: Member) -> None:
        """Write a camera's outputs until its end; does nothing where another thread does."""
        me = threading.get_ident()
        with self._work:
            if member.closed or member.writer not in (None, me):
                return
            member.writer = me
        error: BaseException | None = None
        closed = False
        try:
            with about(member.camera.name):
                try:
                    self._write_results(member)
                finally:
                    with held(CLOSE_S):
                        with ExitStack() as stack:
                            for sink in member.sinks:
                                stack.callback(sink.close)
                        closed = True
        except StopStream:
            pass
        except Exception as caught:  # whatever it is, it is this camera's alone
            error = caught
        finally:
            member.leaving = True
            member.source.close()
            member.complete = closed and error is None
            member.error = error = member.error or error
            member.camera.enter(*((State.FAILED, str(error)) if error else (State.ENDED, None)))
            with self._work:
                member.served_all = member.closed = True
                member.unread = None
                self._work.notify_all()
                self._ended.notify_all()

    def _write_results(self, member: Member) -> None:
        while (item := self._next_result(member)) is not None:
            result, begin = item
            with held():  # all outputs have the same results
                with member.timings.measure("write"):
                    for sink in member.sinks:
                        sink.write(result)
                member.written += 1
            member.timings.add("end_to_end", time.perf_counter() - begin)

    def _next_result(self, member: Member) -> tuple[Result, float] | None:
        with member.made:
            while not self._stop:
                if member.results:
                    self._work.notify_all()  # there is room again
                    return member.results.popleft()
                if member.served_all:
                    break
                member.made.wait(1.0)
        return None


def _thread(name: str, target: Callable[..., None], *arguments: Member) -> threading.Thread:
    return threading.Thread(target=target, args=arguments, name=f"salstream-{name}", daemon=True)


def _is_ready(member: Member) -> bool:
    """Whether there is a frame to serve, or the end, and room for what comes of it."""
    if member.served_all or len(member.results) >= _ROOM:
        return False
    return member.unread is not None or member.captured_all


def _is_usage(error: BaseException | None) -> bool:
    return isinstance(error, UsageError)
