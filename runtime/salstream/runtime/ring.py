"""The last frames of a stream, always as one contiguous array."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class FrameRing:
    """Keeps the last ``capacity`` frames, so that a window is a view and never a copy.

    Each frame is written twice, ``capacity`` slots apart, in a buffer of twice the
    capacity: whatever frame is the oldest, the window starts there and does not wrap.

    Args:
        capacity: Frames to keep.
        shape: Shape of one frame, for example (height, width, 3).
    """

    def __init__(self, capacity: int, shape: tuple[int, ...]) -> None:
        if capacity < 1:
            raise ValueError(f"a ring holds at least one frame, got {capacity}")
        self.capacity = capacity
        self._buffer: NDArray[np.uint8] = np.zeros((2 * capacity, *shape), np.uint8)
        self._pushed = 0

    def __len__(self) -> int:
        return min(self._pushed, self.capacity)

    @property
    def full(self) -> bool:
        """Whether a whole window is there."""
        return self._pushed >= self.capacity

    def push(self, frame: NDArray[np.uint8]) -> None:
        """Add a frame, uint8 of the ring's shape; the oldest one falls out."""
        slot = self._pushed % self.capacity
        self._buffer[slot] = frame
        self._buffer[slot + self.capacity] = frame
        self._pushed += 1

    def window(self) -> NDArray[np.uint8]:
        """Return the frames that are there, oldest first, (frames, …): a view.

        The view changes with the next ``push``.
        """
        end = (self._pushed - 1) % self.capacity + self.capacity + 1
        return self._buffer[end - len(self) : end]

    def clear(self) -> None:
        """Forget every frame."""
        self._pushed = 0
