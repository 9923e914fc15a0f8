"""Pictures that move, played by Pillow with their own times: animated PNG and WebP."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import Final

from PIL import Image

from salstream.runtime.errors import SalstreamError
from salstream.runtime.sources.base import Frame, Reader
from salstream.runtime.sources.clock import rate_of
from salstream.runtime.sources.images import PILLOW_ERRORS, is_sequence, upright_bgr

# Browsers show what wants to be faster than this for so long.
_SHORTEST_S: Final = 0.010
_INSTEAD_S: Final = 0.100


class Animation(Reader):
    """An animated PNG or WebP, each frame as it is seen: put on those before it.

    Args:
        path: The file.
        fps: Frames per second, whatever the file says; None: as it says.
    """

    def __init__(self, path: Path, fps: float | None = None) -> None:
        data = path.read_bytes()
        durations = _durations(data)
        if fps is not None:
            durations = [1 / fps] * len(durations)
        # how long the last one is held says nothing about the rate
        self._times = list(accumulate(durations[:-1], initial=0.0))
        super().__init__(str(path), fps=rate_of(fps, self._times), frame_count=frames_in(data))
        self._path = path

    def _read(self) -> Iterator[Frame]:
        count = 0
        with Image.open(self._path) as picture:
            # what programs show that cannot play it, and others do not
            first = int(getattr(picture, "default_image", False))
            for time in self._times:
                try:
                    picture.seek(first + count)
                    image = upright_bgr(picture)
                except PILLOW_ERRORS:
                    break
                yield Frame(count, time, image)
                count += 1
        if count < (self.frame_count or 1):
            raise SalstreamError(
                f"{self.name} ended after {count} of {self.frame_count} frames: it is cut off or "
                "damaged; copy or make it again"
            )


def frames_in(data: bytes) -> int:
    """Return how many pictures the bytes of a file hold: frames or pages; 1 if in doubt."""
    still = (
        data[:2] == b"\xff\xd8"  # what a JPEG has besides are views of the same
        or (data[:4] == b"\x89PNG" and b"acTL" not in data[: data.find(b"IDAT")])
        or (
            data[8:12] == b"WEBP"
            and not (data[12:16] == b"VP8X" and int.from_bytes(data[20:21]) & 2)
        )
    )
    if is_sequence(data):
        import av

        try:
            with av.open(BytesIO(data)) as container:
                return max((video.frames for video in container.streams.video), default=1)
        except av.FFmpegError:
            return 1
    if still or (data[4:8] == b"ftyp" and b"avis" not in data[8:64]):
        return 1
    try:
        with Image.open(BytesIO(data)) as picture:
            count = getattr(picture, "n_frames", 1)
            return count - int(getattr(picture, "default_image", False))
    except PILLOW_ERRORS:
        return _count(data)


def _count(data: bytes) -> int:
    """Count the frames of a file that is cut off."""
    count = 0
    try:
        with Image.open(BytesIO(data)) as picture:
            while True:
                picture.seek(count)
                count += 1
    except PILLOW_ERRORS:
        return max(1, count)


def _durations(data: bytes) -> list[float]:
    """Return how long each frame is shown, in seconds, as browsers do."""
    found = _png_durations(data) if data[:4] == b"\x89PNG" else _webp_durations(data)
    return [_INSTEAD_S if duration <= _SHORTEST_S else duration for duration in found]


def _png_durations(data: bytes) -> Iterator[float]:
    at = 8
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"fcTL" and at + 32 <= len(data):
            number, of = struct.unpack_from(">HH", data, at + 8 + 20)
            yield number / (of or 100)
        at += 12 + size


def _webp_durations(data: bytes) -> Iterator[float]:
    at = 12
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        if kind == b"ANMF":
            yield int.from_bytes(data[at + 8 + 12 : at + 8 + 15], "little") / 1000
        at += 8 + size + size % 2
