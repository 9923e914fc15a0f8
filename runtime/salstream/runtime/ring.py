"""The last frames of a stream, always as one contiguous array."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from salstream.runtime.cuda import DeviceMemory, Gpu

# Bytes, that TensorRT asks of a tensor's address. CUDA's own memory begins at more.
ALIGNMENT: Final = 256


class FrameRing:
    """Keeps the last ``capacity`` frames, so that a window is a view and never a copy.

    Each frame is written twice, ``capacity`` slots apart, in a buffer of twice the
    capacity: whatever frame is the oldest, the window starts there and does not wrap.

    Args:
        capacity: Frames to keep.
        shape: Shape of one frame, for example (height, width, 3).
        zeros: What makes the buffer.
    """

    def __init__(
        self,
        capacity: int,
        shape: tuple[int, ...],
        zeros: Callable[[tuple[int, ...], type[np.uint8]], NDArray[Any]] = np.zeros,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"a ring holds at least one frame, got {capacity}")
        self.capacity = capacity
        self._buffer: NDArray[np.uint8] = zeros((2 * capacity, *shape), np.uint8)
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
        end = self._end()
        return self._buffer[end - len(self) : end]

    def batch(self) -> Any:
        """Return the window as its backend's ``run`` takes it, (1, frames, …): no copy."""
        return self.window()[None]

    def clear(self) -> None:
        """Forget every frame; the memory stays."""
        self._pushed = 0

    def _end(self) -> int:
        """Return the slot after the newest frame's second one."""
        return (self._pushed - 1) % self.capacity + self.capacity + 1


@dataclass(frozen=True, slots=True)
class DeviceFrames:
    """A window that lies on the GPU; it changes with the ring's next ``push``.

    Attributes:
        address: Where it starts, a multiple of 256.
        shape: (1, frames, height, width, 3), uint8.
    """

    address: int
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return self.shape[0]


class DeviceRing(FrameRing):
    """A ring with a twin on the GPU: each new frame is one small copy to there.

    The second slot is filled by a copy on the GPU, and a window is an address. The frames
    on the host stay, for windows that are read backwards.

    TensorRT takes tensors at multiples of 256 bytes. Where a frame's size is one, so is every
    window's address. Room between the slots would not do elsewhere, as a window has no gaps:
    there each window is first copied, on the GPU, to a place of its own.

    Args:
        gpu: Where the twin lies.
        capacity: Frames to keep.
        shape: Shape of one frame, for example (height, width, 3).
    """

    def __init__(self, gpu: Gpu, capacity: int, shape: tuple[int, ...]) -> None:
        super().__init__(capacity, shape, gpu.pinned)
        self._gpu = gpu
        self._memory = gpu.allocate(self._buffer.nbytes)
        self._frame_bytes: int = self._buffer[0].nbytes
        self._together: DeviceMemory | None = None
        if self._frame_bytes % ALIGNMENT:
            self._together = gpu.allocate(capacity * self._frame_bytes)

    def push(self, frame: NDArray[np.uint8]) -> None:
        """Add a frame, uint8 of the ring's shape; the oldest one falls out."""
        slot = self._pushed % self.capacity
        with self._gpu.lock:
            # A copy that is still to come reads what is written here; but whoever runs a window
            # waits for its end, and what no run has read is copied over in turn.
            super().push(frame)
            first, second = self._address(slot), self._address(slot + self.capacity)
            self._gpu.upload(first, self._buffer[slot])
            self._gpu.copy(second, first, self._frame_bytes)

    def batch(self) -> DeviceFrames:
        """Return the window as its backend's ``run`` takes it: an address on the GPU."""
        address = self._address(self._end() - len(self))
        if self._together is not None:
            with self._gpu.lock:
                self._gpu.copy(self._together.address, address, len(self) * self._frame_bytes)
            address = self._together.address
        return DeviceFrames(address, (1, len(self), *self._buffer.shape[1:]))

    def _address(self, slot: int) -> int:
        return self._memory.address + slot * self._frame_bytes
