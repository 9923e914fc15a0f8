"""The ring against the plainest thing that could replace it: a list."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salstream.runtime.ring import FrameRing


@given(
    capacity=st.sampled_from([1, 2, 5, 16]),
    steps=st.lists(st.one_of(st.integers(0, 255), st.none()), max_size=60),
)
def test_windows_equal_the_last_frames_of_a_list(capacity: int, steps: list[int | None]) -> None:
    ring = FrameRing(capacity, (2, 3))
    frames: list[np.ndarray] = []
    for value in steps:
        if value is None:
            ring.clear()
            frames.clear()
        else:
            frame = np.full((2, 3), value, np.uint8)
            ring.push(frame)
            frames.append(frame)
        assert len(ring) == min(len(frames), capacity)
        assert ring.full == (len(frames) >= capacity)
        expected = np.array(frames[-capacity:], np.uint8).reshape(-1, 2, 3)
        np.testing.assert_array_equal(ring.window(), expected)


def test_a_window_is_one_contiguous_view_of_the_buffer() -> None:
    ring = FrameRing(16, (4, 5, 3))
    bases = set()
    for value in range(40):
        ring.push(np.full((4, 5, 3), value, np.uint8))
        window = ring.window()
        assert window.flags.c_contiguous
        assert not window.flags.owndata
        bases.add(id(window.base))
    assert len(bases) == 1


def test_a_ring_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        FrameRing(0, (2, 3))
