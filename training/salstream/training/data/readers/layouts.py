"""Layouts that several datasets share: one folder per video, with images and maps inside.

ID/{images,maps,fixation}                      UNISAL's, also below training/ and testing/
{train,val}/ID/{images,maps,fixation/maps}     ViNet's and ESAN's
video/ID.AVI  annotation/ID/{maps,fixation}    DHF1K's as downloaded
frames/ID     annotation/ID/{maps,fixation}    HD2S's
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from salstream.runtime.sources.images import IMAGE_SUFFIXES, images_among
from salstream.training.data.packed import Split
from salstream.training.data.recordings import MapFiles

VIDEO_SUFFIXES: Final = (".avi", ".mp4", ".mov", ".mkv", ".m4v", ".webm", ".mpg")
SPLIT_FOLDERS: Final[Mapping[str, Split]] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Entry:
    """A video of such a layout.

    Attributes:
        name: Of its folder or file.
        source: The video file, or its images in order.
        truth: Its maps; None if it has none.
        split: As the folder above it says; None: it does not say.
    """

    name: str
    source: Path | Sequence[Path]
    truth: MapFiles | None
    split: Split | None = None


def videos_in(root: Path) -> list[Entry]:
    """Find the videos of any of the layouts below a folder, by name."""
    found: dict[tuple[Split | None, str | int], Entry] = {}
    # Images that somebody extracted beside the videos are the ones that the maps were made for.
    for entry in (*_with_inner_images(root), *_with_annotation_apart(root)):
        found.setdefault((entry.split, _identity(entry.name)), entry)
    return sorted(found.values(), key=lambda entry: entry.name)


def folders_in(folder: Path) -> list[Path]:
    """Return the folders in a folder, by name; none if it is not there."""
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def files_in(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Return the files with these suffixes, in natural order; none if the folder is not there."""
    known = tuple(suffixes)
    if not folder.is_dir():
        return []
    paths = [path for path in folder.iterdir() if path.suffix.lower() in known]
    images = set(images_among(paths))
    others = [path for path in paths if path not in images and not path.name.startswith(".")]
    return [*images_among(paths), *sorted(others, key=lambda path: (_number(path) or 0, path.name))]


def child(folder: Path, *names: str) -> Path:
    """Return the first of these that is there, whatever the case of its name."""
    if folder.is_dir():
        there = {path.name.lower(): path for path in folder.iterdir()}
        for name in names:
            if name.lower() in there:
                return there[name.lower()]
    return folder / names[0]


def truth_in(folder: Path, frames: Sequence[Path] | None) -> MapFiles | None:
    """Return the maps and fixation maps in a video's folder; None if there are neither.

    Args:
        folder: Holds ``maps`` and ``fixation``.
        frames: The video's images; None for a video file.
    """
    maps = files_in(child(folder, "maps", "saliency"), IMAGE_SUFFIXES)
    inner = child(folder, "fixation", "fixations")
    fixations = files_in(inner, (*IMAGE_SUFFIXES, ".mat")) or files_in(
        child(inner, "maps"), (*IMAGE_SUFFIXES, ".mat")
    )
    if not maps and not fixations:
        return None
    return MapFiles(by_frame(maps, frames), by_frame(fixations, frames))


def by_frame(files: Sequence[Path], frames: Sequence[Path] | None) -> dict[int, Path]:
    """Tell which frame each file belongs to, by the number at the end of its name.

    Shots of a longer video start at any number, in both; where the numbers differ but the
    counts do not, the order tells.
    """
    numbers = [_number(path) for path in files]
    if None in numbers or len(set(numbers)) < len(numbers):
        return dict(enumerate(files))
    if frames is None:
        first = 0 if 0 in numbers else 1
        return {(n or 0) - first: path for n, path in zip(numbers, files, strict=True)}
    places = {_number(frame): place for place, frame in enumerate(frames)}
    if not set(numbers) <= set(places):
        return dict(enumerate(files))
    return {places[number]: path for number, path in zip(numbers, files, strict=True)}


def _number(path: Path) -> int | None:
    found = re.search(r"(\d+)$", path.stem)
    return int(found[1]) if found else None


def _with_inner_images(root: Path) -> list[Entry]:
    places: list[tuple[Split | None, Path]] = [(None, root), (None, child(root, "annotation"))]
    places += [
        (SPLIT_FOLDERS[path.name.lower()], path)
        for path in folders_in(root)
        if path.name.lower() in SPLIT_FOLDERS
    ]
    entries = []
    for split, place in places:
        for folder in folders_in(place):
            images = files_in(child(folder, "images", "frames"), IMAGE_SUFFIXES)
            if images:
                entries.append(Entry(folder.name, images, truth_in(folder, images), split))
    return entries


def _with_annotation_apart(root: Path) -> list[Entry]:
    annotation = {_identity(path.name): path for path in folders_in(child(root, "annotation"))}
    entries = []
    for path in files_in(child(root, "video", "videos"), VIDEO_SUFFIXES):
        folder = annotation.get(_identity(path.stem))
        entries.append(Entry(path.stem, path, truth_in(folder, None) if folder else None))
    for place in folders_in(child(root, "frames")):
        images = files_in(place, IMAGE_SUFFIXES)
        folder = annotation.get(_identity(place.name))
        if images:
            entries.append(Entry(place.name, images, truth_in(folder, images) if folder else None))
    return entries


def _identity(name: str) -> str | int:
    """001, 0001 and 1 are the same video."""
    return int(name) if name.isdigit() else name
