"""Layouts that several datasets share: one folder per video, with images and maps inside.

ID/{images,maps,fixation}                      UNISAL's, also below training/ and testing/
{train,val}/ID/{images,maps,fixation/maps}     ViNet's and ESAN's
video/ID.AVI  annotation/ID/{maps,fixation}    DHF1K's as downloaded
frames/ID     annotation/ID/{maps,fixation}    HD2S's
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import av

from salstream.runtime.errors import SalstreamError
from salstream.runtime.sources import open_source
from salstream.runtime.sources.images import IMAGE_SUFFIXES, images_among, natural_order
from salstream.runtime.sources.pictures import VIDEO_SUFFIXES
from salstream.training.data.packed import Split
from salstream.training.data.recordings import MapFiles, Recording, composed, without

UNCERTAIN: Final = "recordings have maps whose numbers leave open which frames they belong to"
_SHIFTS: Final = 1000  # between numbers of frames and of their maps that are tried
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


def videos_in(root: Path) -> tuple[list[Entry], list[str]]:
    """Find the videos of any of the layouts below a folder, by name; and notes on what is not."""
    found: dict[tuple[Split | None, str | int], Entry] = {}
    # Images that somebody extracted beside the videos are the ones that the maps were made for.
    for entry in (*_with_inner_images(root), *_with_annotation_apart(root)):
        found.setdefault((entry.split, identity(entry.name)), entry)
    known = {name for _, name in found}
    places = [child(root, "annotation")]
    places += [path for path in folders_in(root) if path.name.lower() in SPLIT_FOLDERS]
    bare = [
        f"{place.name}/{folder.name}"
        for place in places
        for folder in folders_in(place)
        if identity(folder.name) not in known and _has_maps(folder)
    ]
    notes = without(bare, "folders of maps have no video or frames")
    return sorted(found.values(), key=lambda entry: composed(entry.name)), notes


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
    return [*images_among(paths), *sorted(others, key=natural_order)]


def by_stem(folder: Path) -> dict[str, Path]:
    """Return images and ``.mat`` files by stem, composed; ``.mat`` wins: it may know the people."""
    return {composed(path.stem): path for path in files_in(folder, (*IMAGE_SUFFIXES, ".mat"))}


def child(folder: Path, *names: str) -> Path:
    """Return the first of these that is there, whatever the case of its name."""
    if folder.is_dir():
        there = {path.name.lower(): path for path in folder.iterdir()}
        for name in names:
            if name.lower() in there:
                return there[name.lower()]
    return folder / names[0]


def in_lists(
    recordings: Sequence[Recording], lists: Mapping[str, Split]
) -> tuple[list[Recording], list[str]]:
    """Return the recordings that lists name, in their splits; and notes on what does not meet."""
    placed = [replace(r, split=lists[r.name]) for r in recordings if r.name in lists]
    names = {recording.name for recording in recordings}
    notes = without(names - lists.keys(), "are in no list and were left out")
    return placed, [*notes, *without(lists.keys() - names, "are in the lists, but not there")]


def truth_in(folder: Path, frames: Sequence[Path] | Path) -> MapFiles | None:
    """Return the maps and fixation maps in a video's folder; None if there are neither.

    Args:
        folder: Holds ``maps`` and ``fixation``.
        frames: The video's images, or the video file.
    """
    maps = files_in(child(folder, "maps", "saliency"), IMAGE_SUFFIXES)
    inner = child(folder, "fixation", "fixations")
    fixations = files_in(inner, (*IMAGE_SUFFIXES, ".mat")) or files_in(
        child(inner, "maps"), (*IMAGE_SUFFIXES, ".mat")
    )
    return paired(maps, fixations, frames)


def paired(
    maps: Sequence[Path], fixations: Sequence[Path], frames: Sequence[Path] | Path
) -> MapFiles | None:
    """Return density maps and fixation maps by the frames that they belong to; None: neither.

    Args:
        maps: Files of density maps.
        fixations: Files of fixation maps.
        frames: The video's images, or the video file.
    """
    if not maps and not fixations:
        return None
    there = _count(frames) if isinstance(frames, Path) else frames
    pairs = {"maps": by_frame(maps, there), "fixation maps": by_frame(fixations, there)}
    doubt = " and ".join(f"{kind} {pair.doubt}" for kind, pair in pairs.items() if pair.doubt)
    return MapFiles(pairs["maps"], pairs["fixation maps"], doubt)


class Pairs(dict[int, Path]):
    """Files by the index of their frame; those without a frame come after the last one.

    Attributes:
        doubt: Why another pairing is possible, and what was assumed; empty: it is certain.
    """

    doubt = ""


def by_frame(files: Sequence[Path], frames: Sequence[Path] | int | None) -> Pairs:
    """Tell which frame each file belongs to, by the numbers in their names.

    Either may be counted from any number and have holes. Among the shifts between the two that
    give the most pairs, the likeliest is taken; it is certain if it is the only one, and the
    first and the last file belong to the first and the last frame.

    Args:
        files: One per frame at most; of two with the same stem the later one counts.
        frames: The images of a video, the number of frames of a video file, or None: unknown.
    """
    files = list({composed(path.stem): path for path in files}.values())
    numbers = _numbers(files)
    there = range(frames) if isinstance(frames, int) else _numbers(frames or [])
    if numbers and not frames:  # a video that does not tell its length
        there = range(max(numbers) - min(numbers) + 1)
        shift, certain = -min(numbers), min(numbers) < 2
    elif numbers and there:
        shift, certain = _shift(there, numbers)
    else:
        return _by_stem(files, frames if isinstance(frames, Sequence) else [])
    places = {number: place for place, number in enumerate(there)}
    pairs = Pairs()
    for number, path in zip(numbers, files, strict=True):
        pairs[places.get(number + shift, len(places) + len(pairs))] = path
    if not certain:
        pairs.doubt = (
            f"{min(numbers)} to {max(numbers)} for frames {min(there)} to {max(there)}, "
            f"{numbers[0]} taken for {numbers[0] + shift}"
        )
    return pairs


def _shift(frames: Sequence[int], files: Sequence[int]) -> tuple[int, bool]:
    """Return what to add to the files' numbers to get the frames', and whether it is certain."""
    there = set(frames)
    starts, ends = min(frames) - min(files), max(frames) - max(files)
    usual = (min(frames) - 1, 0, min(frames), starts)  # files counted from 1, alike, from 0
    between = range(min(starts, ends), max(starts, ends) + 1)[:_SHIFTS]
    pairs = {
        shift: len(there & {number + shift for number in files}) for shift in (*between, *usual)
    }
    best = [shift for shift, count in pairs.items() if count == max(pairs.values())]
    shift = next((shift for shift in usual if shift in best), best[0])
    return shift, best == [shift] and starts == ends == shift


def _by_stem(files: Sequence[Path], frames: Sequence[Path]) -> Pairs:
    """Match files whose names have no numbers by their stems, or else by their order."""
    places = {composed(frame.stem): place for place, frame in enumerate(frames)}
    pairs = Pairs()
    alike = any(composed(path.stem) in places for path in files)
    for path in files:
        place = places.get(composed(path.stem)) if alike else len(pairs)
        pairs[len(places) + len(pairs) if place is None else place] = path
    if files and not alike:
        pairs.doubt = "have no numbers that tell their frames and are taken in order"
    return pairs


def _numbers(paths: Sequence[Path]) -> list[int] | None:
    """Return the numbers that tell files of a series apart; None if none do.

    Names may have several, such as ``clip2_0001_640x480``: the one that counts is different in
    each name, and covers the smallest range.
    """
    runs = [[int(digits) for digits in re.findall(r"[0-9]+", path.stem)] for path in paths]
    shortest = min(map(len, runs), default=0)
    columns = [[run[place] for run in runs] for place in range(-1, -shortest - 1, -1)]
    counting = [numbers for numbers in columns if len(set(numbers)) == len(paths)]
    return min(counting, key=lambda numbers: max(numbers) - min(numbers), default=None)


def _count(video: Path) -> int | None:
    """Return how many frames a video file has, without decoding; None: it cannot be opened."""
    try:
        with open_source(video) as opened:
            if opened.frame_count is not None:
                return opened.frame_count
        with av.open(video) as container:  # Matroska does not declare it
            return sum(packet.size > 0 for packet in container.demux(video=0)) or None
    except (SalstreamError, OSError, av.FFmpegError):
        return None


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
    annotation = {identity(path.name): path for path in folders_in(child(root, "annotation"))}
    entries = []
    for path in files_in(child(root, "video", "videos"), VIDEO_SUFFIXES):
        folder = annotation.get(identity(path.stem))
        entries.append(Entry(path.stem, path, truth_in(folder, path) if folder else None))
    for place in folders_in(child(root, "frames")):
        images = files_in(place, IMAGE_SUFFIXES)
        folder = annotation.get(identity(place.name))
        if images:
            entries.append(Entry(place.name, images, truth_in(folder, images) if folder else None))
    return entries


def _has_maps(folder: Path) -> bool:
    kinds = ("maps", "saliency", "fixation", "fixations")
    return any(child(folder, kind).is_dir() for kind in kinds)


def identity(name: str) -> str | int:
    """001, 0001 and 1 are the same video."""
    return int(name) if name.isdecimal() else composed(name)
