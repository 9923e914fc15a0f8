"""What FFmpeg does not say about a file: that it is cut off, encrypted, or no film by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

# What to do about files of these suffixes where FFmpeg cannot open them.
_HINTS: Final = {
    (".yuv", ".rgb", ".bgr", ".raw", ".nv12"): (
        "raw frames do not say their size and format: pipe them as a video, as in ffmpeg "
        "-f rawvideo -pixel_format yuv420p -video_size 1280x720 -i FILE -f nut - | salstream run -"
    ),
    (".m4s", ".m4f", ".cmfv"): (
        "it is a media fragment without its initialization segment: open the playlist, or run "
        "cat init.mp4 FRAGMENT > whole.mp4"
    ),
    (".m3u8", ".m3u", ".mpd"): (
        "the playlist or one of its segments cannot be read: segments need their usual suffix, "
        "such as .ts, .m4s or .mp4, and a place in or below the playlist's folder"
    ),
    (".ffconcat", ".concat"): (
        "the list or one of its files cannot be read: it begins with 'ffconcat version 1.0', and "
        "names files in or below its folder, without ./ before them"
    ),
    (".jxl", ".svg", ".psd", ".ico", ".cr2", ".nef", ".dng", ".arw"): (
        "pictures of this kind are not read: save it as PNG or JPEG first"
    ),
}
_ASF_FILE_PROPERTIES: Final = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_HEAD: Final = 1 << 16  # bytes at the beginning that are looked at
_TAIL: Final = 1 << 17  # and at the end: two pages of Ogg
_PADDING: Final = 16  # bytes that some programs leave behind the end of a GIF


def hint_for(path: Path) -> str:
    """Say what to do about a file that is no video for FFmpeg; empty if its name does not tell."""
    suffix = path.suffix.lower()
    return next((hint for suffixes, hint in _HINTS.items() if suffix in suffixes), "")


def missing_segments(playlist: Path) -> list[str]:
    """Return the segments of a local HLS playlist that are not there: FFmpeg passes over them."""
    try:
        lines = playlist.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return []
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return [name for name in names if ":" not in name and not (playlist.parent / name).exists()]


def is_cut_off(path: Path, container: str, begin: int = 0) -> bool:
    """Whether a file lacks the end that its format demands, where FFmpeg does not look for it.

    Args:
        path: The file.
        container: FFmpeg's name of its format.
        begin: Where in the file the container begins, in bytes.
    """
    check = _END_CHECKS.get(container)
    if check is None:
        return False
    with path.open("rb") as file:
        size = path.stat().st_size
        file.seek(begin)
        head = file.read(_HEAD)
        file.seek(max(begin, size - _TAIL))
        return check(head, file.read(), size - begin)


def _gif_is_cut_off(head: bytes, tail: bytes, size: int) -> bool:
    return b"\x3b" not in tail[-_PADDING:]


def _asf_is_cut_off(head: bytes, tail: bytes, size: int) -> bool:
    at = head.find(_ASF_FILE_PROPERTIES)
    return at >= 0 and size < int.from_bytes(head[at + 40 : at + 48], "little")


def _ts_is_cut_off(head: bytes, tail: bytes, size: int) -> bool:
    """Whether it ends inside a packet: of 188 bytes, or with a time before or a sum behind it."""
    for length, first in ((188, 0), (192, 4), (204, 0)):
        marks = head[first : first + 5 * length : length]
        if len(marks) == 5 and set(marks) == {0x47}:
            return size % length > 0
    return False


def _ogg_is_cut_off(head: bytes, tail: bytes, size: int) -> bool:
    """Whether the last page is not whole, or not marked as the last one."""
    at = tail.rfind(b"OggS")
    if at < 0 or len(tail) < at + 27:
        return True
    lengths = tail[at + 27 : at + 27 + tail[at + 26]]
    whole = len(lengths) == tail[at + 26] and len(tail) >= at + 27 + len(lengths) + sum(lengths)
    return not (whole and tail[at + 5] & 4)


def _matroska_is_cut_off(head: bytes, tail: bytes, size: int) -> bool:
    """Whether the segment, which is nearly all of the file, is longer than the file."""
    at = head.find(b"\x18\x53\x80\x67") + 4
    if at < 4 or not head[at : at + 1] or not head[at]:
        return False
    width = 9 - head[at].bit_length()
    most = (1 << 7 * width) - 1  # of so many bytes: a stream that does not know its length
    length = int.from_bytes(head[at : at + width], "big") & most
    return length != most and at + width + length > size


_END_CHECKS: Final[Mapping[str, Callable[[bytes, bytes, int], bool]]] = {
    "gif": _gif_is_cut_off,
    "asf": _asf_is_cut_off,
    "mpegts": _ts_is_cut_off,
    "ogg": _ogg_is_cut_off,
    "matroska,webm": _matroska_is_cut_off,
}


def ends_with_whole_tag(path: Path) -> bool:
    """Whether a Flash video ends as a recorder ends it, whatever duration its header states.

    Each tag is followed by its size; the tag itself begins with its kind and the size of its data.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 4))
        tag = int.from_bytes(file.read(4), "big")
        if not 11 <= tag <= size - 4:
            return False
        file.seek(size - 4 - tag)
        head = file.read(4)
    return head[0] in (8, 9, 18) and int.from_bytes(head[1:], "big") == tag - 11
