"""Files and folders: which kind of source each is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from salstream.runtime.errors import SalstreamError, UsageError
from salstream.runtime.sources.animations import Animation, frames_in
from salstream.runtime.sources.base import PicturesAs, Source
from salstream.runtime.sources.images import (
    HEAD_BYTES,
    IMAGE_SUFFIXES,
    UNREAD_SUFFIXES,
    format_of,
    is_picture,
)
from salstream.runtime.sources.patterns import is_numbered, is_pattern, literal, matches
from salstream.runtime.sources.pictures import VIDEO_SUFFIXES, Pictures, listed, sort_out


def open_path(
    path: str | Path, shown: str, fps: float | None, pictures: PicturesAs | None
) -> Source:
    """Open a file, a folder of pictures, or what matches a pattern.

    Args:
        path: A ``Path`` is taken literally, and so is a text where there is such a file.
        shown: The same, as it may be printed.
        fps: As ``open_source`` takes it; so is ``pictures``.
        pictures: ``video``, ``single``, or None.

    Raises:
        UsageError: There is nothing of this name, or nothing that can be read.
        SalstreamError: It is there, but cannot be opened.
    """
    try:
        there = path if isinstance(path, Path) else literal(path)
        if there is not None and there.is_dir():
            # hidden files are other programs' leavings, such as ._photo.jpg
            files = [file for file in there.iterdir() if not file.name.startswith(".")]
            return _pictures(files, shown, fps, pictures)
        if there is not None and (there.exists() or there.is_symlink()):
            return _open_file(there, fps, pictures)
        found = matches(str(path))
        if not found and not is_pattern(str(path)):
            raise UsageError(
                f"{shown} does not exist: expected a video, an image, a folder of images, "
                "a camera number or a URL"
            )
        if len(found) == 1 and found[0].suffix.lower() in VIDEO_SUFFIXES:
            return _open_file(found[0], fps, pictures)
        if is_numbered(str(path)):
            pictures = pictures or "video"
        return _pictures(found, shown, fps, pictures)
    except (OSError, ValueError) as error:
        why = (getattr(error, "strerror", None) or str(error)).lower()
        raise SalstreamError(f"{shown} cannot be read: {why}") from error


def _pictures(
    files: Iterable[Path], shown: str, fps: float | None, pictures: PicturesAs | None
) -> Pictures:
    readable, left_out = sort_out(files, shown)
    return Pictures(shown, readable, fps, pictures, left_out)


def _open_file(path: Path, fps: float | None, pictures: PicturesAs | None) -> Source:
    """Open a video, an animation or a picture, whatever its suffix says."""
    # a pipe or a link to nowhere is not looked into
    suffix = path.suffix.lower()
    if suffix in UNREAD_SUFFIXES:
        return Pictures(str(path), [path], fps, pictures)
    if suffix in IMAGE_SUFFIXES or (path.is_file() and is_picture(path)):
        if path.is_file() and frames_in(data := path.read_bytes()) > 1:
            kind = format_of(data[:HEAD_BYTES])
            if kind in ("PNG", "WEBP"):
                return Animation(path, fps)
            if kind != "TIFF":
                from salstream.runtime.sources.video import open_file

                return open_file(path, fps)
        return Pictures(str(path), [path], fps, pictures)
    from salstream.runtime.sources.video import open_file

    return open_file(path, fps)


def open_list(paths: Sequence[Path], fps: float | None, pictures: PicturesAs | None) -> Pictures:
    """Open a list of pictures, in its order.

    Raises:
        UsageError: One is not there, or no picture.
    """
    name = f"{len(paths)} pictures" if len(paths) > 1 else str(paths[0])
    missing = [path for path in paths if not path.exists() and not path.is_symlink()]
    if missing or any(path.is_dir() for path in paths):
        bad = missing or [path for path in paths if path.is_dir()]
        raise UsageError(
            f"in a list of pictures each must be a file that is there, and "
            f"{listed([str(path) for path in bad])} {'is' if len(bad) == 1 else 'are'} not"
        )
    readable, left_out = sort_out(paths, name, chosen=True)
    chosen = set(readable)
    return Pictures(name, [path for path in paths if path in chosen], fps, pictures, left_out)
