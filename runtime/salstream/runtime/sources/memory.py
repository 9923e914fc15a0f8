"""Frames that are arrays, or bare bytes, already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.errors import SalstreamError, UsageError
from salstream.runtime.sources.base import Frame, Reader, time_of


class Arrays(Reader):
    """Arrays, one after the other: the frames of a video, or each for itself."""

    def __init__(
        self, images: Iterable[NDArray[np.uint8]], fps: float | None, *, single: bool = False
    ) -> None:
        super().__init__("frames", fps=fps)
        self._images = images
        self._single = single

    def _read(self) -> Iterator[Frame]:
        for index, image in enumerate(self._images):
            if not isinstance(image, np.ndarray):
                got = type(image).__name__
            elif image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                got = f"{image.dtype} of shape {image.shape}"
            elif image.size == 0:
                got = f"an empty one of shape {image.shape}"
            else:
                yield Frame(index, time_of(index, self.fps), image, self._single)
                continue
            raise UsageError(
                f"frame {index} must be a uint8 array of shape (height, width, 3), got {got}"
            )


class RawFrames(Reader):
    """Bare BGR frames, one after the other."""

    def __init__(self, stream: BinaryIO, size: tuple[int, int], fps: float) -> None:
        super().__init__("standard input", fps=fps)
        self._stream = stream
        self._size = size

    def _read(self) -> Iterator[Frame]:
        index = 0
        while True:
            image = np.empty((*self._size, 3), np.uint8)
            got = self._fill(image.data.cast("B"))
            if got < image.nbytes:
                break
            yield Frame(index, time_of(index, self.fps), image)
            index += 1
        if got or index == 0:
            raise SalstreamError(
                f"standard input ended inside frame {index}: expected {image.nbytes} bytes for "
                f"{self._size[0]} x {self._size[1]} BGR, got {got}; check raw_size and what is "
                "piped in"
            )

    def _fill(self, view: memoryview) -> int:
        filled = 0
        while filled < len(view):
            # every binary stream has it, but typeshed's BinaryIO does not
            got: int = self._stream.readinto(view[filled:])  # type: ignore[attr-defined]
            if not got:
                break
            filled += got
        return filled
