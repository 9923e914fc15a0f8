"""Times of frames: the rules by themselves, with any timestamps."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salstream.runtime.sources.clock import (
    Clock,
    DecodingOrder,
    in_decoding_order,
    rate_of,
)

TICK = Fraction(1, 90_000)
STEP = 3000  # ticks at 30 frames per second


def times_of(stamps: list[int | None], *, joins: bool = True, fps: float = 30.0) -> list[float]:
    clock = Clock(TICK, fps, joins=joins)
    return [clock.add(stamp, STEP)[0] for stamp in stamps]


@given(
    st.lists(
        st.one_of(
            st.none(),
            st.integers(-(1 << 33), 1 << 33),
            st.integers(0, 100).map(lambda n: n * STEP),
            st.just(10**20),
        ),
        max_size=60,
    ),
    st.booleans(),
)
def test_times_strictly_increase_whatever_the_timestamps(
    stamps: list[int | None], joins: bool
) -> None:
    times = times_of(stamps, joins=joins)
    assert len(times) == len(stamps)
    assert all(a < b for a, b in pairwise(times))
    assert not times or times[0] == 0


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(-1000, 1000)), min_size=1, max_size=9))
def test_parts_of_a_joined_file_follow_each_other_at_an_even_pace(
    parts: list[tuple[int, int]],
) -> None:
    minute = 60 * 90_000
    parts = [part for part, after in pairwise([*parts, (0, 2000)]) if part[1] != after[1]]
    stamps = [first * minute + i * STEP for count, first in parts for i in range(count)]
    clock = Clock(TICK, 30.0, joins=True)
    read = [clock.add(stamp, STEP) for stamp in stamps]
    assert [time_s for time_s, _ in read] == pytest.approx([i / 30 for i in range(len(stamps))])
    assert sum(seam for _, seam in read) == len(clock.offsets) - 1 == len(parts) - 1


def test_a_part_that_begins_anew_is_a_seam_and_a_cut() -> None:
    stamps = [*range(0, 60 * STEP, STEP), *range(0, 60 * STEP, STEP)]
    clock = Clock(TICK, 30.0, joins=True)
    read = [clock.add(stamp, STEP) for stamp in stamps]
    assert [time_s for time_s, _ in read] == pytest.approx([i / 30 for i in range(120)])
    assert [i for i, (_, seam) in enumerate(read) if seam] == [60]
    assert clock.offsets == pytest.approx([0.0, 2.0])


@pytest.mark.parametrize(
    "order",
    [
        [0, 1, 1, 2, 4, 3, 5, 6, 6, 7, 8, 9],
        [0, 2, 1, 4, 3, 6, 5, 8, 7, 9],
        [0, 3, 1, 2, 6, 4, 5, 9, 7, 8],
        [n // 2 for n in range(20)],
    ],
)
def test_timestamps_that_are_repeated_or_out_of_order_make_no_seam_and_no_drift(
    order: list[int],
) -> None:
    clock = Clock(TICK, 30.0, joins=True)
    read = [clock.add(number * STEP, STEP) for number in order]
    assert not any(seam for _, seam in read)
    assert read[-1][0] == pytest.approx(9 / 30, abs=0.01)
    assert all(a < b for (a, _), (b, _) in pairwise(read))


@pytest.mark.parametrize("count", [4, 5, 7, 30])
def test_short_parts_that_begin_anew_are_seams(count: int) -> None:
    stamps = [number * STEP for _ in range(8) for number in range(count)]
    clock = Clock(TICK, 30.0, joins=True)
    read = [clock.add(stamp, STEP) for stamp in stamps]
    assert [time_s for time_s, _ in read] == pytest.approx([i / 30 for i in range(8 * count)])
    assert sum(seam for _, seam in read) == 7


def test_timestamps_that_stand_still_follow_at_the_rate() -> None:
    clock = Clock(TICK, 30.0, joins=True)
    read = [clock.add(0, STEP) for _ in range(100)]
    assert read[-1][0] == pytest.approx(99 / 30, abs=0.1)
    assert not any(seam for _, seam in read)


def test_another_part_begins_at_the_pace_of_the_one_before() -> None:
    clock = Clock(TICK, 25.0, joins=False)
    clock.add(1000, 3600)
    clock.begin_part(Fraction(1, 1000))
    read = [clock.add(stamp, 40) for stamp in (5000, 5040)]
    assert [time_s for time_s, _ in read] == pytest.approx([1 / 25, 2 / 25])
    assert not any(seam for _, seam in read)
    assert clock.offsets == pytest.approx([-1000 / 90_000, 1 / 25 - 5])


@pytest.mark.parametrize("joins", [True, False])
def test_a_pause_is_kept_where_containers_are_not_joined(joins: bool) -> None:
    clock = Clock(TICK, 30.0, joins=joins)
    clock.add(0, STEP)
    time_s, seam = clock.add(60 * 90_000, STEP)  # a screen on which nothing happened
    assert seam is joins
    assert time_s == pytest.approx(1 / 30 if joins else 60)


def test_a_frame_that_was_announced_to_last_is_no_seam() -> None:
    clock = Clock(TICK, 1 / 15, joins=True)  # slides
    read = [clock.add(i * 15 * 90_000, 15 * 90_000) for i in range(5)]
    assert [time_s for time_s, _ in read] == [0, 15, 30, 45, 60]
    assert not any(seam for _, seam in read)


def test_gaps_of_hours_are_seams_in_every_container() -> None:
    clock = Clock(TICK, 30.0, joins=False)
    clock.add(0, 3 * 3600 * 90_000)
    time_s, seam = clock.add(3 * 3600 * 90_000, STEP)
    assert seam
    assert time_s == pytest.approx(1 / 30)


def test_frames_without_a_timestamp_follow_at_the_rate() -> None:
    assert times_of([None, None, 5 * STEP, None, 7 * STEP]) == pytest.approx(
        [0, 1 / 30, 2 / 30, 3 / 30, 4 / 30]
    )


def test_a_live_stream_goes_on_by_another_clock_after_a_seam() -> None:
    clock = Clock(TICK, 30.0, joins=True)
    clock.add(90_000, STEP)
    assert clock.add(0, STEP, pause_s=4.0) == (4.0, True)


@given(
    st.integers(2, 60),
    st.integers(0, 5),
    st.sets(st.integers(0, 59), max_size=5),
    st.integers(0, 2**32),
)
def test_pictures_get_the_times_of_decoding_in_order(
    count: int, depth: int, broken: set[int], seed: int
) -> None:
    """An encoder with so many pictures of delay, and packets that cannot be decoded."""
    # decoding order: each picture may be decoded up to `depth` places before it is shown
    random = Random(seed)
    shown = list(range(count))
    waiting: list[int] = []
    decoded: list[int] = []
    while shown or waiting:
        while shown and len(waiting) <= depth:
            waiting.append(shown.pop(0))
        decoded.append(waiting.pop(random.randrange(len(waiting))))
    if max(abs(place - number) for place, number in enumerate(decoded)) > depth:
        return
    order = DecodingOrder(depth)
    place_of = {number: place for place, number in enumerate(decoded)}
    times: list[int | None] = []
    given_out = 0
    for place in range(count + depth):
        if place < count:
            order.push(place)
        # a decoder gives a picture once all that may be shown before it have been decoded
        while given_out < count and given_out + depth <= place:
            if place_of[given_out] not in broken:
                times.append(order.pop(place_of[given_out]))
            given_out += 1
    known = [time for time in times if time is not None]
    assert len(known) == len(times)
    assert all(a < b for a, b in pairwise(known))
    if not broken:
        assert known == list(range(count))


def test_containers_without_presentation_times_are_recognised() -> None:
    assert in_decoding_order([1, 2, 3, 4])
    assert not in_decoding_order([0, 3, 1, 2, 6])
    assert not in_decoding_order([None, None])
    assert not in_decoding_order([7])


@pytest.mark.parametrize(
    ("declared", "steps", "expected"),
    [
        (30.0, [1 / 30] * 50, 30.0),
        (600.0, [1 / 30] * 50, 30.0),  # a time base that was taken for a rate
        (30.0, [0.2] * 50, 5.0),  # a recorder that leaves frames out
        (None, [0.033, 0.033, 0.034] * 10, 30.0),  # milliseconds
        (12.0, [1 / 60] * 30 + [1.0] * 2, 12.0),  # a screen: the mean is as declared
        (0.02, [1 / 30] * 50 + [7200.0], 30.0),  # a mean that a gap of hours spoils
        (30.0, [15.0] * 20, 1 / 15),  # slides
        (24.0, [], 24.0),
    ],
)
def test_a_rate_is_believed_unless_timestamps_contradict_it(
    declared: float | None, steps: list[float], expected: float
) -> None:
    times = [0.0]
    for step in steps:
        times.append(times[-1] + step)
    assert rate_of(declared, times) == pytest.approx(expected, rel=0.01)
