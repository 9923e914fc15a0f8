"""Sets of pictures: which files they are, whether they make a video, and what they are called."""

from __future__ import annotations

import logging
import os
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from salstream.runtime.errors import SalstreamError, UsageError
from salstream.runtime.sources.animations import frames_in
from salstream.runtime.sources.base import Frame, PicturesAs, Reader, time_of
from salstream.runtime.sources.images import (
    IMAGE_SUFFIXES,
    decode_image,
    header_of,
    is_picture,
    natural_order,
    read_bytes,
    why_unread,
)
from salstream.runtime.sources.numbering import are_numbered

VIDEO_SUFFIXES: Final = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
    *(".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".vob", ".mxf", ".nut", ".y4m"),
    *(".mjpeg", ".mjpg", ".h264", ".264", ".h265", ".265", ".hevc", ".ivf", ".dv", ".rm", ".rmvb"),
)
_NAMED: Final = 10  # files in one message
_LOOKED_AT: Final = 256  # headers, so that thousands of pictures on a slow disk begin at once

logger = logging.getLogger("salstream")


class Pictures(Reader):
    """Picture files, each a frame: a video, or each for itself.

    A file that cannot be decoded is named, and the others go on, with the indices of their
    places; iterating ends with an error that counts such files.

    Args:
        name: Of the set, for people.
        paths: In the order in which they are shown.
        fps: Frames per second of a video; None: not known.
        pictures: ``video`` or ``single``; None: as names and sizes say.
        left_out: How many files beside them are not read.

    Attributes:
        paths: The files.
        pictures: ``video``, or ``single``: each picture for itself, marked as a cut.
        left_out: How many files beside them are not read.
        damaged: How many of them could not be decoded, so far.
    """

    def __init__(
        self,
        name: str,
        paths: Sequence[Path],
        fps: float | None = None,
        pictures: PicturesAs | None = None,
        left_out: int = 0,
    ) -> None:
        if pictures is None:
            # who gives a rate says that it is a video
            video = fps is not None or _are_frames(paths)
            pictures = "video" if video else "single"
            if video and fps is None:
                logger.info(
                    "%s: pictures are read as the frames of a video, as their names are numbered; "
                    "--pictures single reads each for itself",
                    name,
                )
        elif pictures == "single" and fps is not None:
            raise UsageError("fps is the rate of a video: leave it out, or read pictures as video")
        super().__init__(name, fps=fps, frame_count=len(paths))
        self.paths = paths
        self.pictures: PicturesAs = pictures
        self.left_out = left_out
        self.damaged = 0

    def _read(self) -> Iterator[Frame]:
        names, labels = _names(self.paths)
        damaged: list[str] = []
        more: list[str] = []
        single = self.pictures == "single"
        try:
            for index, path in enumerate(self.paths):
                try:
                    data = read_bytes(path)
                    image = decode_image(data, path)
                except SalstreamError as error:
                    self.damaged += 1
                    if len(self.paths) == 1:
                        raise
                    logger.warning("left out: %s", shown(str(error)))
                    damaged.append(names[index])
                    continue
                if (count := frames_in(data)) > 1:
                    more.append(f"{names[index]} ({count - 1} more)")
                time = time_of(index, self.fps)
                yield Frame(index, time, image, single, name=names[index], label=labels[index])
        finally:
            if more:
                logger.warning(
                    "pictures with several pages or frames, of which the first was read and the "
                    "others were left out: %s",
                    listed(more),
                )
        if damaged:
            raise SalstreamError(
                f"{len(damaged)} of {len(self.paths)} pictures of {self.name} could not be read "
                f"({listed(damaged)}): copy or make them again"
            )


def sort_out(paths: Iterable[Path], name: str, *, chosen: bool = False) -> tuple[list[Path], int]:
    """Take the pictures that can be read from among files, in natural order.

    Files that are neither picture nor video are not meant; pictures of a kind that cannot be
    read are named in a warning.

    Args:
        paths: Files and folders, such as those of a folder.
        name: Where they come from, for people.
        chosen: Whether each of them was asked for by its name, and so is meant in any case.

    Returns:
        The pictures, and how many others are left out.

    Raises:
        UsageError: There are videos among them, or no picture that can be read: it is said
            what to do.
    """
    files = sorted(set(paths), key=natural_order)
    videos = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()]
    others = [path for path in files if path.suffix.lower() not in VIDEO_SUFFIXES]
    pictures = [path for path in others if chosen or _is_meant(path)]
    if videos:
        raise UsageError(_one_by_one(videos, pictures, name))
    unread = {path: why for path in pictures if (why := why_unread(path))}
    readable = [path for path in pictures if path not in unread]
    reasons = "; ".join(
        f"{listed([path.name for path in unread if unread[path] == why])} ({why})"
        for why in dict.fromkeys(unread.values())
    )
    if not readable:
        raise UsageError(
            f"no images at {name} that can be read: {reasons}"
            if unread
            else f"no images at {name}: expected files such as .jpg, .png, .webp or .tif"
        )
    if unread:
        logger.warning("%s: pictures left out: %d: %s", name, len(unread), reasons)
    return readable, len(unread)


def listed(names: Sequence[str]) -> str:
    """Name the first few of many."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(shown(name) for name in names[:_NAMED]) + more


def shown(text: str) -> str:
    """Return a text that stays on one line, whatever is in a file's name."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def _is_meant(path: Path) -> bool:
    if path.is_dir():
        return False
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return path.is_file() or path.is_symlink()  # a link to nowhere is a damaged picture
    try:
        return path.is_file() and is_picture(path)
    except OSError:
        return False


def _one_by_one(videos: Sequence[Path], pictures: Sequence[Path], name: str) -> str:
    kinds = "videos and pictures" if pictures else "videos"
    folder = shlex.quote(str(videos[0].parent))
    patterns = " ".join(f"{folder}/*{suffix}" for suffix in sorted({v.suffix for v in videos}))
    some = f"; for the pictures alone give {folder}/'*{pictures[0].suffix}'" if pictures else ""
    return shown(
        f"{name} holds {kinds}, and each video is a source of its own "
        f"({listed([path.name for path in videos])}): run them one after the other, as in: "
        f'for f in {patterns}; do salstream run "$f" --maps "$f.maps"; done{some}'
    )


def _are_frames(paths: Sequence[Path]) -> bool:
    """Whether pictures are the frames of a video, by their names and headers."""
    if not are_numbered(paths):
        return False
    first = None
    for path in paths[:: -(-len(paths) // _LOOKED_AT)]:
        size, photograph = header_of(path)
        first = first or size
        if photograph or size not in (None, first):
            return False
    return True


def _names(paths: Sequence[Path]) -> tuple[list[str], list[str | None]]:
    """Return what pictures are called, and what their outputs are, each without a suffix.

    Names begin in the folder that all of them lie in. Outputs of pictures whose names differ
    only in the suffix keep it. The same picture twice leaves nothing to name outputs by.
    """
    parts = [os.path.split(path) for path in paths]
    # once for each folder: of thousands of pictures it would take seconds
    folders = {folder: "" for folder, _ in parts}
    for folder in folders:
        folders[folder] = os.path.abspath(folder)  # noqa: PTH100 - links stay links
    root = os.path.commonpath(set(folders.values()))
    prefixes = {
        folder: "" if absolute == root else Path(os.path.relpath(absolute, root)).as_posix() + "/"
        for folder, absolute in folders.items()
    }
    names = [prefixes[folder] + name for folder, name in parts]
    stems = [os.path.splitext(name)[0] for name in names]  # noqa: PTH122
    often = Counter(stem.casefold() for stem in stems)
    labels = [
        name if often[stem.casefold()] > 1 else stem
        for name, stem in zip(names, stems, strict=True)
    ]
    for chosen in (labels, names):
        if len({label.casefold() for label in chosen}) == len(chosen):
            return names, list(chosen)
    return names, [None] * len(names)
