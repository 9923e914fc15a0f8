"""The three threads: order, errors, early ends, and what a live source drops."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fakes import FakeBackend, numbered, spec
from salstream.runtime import Predictor, SalstreamError, Stream
from salstream.runtime.pipeline import Captured, Feed, Made, Timings
from salstream.runtime.predictor import Start
from salstream.runtime.preprocess import prepare
from salstream.runtime.sources import Frame, open_source


def stream_of(
    frames: Iterator[NDArray[np.uint8]] | list[NDArray[np.uint8]],
    backend: FakeBackend | None = None,
    limit: int | None = None,
) -> Stream:
    return Stream(open_source(frames), Predictor(backend or FakeBackend(spec(16))), limit)


def our_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("salstream")]


@settings(deadline=None, max_examples=30)
@given(count=st.integers(1, 60), limit=st.none() | st.integers(1, 60))
def test_every_frame_comes_out_once_and_in_order(count: int, limit: int | None) -> None:
    stream = stream_of([numbered(n) for n in range(count)], limit=limit)
    expected = min(count, limit or count)
    assert [result.index for result in stream] == list(range(expected))
    assert (stream.frames, stream.maps, stream.dropped) == (expected, expected, 0)


def test_an_error_of_the_source_comes_after_the_results_of_the_frames_before_it() -> None:
    def frames() -> Iterator[NDArray[np.uint8]]:
        yield from (numbered(n) for n in range(20))
        raise SalstreamError("the tape is torn")

    seen = []
    with pytest.raises(SalstreamError, match="the tape is torn"):
        for result in stream_of(frames()):
            seen.append(result.index)
    assert seen == list(range(20))
    assert our_threads() == []


def test_an_error_of_the_model_ends_the_stream() -> None:
    class Broken(FakeBackend):
        def run(self, frames: NDArray[np.uint8], state: object) -> object:  # type: ignore[override]
            if len(self.runs) == 3:
                raise SalstreamError("the model gave up")
            return super().run(frames, state)

    endless = (numbered(n % 1000) for n in iter(int, 1))
    with pytest.raises(SalstreamError, match="the model gave up"):
        list(stream_of(endless, Broken(spec())))
    assert our_threads() == []


@pytest.mark.parametrize("after", [0, 1, 5])
def test_leaving_early_stops_the_threads_and_closes_the_source(after: int) -> None:
    source = open_source(numbered(n % 1000) for n in iter(int, 1))
    with Stream(source, Predictor(FakeBackend(spec()))) as stream:
        for _ in range(after):
            next(stream)
    assert our_threads() == []
    assert list(source) == []


def test_a_closed_stream_ends_for_whoever_waits() -> None:
    endless = (numbered(n % 1000) for n in iter(int, 1))
    stream = stream_of(endless)
    next(stream)
    stream.close()
    assert list(stream) == []

    never_begun = stream_of([numbered(0)])
    never_begun.close()
    assert list(never_begun) == []

    slow = stream_of([numbered(n) for n in range(100)], FakeBackend(spec(), seconds=1.0))
    threading.Timer(0.3, slow.close).start()
    begin = time.monotonic()
    assert len(list(slow)) <= 2
    assert time.monotonic() - begin < 10


class LiveSource:
    """A camera of 100 frames per second."""

    def __init__(self, count: int) -> None:
        self.name = "camera"
        self.fps: float | None = 100.0
        self.live = True
        self.frame_count: int | None = None
        self._count = count

    def __iter__(self) -> Iterator[Frame]:
        for n in range(self._count):
            time.sleep(0.01)
            yield Frame(n, n / 100, numbered(n))

    def close(self) -> None: ...

    def __enter__(self) -> LiveSource:
        return self

    def __exit__(self, *_: object) -> None: ...


def test_a_live_source_drops_rather_than_lags_and_says_so() -> None:
    slow = FakeBackend(spec(), seconds=0.05)
    stream = Stream(LiveSource(60), Predictor(slow))
    behind = []
    for result in stream:
        behind.append(stream.frames - 1 - result.index)
    assert stream.frames == 60
    assert stream.maps + stream.dropped == 60
    assert stream.dropped > 20
    # One frame in the model, one waiting, a few that came meanwhile: never the whole backlog.
    assert max(behind) < 20


def test_what_a_live_source_drops_stays_in_the_windows() -> None:
    backend = FakeBackend(spec(16), seconds=0.05)
    stream = Stream(LiveSource(60), Predictor(backend, start="repeat"))
    results = list(stream)
    assert stream.dropped > 20
    assert len(results) + stream.dropped == 60
    for result in results:
        window, _ = backend.asked(result.map)
        assert window == tuple(max(0, n) for n in range(result.index - 15, result.index + 1))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_windows_whatever_is_dropped_cut_and_changed(data: st.DataObject) -> None:
    """They are even and never across a cut, and every frame has a map or is counted."""
    draw = data.draw
    window = draw(st.sampled_from([1, 2, 3, 5, 16]))
    map_frame, recurrent = draw(st.sampled_from([window - 1, window // 2])), draw(st.booleans())
    starts: list[Start] = ["repeat", "skip"]
    if map_frame == window - 1 and not recurrent:
        starts.append("reverse")
    rates = st.sampled_from([30.0, 60.0, 90.0])
    backend = FakeBackend(spec(window, map_frame, window_fps=30.0, state_fps=6.0), recurrent)
    predictor = Predictor(backend, start=draw(st.sampled_from(starts)), fps=draw(rates))
    feed = Feed(predictor)
    made: Made = []
    dropped = 0
    since_cut: list[int] = []  # for each frame, the number of the cut before it
    # how many frames come while the model is busy, which of them is a cut, the rate then
    turn = st.tuples(st.integers(1, 60), st.integers(0, 150), st.none() | rates)
    for count, cut_at, fps in draw(st.lists(turn, max_size=12)):
        unread: Captured | None = None
        for place in range(count):
            number, cut = len(since_cut), place == cut_at
            since_cut.append(since_cut[-1] + cut if since_cut else 0)
            frame = Frame(number, None, numbered(number, (4, 6)), cut)
            captured = Captured(frame, prepare(frame, backend.spec), 0.0)
            if unread is not None:
                dropped += captured.take_over(unread, predictor)
            unread = captured
        if fps is not None:
            predictor.follow(fps)
        made += predictor.drive(feed.steps(unread))
    made += predictor.drive(feed.steps(None))

    assert len(made) + dropped + predictor.passed + predictor.skipped == len(since_cut)
    assert [came.index for _, came in made] == [result.index for result, _ in made]
    for result, _ in made:
        seen, history = backend.asked(result.map)
        numbers = {*seen, *(number for before in history for number in before), result.index}
        assert len({since_cut[number] for number in numbers}) == 1, "a map across a cut"
        assert len({abs(after - before) for before, after in pairwise(seen)} - {0}) <= 1


def test_latencies_are_reported_per_stage() -> None:
    stream = stream_of([numbered(n) for n in range(30)], FakeBackend(spec(), seconds=0.005))
    list(stream)
    latency = stream.timings.percentiles()
    assert set(latency) == {"decode", "preprocess", "infer", "end_to_end"}
    for values in latency.values():
        assert 0 < values["p50"] <= values["p95"] <= values["p99"]
    assert 5 <= latency["infer"]["p50"] <= latency["end_to_end"]["p50"]


def test_every_run_of_a_window_model_is_timed_alone() -> None:
    """At the start some frames run nothing, and the last ones run much at once."""
    backend = FakeBackend(spec(16), seconds=0.005)
    stream = stream_of([numbered(n) for n in range(20)], backend)
    list(stream)
    infer = stream.timings.percentiles()["infer"]
    assert len(backend.runs) == 20
    assert 5 <= infer["p50"] <= infer["p99"] < 50


def test_timings_are_those_of_the_latest_frames() -> None:
    timings = Timings()
    for number in range(10_003):
        timings.add("infer", number / 1000)
    latest = timings.all_of("infer")
    assert latest.tolist() == pytest.approx(list(range(3, 10_003)))
    assert timings.percentiles()["infer"]["p50"] == pytest.approx(5_002.5)
    assert timings.all_of("write").size == 0
