"""The state machine against an oracle that sees the whole video at once."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import FakeBackend, Window, numbered, spec
from salstream.runtime import Predictor, Result, UsageError
from salstream.runtime.predictor import Start
from salstream.runtime.ring import FrameRing
from salstream.runtime.sources import Frame

Expected = dict[int, tuple[Window, tuple[Window, ...]]]


def oracle(
    count: int, window: int, map_frame: int, start: Start, phases: int, recurrent: bool
) -> Expected:
    """Return, by frame, the window of its map and those that its state has seen."""
    behind, ahead = map_frame, window - 1 - map_frame
    windows: dict[int, Window] = {}
    if start == "repeat":
        padded = [0] * behind + list(range(count)) + [count - 1] * ahead
        windows = {t: tuple(padded[t : t + window]) for t in range(count)}
    elif start == "skip":
        windows = {t: tuple(range(t - behind, t + ahead + 1)) for t in range(behind, count - ahead)}
    else:
        there_and_back = list(range(count)) + list(range(count - 2, 0, -1))
        extended = there_and_back * (2 * window)
        for t in range(count):
            if t >= window - 1:
                windows[t] = tuple(range(t - window + 1, t + 1))
            else:
                windows[t] = tuple(reversed(extended[t : t + window]))
    expected: Expected = {}
    for run, t in enumerate(sorted(windows)):
        before = [windows[u] for u in sorted(windows)[run % phases : run : phases]]
        expected[t] = windows[t], tuple(before) if recurrent else ()
    return expected


def predict(predictor: Predictor, count: int) -> list[Result]:
    results: list[Result] = []
    for number in range(count):
        results += predictor.push(numbered(number))
    return results + predictor.flush()


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, int, int, Start, int, int, bool]:
    window = draw(st.sampled_from([1, 2, 3, 5, 16]))
    map_frame = draw(st.sampled_from(sorted({window - 1, window // 2})))
    recurrent = draw(st.booleans())
    starts: list[Start] = ["repeat", "skip"]
    if window == 1 or (map_frame == window - 1 and not recurrent):
        starts.append("reverse")
    return (
        draw(st.integers(1, 50)),
        window,
        map_frame,
        draw(st.sampled_from(starts)),
        draw(st.integers(1, 6)),
        draw(st.integers(1, 3)),
        recurrent,
    )


@settings(max_examples=300, deadline=None)
@given(cases())
def test_every_frame_gets_its_map_in_order_or_is_reported_as_skipped(
    case: tuple[int, int, int, Start, int, int, bool],
) -> None:
    count, window, map_frame, start, phases, stride, recurrent = case
    backend = FakeBackend(spec(window, map_frame), recurrent)
    predictor = Predictor(backend, start=start, phases=phases, stride=stride)

    results = predict(predictor, count)

    expected: Expected = {}
    for lane in range(min(stride, count)):
        frames = range(lane, count, stride)
        of_lane = oracle(len(frames), window, map_frame, start, phases, recurrent)
        for t, (frames_seen, history) in of_lane.items():
            expected[frames[t]] = (
                tuple(frames[n] for n in frames_seen),
                tuple(tuple(frames[n] for n in seen) for seen in history),
            )
    assert [result.index for result in results] == sorted(expected)
    assert len(results) + predictor.skipped == count
    for result in results:
        assert backend.asked(result.map) == expected[result.index]


@settings(max_examples=50, deadline=None)
@given(before=st.integers(0, 40), count=st.integers(1, 40), recurrent=st.booleans())
def test_reset_forgets_everything(before: int, count: int, recurrent: bool) -> None:
    backend = FakeBackend(spec(16, 15), recurrent)
    predictor = Predictor(backend, phases=3)
    for number in range(before):
        predictor.push(numbered(1000 + number))
    predictor.reset()
    used = [backend.asked(r.map) for r in predict(predictor, count)]

    fresh = FakeBackend(spec(16, 15), recurrent)
    assert used == [fresh.asked(r.map) for r in predict(Predictor(fresh, phases=3), count)]


@given(first=st.integers(1, 40), second=st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_a_change_of_size_is_a_cut_that_loses_no_frame(first: int, second: int) -> None:
    backend = FakeBackend(spec(16, 15))
    predictor = Predictor(backend)
    results: list[Result] = []
    for number in range(first + second):
        size = (8, 12) if number < first else (10, 12)
        results += predictor.push(numbered(number, size))
    results += predictor.flush()
    assert [result.index for result in results] == list(range(first + second))
    for result in results:
        window, _ = backend.asked(result.map)
        assert len({number < first for number in window}) == 1, "a window across the cut"
        assert result.saliency.shape == result.frame.shape[:2]


def test_rings_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may lie in pinned memory and on a GPU: no cut and no end makes new ones."""
    backend = FakeBackend(spec(5, 4))
    made: list[FrameRing] = []

    def new_ring() -> FrameRing:
        made.append(FakeBackend.new_ring(backend))
        return made[-1]

    monkeypatch.setattr(backend, "new_ring", new_ring)
    predictor = Predictor(backend, stride=2)
    for width in (6, 8, 10):
        for number in range(12):
            predictor.push(numbered(number, (4, width)))
    predictor.flush()
    predictor.reset()
    assert len(made) == 2


def test_results_come_as_soon_as_they_can() -> None:
    """Live input starts with `repeat`: the first frame has a map at once."""
    predictor = Predictor(FakeBackend(spec(16, 15)), start="repeat")
    assert [len(predictor.push(numbered(n))) for n in range(40)] == [1] * 40

    predictor = Predictor(FakeBackend(spec(16, 15)), start="reverse")
    ready = [len(predictor.push(numbered(n))) for n in range(40)]
    assert ready == [0] * 15 + [1] * 14 + [16] + [1] * 10
    assert sum(ready) == 40


@pytest.mark.parametrize(
    ("fps", "phases"), [(30.0, 5), (24.0, 4), (23.976, 4), (60.0, 10), (2.0, 1), (None, 5)]
)
def test_phases_follow_the_frame_rate(fps: float | None, phases: int) -> None:
    backend = FakeBackend(spec(phases=5, state_fps=6.0), recurrent=True)
    assert Predictor(backend, fps=fps).phases == phases


@pytest.mark.parametrize(
    ("fps", "stride"),
    [(30.0, 1), (24.0, 1), (29.97, 1), (15.0, 1), (50.0, 2), (60.0, 2), (120.0, 4), (None, 1)],
)
def test_windows_keep_the_rate_of_training(fps: float | None, stride: int) -> None:
    backend = FakeBackend(spec(16, 15, window_fps=30.0))
    predictor = Predictor(backend, start="skip", fps=fps)
    assert predictor.stride == stride
    result = predict(predictor, 100)[-1]
    assert backend.asked(result.map)[0] == tuple(range(99 - 15 * stride, 100, stride))
    assert Predictor(backend, fps=fps, stride=3).stride == 3
    assert Predictor(FakeBackend(spec(window_fps=30.0)), fps=fps).stride == 1, "a single frame"


def test_what_cannot_be_is_refused() -> None:
    recurrent = FakeBackend(spec(5, 2), recurrent=True)
    with pytest.raises(UsageError, match="cannot start in reverse"):
        Predictor(recurrent, start="reverse")
    with pytest.raises(UsageError, match="unknown start 'sideways'"):
        Predictor(recurrent, start="sideways")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at least 1"):
        Predictor(recurrent, phases=0)


@settings(max_examples=200, deadline=None)
@given(cases(), st.data())
def test_frames_that_are_passed_over_stay_in_the_windows_of_the_others(
    case: tuple[int, int, int, Start, int, int, bool], data: st.DataObject
) -> None:
    count, window, map_frame, start, phases, stride, recurrent = case
    backend = FakeBackend(spec(window, map_frame), recurrent)
    predictor = Predictor(backend, start=start, phases=phases, stride=stride)
    runs = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))

    results: list[Result] = []
    for number, run in enumerate(runs):
        results += predictor.push(numbered(number), run=run)
    results += predictor.flush()

    assert len(results) + predictor.passed + predictor.skipped == count
    assert [r.index for r in results] == sorted({r.index for r in results})
    for lane in range(stride):
        whole = oracle(
            (count - lane + stride - 1) // stride, window, map_frame, start, phases, False
        )
        for result in results:
            if result.index % stride == lane:
                expected = whole[result.index // stride][0]
                seen = backend.asked(result.map)[0]
                assert seen == tuple(lane + stride * frame for frame in expected)


@pytest.mark.parametrize(("every", "apart"), [(1, 5), (2, 4), (3, 6), (4, 4), (7, 7)])
def test_states_step_as_far_as_the_phases_say_where_frames_are_passed_over(
    every: int, apart: int
) -> None:
    """At 30 frames per second a state of UNISAL's sees every fifth frame, or what is nearest."""
    backend = FakeBackend(spec(state_fps=6.0), recurrent=True)
    predictor = Predictor(backend, fps=30)
    for number in range(100):
        predictor.push(numbered(number), run=number % every == 0)
    for (frame,), seen in backend.runs[-5:]:
        steps = [number for (number,) in seen[-3:]] + [frame]
        assert {after - before for before, after in pairwise(steps)} == {apart}


@pytest.mark.parametrize("model_ms", [40, 50, 66, 70, 100])
def test_states_live_on_while_the_model_s_pace_wavers(model_ms: float) -> None:
    """Runs of ±20 % at 30 frames per second: hardly one begins from nothing."""
    chance = random.Random(1)
    backend = FakeBackend(spec(phases=5, state_fps=6.0), recurrent=True)
    predictor = Predictor(backend, fps=30)
    free_ms = 0.0
    for number in range(3000):
        now_ms = number * 1000 / 30
        run = free_ms < now_ms + 1000 / 30
        if run:
            free_ms = max(free_ms, now_ms) + model_ms * chance.uniform(0.8, 1.2)
        predictor.push(numbered(number), run=run)
    later = backend.runs[50:]
    assert len(later) > 500
    assert sum(not seen for _, seen in later) < 0.01 * len(later)


def test_phases_follow_a_change_of_the_rate() -> None:
    backend = FakeBackend(spec(state_fps=6.0), recurrent=True)
    predictor = Predictor(backend, fps=30)
    for number in range(50):
        predictor.push(numbered(number))
    predictor.follow(12)
    for number in range(50, 60):
        predictor.push(numbered(number))
    (frame,), seen = backend.runs[-1]
    assert [number for (number,) in seen[-3:]] == [53, 55, 57]
    assert frame == 59
    by_hand = Predictor(backend, fps=30, phases=3)
    by_hand.follow(12)
    assert by_hand.phases == 3


@pytest.mark.parametrize("rates", [(30, 60), (60, 30), (120, 60)])
def test_a_new_stride_is_a_cut_that_loses_no_frame(rates: tuple[int, int]) -> None:
    backend = FakeBackend(spec(16, 15, window_fps=30.0))
    predictor = Predictor(backend, start="repeat", fps=rates[0])
    results: list[Result] = []
    for number in range(200):
        if number == 100:
            predictor.follow(rates[1])
        results += predictor.push(numbered(number))
    results += predictor.flush()
    assert [result.index for result in results] == list(range(200))
    for result in results:
        window, _ = backend.asked(result.map)
        assert len({number < 100 for number in window}) == 1, "a window across the change"
        steps = {after - before for before, after in pairwise(window)} - {0}
        assert steps <= {rates[result.index >= 100] // 30}
    by_hand = Predictor(backend, stride=1, fps=rates[0])
    by_hand.follow(240)
    predict(by_hand, 5)
    assert by_hand.stride == 1


def test_a_frame_that_says_so_is_a_cut() -> None:
    backend = FakeBackend(spec(5, 2), recurrent=True)
    predictor = Predictor(backend)
    results: list[Result] = []
    for number in range(20):
        frame = Frame(number, None, numbered(number), cut=number == 11)
        results += predictor.push(frame)
    results += predictor.flush()
    assert [r.index for r in results] == list(range(20))
    for result in results:
        window, seen = backend.asked(result.map)
        old = result.index < 11
        assert all((number < 11) == old for past in (window, *seen) for number in past)
