"""Files that were put end to end with ``cat``, in containers where FFmpeg stops at a seam."""

from __future__ import annotations

import io
import mmap
import re
from pathlib import Path
from typing import Final, NamedTuple

import av

# How a file of these containers begins. FFmpeg reads on by itself in MPEG-TS and MPEG-PS, in
# Ogg that has no sound, and once in Matroska.
_BEGINNINGS: Final = {
    "matroska,webm": rb"\x1aE\xdf\xa3.{,64}?\x42\x82.(?:matroska|webm)",
    "mov,mp4,m4a,3gp,3g2,mj2": rb"\x00\x00\x00.ftyp[\x20-\x7e]{4}",
    "avi": rb"RIFF.{4}AVI LIST",
    "asf": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c",
    "flv": rb"FLV\x01[\x01\x04\x05]\x00\x00\x00\x09\x00\x00\x00\x00",
    "ivf": rb"DKIF\x00\x00\x20\x00",
    "ogg": rb"OggS\x00\x02",
    "nut": rb"nut/multimedia container\x00",
    "yuv4mpegpipe": rb"YUV4MPEG2 W\d+ H\d+",
}
_TS_PACKET: Final = 188  # bytes
# A transport stream that goes on for longer than this share behind its last picture has changed its
# streams, or has only sound left.
_LONG_REST: Final = 0.02


class Part(NamedTuple):
    """One of the containers that a file consists of.

    Attributes:
        begin: Where it begins, in bytes.
        offset: The place of its first offset in ``Video.offsets``.
        begin_s: Time of its first frame.
    """

    begin: int
    offset: int
    begin_s: float


def next_part(path: Path, container: str, after: int) -> int | None:
    """Return where another file begins behind a position, in bytes; None: nowhere.

    Args:
        path: The whole file.
        container: FFmpeg's name of its format.
        after: Where its last packet begins.
    """
    beginning = _BEGINNINGS.get(container)
    if beginning is None or after >= path.stat().st_size:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = re.compile(beginning, re.DOTALL).search(data, max(1, after))
        return found.start() if found else None


def next_program(path: Path, film: int, after: int) -> int | None:
    """Return where an MPEG-TS has another video stream behind the end of its film; None: nowhere.

    Args:
        path: The whole file.
        film: Packet identifier (PID) of the film.
        after: Where its last packet begins, in bytes.
    """
    begin, size = after + _TS_PACKET, path.stat().st_size
    if size - begin <= _LONG_REST * size:
        return None
    try:
        with FilePart(path, begin) as file, av.open(file, metadata_errors="replace") as rest:
            others = [stream.id for stream in rest.streams.video]
    except (av.FFmpegError, OSError, ValueError):
        return None
    return begin if others and film not in others else None


class FilePart(io.FileIO):
    """A file from a position on, as if it began there."""

    def __init__(self, path: Path, begin: int) -> None:
        super().__init__(path)
        self._begin = begin
        self.seek(0)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to a position that counts from the part's beginning, and return it."""
        first = self._begin if whence == io.SEEK_SET else 0
        return super().seek(first + offset, whence) - self._begin

    def tell(self) -> int:
        """Return the position, counted from the part's beginning."""
        return super().tell() - self._begin
