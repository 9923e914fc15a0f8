"""Times of results and of what is written agree, whatever the times are."""

from __future__ import annotations

import itertools
import math
import tempfile
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from salstream.runtime import Result
from salstream.runtime.live.points import points
from salstream.runtime.segments import Segments
from salstream.runtime.sinks import OverlayVideo
from salstream.runtime.timeline import LONGEST_S, TIME_BASE, Timeline

FRAME_S = 1 / 30
TICK_S = 0.0011  # of Matroska, the coarsest

STEPS = st.one_of(
    st.sampled_from([FRAME_S, 0.04, 1 / 60, 0.0, 1e-9, 0.0004, 0.2, -FRAME_S, -0.4]),
    st.sampled_from([-5.0, -95_443.7, 4.0, 3 * 3600.0, 90_000.0, 1e15, -1e15, math.nan, math.inf]),
    st.none(),
)


@st.composite
def times(draw: st.DrawFn) -> list[float | None]:
    """Runs at an even pace, with anything between them."""
    now = draw(st.sampled_from([0.0, 0.067, -0.02, 1e15, -1e15, 7200.0]))
    found: list[float | None] = [now]
    for step in draw(st.lists(STEPS, max_size=6)):
        found.append(None if step is None else now + step)
        if step is not None and math.isfinite(step):
            now += step
        for _ in range(draw(st.integers(0, 3))):
            now += FRAME_S
            found.append(now)
    return found


def result_at(time_s: float | None, index: int = 0) -> Result:
    image = np.full((16, 16, 3), 8 * index % 256, np.uint8)
    return Result(index, time_s, image, np.zeros((2, 2), np.float32))


def shown(path: Path) -> tuple[list[float], float]:
    """Times of a video's frames, and when the last one ends, in seconds."""
    with av.open(path) as container:
        frames = [frame.time or 0.0 for frame in container.decode(video=0)]
        assert container.duration is not None
        matroska = container.format.name.startswith("matroska")  # which counts from 0
        begin = 0.0 if matroska else (container.start_time or 0) / av.time_base
        return frames, begin + container.duration / av.time_base


def agree(times_s: list[float | None], places: list[float]) -> None:
    """Steps of places are those of times, where those pass all that came before."""
    latest = -math.inf
    for (a, b), (at, to) in zip(
        itertools.pairwise(times_s), itertools.pairwise(places), strict=True
    ):
        assert to > at
        if a is None or b is None or not (math.isfinite(a) and math.isfinite(b)):
            return  # from here on the source has no clock that one could compare
        latest = max(latest, a)
        if b < a - 0.5:
            latest = -math.inf
        elif a == latest and abs(a) < 1e9 and 0.001 <= b - a <= LONGEST_S:
            assert to - at == pytest.approx(b - a, abs=FRAME_S + TICK_S)


@settings(deadline=None, max_examples=300)
@given(times())
def test_places_increase_at_the_pace_of_the_times(times_s: list[float | None]) -> None:
    timeline = Timeline()
    places = [timeline.place(time_s) * float(TIME_BASE) for time_s in times_s]
    agree(times_s, places)
    assert places[0] >= 0
    assert max(b - a for a, b in itertools.pairwise([0.0, *places])) <= LONGEST_S + TICK_S


@settings(deadline=None, max_examples=25)
@given(times(), st.sampled_from([".mp4", ".mov", ".mkv"]))
@example([0.0, 6 * 3600.0, 12 * 3600.0, 12 * 3600 + FRAME_S], ".mp4")
@example([1e300, -1e300, 1e300], ".mkv")
def test_a_video_has_every_frame_in_its_place(times_s: list[float | None], suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        video = OverlayVideo(Path(folder) / f"o{suffix}")
        for index, time_s in enumerate(times_s):
            video.write(result_at(time_s, index))
        video.close()
        found, end = shown(Path(folder) / f"o{suffix}")
    timeline = Timeline()
    places = [timeline.place(time_s) * float(TIME_BASE) for time_s in times_s]
    assert found == pytest.approx(places, abs=TICK_S)
    assert end == pytest.approx(places[-1] + timeline.step_s, abs=2 * TICK_S)


@settings(deadline=None, max_examples=12)
@given(times(), st.sampled_from([0.1, 1.0, 3600.0]))
def test_segments_hold_their_length_and_every_frame(
    times_s: list[float | None], seconds: float
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        segments = Segments(Path(folder) / "o.mkv", seconds)
        for index, time_s in enumerate(times_s):
            segments.write(result_at(time_s, index))
        segments.close()
        pieces = [shown(path)[0] for path in sorted(Path(folder).iterdir())]
    timeline = Timeline()
    places = [timeline.place(time_s) * float(TIME_BASE) for time_s in times_s]
    for piece in pieces:
        begin = places[0]
        assert piece == pytest.approx([p - begin for p in places[: len(piece)]], abs=TICK_S)
        assert piece[-1] < seconds
        places = places[len(piece) :]
        if places:
            assert places[0] - begin >= seconds - TICK_S, "cut too early"
    assert not places


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize(("n", "fps"), [(1, 30), (60, 30), (17, 25), (48, 24), (5, 0.5)])
def test_the_last_frame_lasts_as_long_as_the_others(
    tmp_path: Path, suffix: str, n: int, fps: float
) -> None:
    video = OverlayVideo(tmp_path / f"o{suffix}", fps)
    for index in range(n):
        video.write(result_at(index / fps, index))
    video.close()
    assert shown(tmp_path / f"o{suffix}")[1] == pytest.approx(n / fps, abs=TICK_S)
    with av.open(tmp_path / f"o{suffix}") as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        last = packets[-1]
        assert float((last.duration or 0) * last.time_base) == pytest.approx(
            1 / fps, abs=TICK_S
        ) or (
            suffix == ".mkv"  # whose blocks need not say
        )


@pytest.mark.parametrize(
    ("times_s", "lengths"),
    [
        ([n / 30 for n in range(90)], [30, 30, 30]),
        ([n % 45 / 30 for n in range(90)], [30, 30, 30]),  # begins again in the middle of a piece
        ([n / 30 + 100 * (n >= 45) for n in range(90)], [30, 15, 30, 15]),  # nothing for 100 s
        ([(n + 1 - 2 * (n % 2)) / 30 for n in range(60)], [30, 30]),  # in pairs, the wrong way
        ([None] * 90, [30, 30, 30]),
        ([n / 30 - 2**33 / 90_000 * (n >= 45) for n in range(90)], [30, 30, 30]),  # wraps
    ],
)
def test_where_segments_are_cut(
    tmp_path: Path, times_s: list[float | None], lengths: list[int]
) -> None:
    segments = Segments(tmp_path / "o.mp4", 1.0)
    for index, time_s in enumerate(times_s):
        segments.write(result_at(time_s, index))
    segments.close()
    pieces = [shown(path)[0] for path in sorted(tmp_path.iterdir())]
    assert [len(piece) for piece in pieces] == lengths
    assert [piece[0] for piece in pieces] == [0.0] * len(pieces)


def test_the_first_segment_is_named_after_its_first_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments = Segments(tmp_path / "o.mp4", 1.0)
    assert not list(tmp_path.iterdir()), "nothing has come yet"
    for index in range(3):  # within the same millisecond, perhaps
        segments.write(result_at(10.0 * index, index))
    segments.close()
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("time_s", [math.nan, math.inf, -math.inf])
def test_json_has_no_word_for_such_times(time_s: float) -> None:
    assert points(result_at(time_s))["time"] is None
    assert points(result_at(1e15))["time"] == 1e15
