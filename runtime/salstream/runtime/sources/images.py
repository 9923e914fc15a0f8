"""Pictures in files, by OpenCV."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from salstream.runtime.errors import SalstreamError
from salstream.runtime.sources.base import Frame, Reader, time_of
from salstream.runtime.sources.quiet import quiet_opencv

IMAGE_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


class Images(Reader):
    """Image files, each a frame."""

    def __init__(self, name: str, paths: Sequence[Path], fps: float | None) -> None:
        super().__init__(name, fps=fps, frame_count=len(paths))
        self._paths = paths

    def _read(self) -> Iterator[Frame]:
        for index, path in enumerate(self._paths):
            yield Frame(index, time_of(index, self.fps), read_image(path))


def images_among(paths: Iterable[Path]) -> list[Path]:
    """Return the image files in natural order: frame2 comes before frame10."""
    images = [
        path
        for path in paths
        # hidden ones are other programs' leavings, such as ._photo.jpg
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    ]
    return sorted(images, key=lambda path: (_natural(str(path.with_suffix(""))), str(path)))


def _natural(name: str) -> list[tuple[int, str]]:
    # text and numbers alternate, so like is always compared with like
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(int(part), "") if place % 2 else (0, part) for place, part in enumerate(parts)]


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode an image to (height, width, 3) BGR of 8 bits, whatever it holds.

    Raises:
        SalstreamError: It cannot be read or decoded.
    """
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        with quiet_opencv():
            image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise SalstreamError(f"{path} cannot be read: {why}") from error
    except cv2.error:
        image = None
    if image is None:
        raise SalstreamError(f"{path} cannot be decoded: it is damaged, or not an image")
    return np.asarray(image, np.uint8)
