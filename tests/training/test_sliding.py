"""The windows of a whole video, by hand."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from salstream.training.sliding import windows


def test_small_cases_by_hand() -> None:
    assert windows(5, 3) == [[2, 1, 0], [3, 2, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert windows(4, 3) == [[2, 1, 0], [3, 2, 1], [0, 1, 2], [1, 2, 3]]
    assert windows(2, 3) == [[0, 1, 0], [1, 0, 1]]
    assert windows(1, 3) == [[0, 0, 0]]
    assert windows(3, 1) == [[0], [1], [2]]


@given(count=st.integers(1, 80), window=st.integers(1, 16))
def test_every_window_ends_with_its_frame_and_moves_by_single_steps(
    count: int, window: int
) -> None:
    for t, frames in enumerate(windows(count, window)):
        assert len(frames) == window
        assert frames[-1] == t
        assert all(0 <= frame < count for frame in frames)
        assert all(abs(a - b) <= 1 for a, b in pairwise(frames))
