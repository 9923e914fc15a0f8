"""LEDOV: 538 videos, free viewing by 32 people (Jiang, Xu, Liu, Qiao and Wang, ECCV 2018)."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath
from typing import Any, Final

import numpy as np

from salstream.runtime.errors import SalstreamError
from salstream.runtime.sources.pictures import VIDEO_SUFFIXES
from salstream.training.data.matfile import load_mat
from salstream.training.data.packed import Split
from salstream.training.data.readers.layouts import (
    child,
    files_in,
    folders_in,
    in_lists,
    videos_in,
)
from salstream.training.data.readers.tables import cells_in, misread, read_text
from salstream.training.data.recordings import (
    Found,
    Recording,
    TimedFixations,
    composed,
    seeded_splits,
    without,
)

FPS: Final = 24.0
_LISTS: Final[dict[Split, tuple[str, ...]]] = {
    "train": ("trainlist", "training", "train"),
    "val": ("vaildlist", "validlist", "vallist", "validation", "valid", "val"),
    "test": ("testlist", "testing", "test"),
}


def find(root: Path) -> Found:
    """Find LEDOV: a folder per video with ``NAME.mp4`` and ``Data.mat``, or extracted images.

    The splits are those of the authors' lists: ``namelist.mat`` with ``VideoNameList.mat``, or
    text files such as ``Training.txt``; without them, a seeded split.
    """
    recordings, bare = [], []
    for folder in folders_in(root):
        data = child(folder, "Data.mat")
        videos = files_in(folder, VIDEO_SUFFIXES)
        if videos:
            truth = _truth(data) if data.is_file() else None
            recordings.append(Recording(folder.name, "train", videos[0], truth))
        elif data.is_file():
            bare.append(folder.name)
    entries, notes = videos_in(root)
    notes += without(bare, "folders with Data.mat have no video")
    recordings += [
        Recording(entry.name, entry.split or "train", entry.source, entry.truth, fps=FPS)
        for entry in entries
    ]
    recordings.sort(key=lambda recording: recording.name)
    listed = _listed(root)
    if not listed:
        note = "the authors' lists (namelist.mat, VideoNameList.mat) are not there"
        return Found(seeded_splits(recordings), "seeded, by video", notes=[note, *notes])
    placed, more = in_lists(recordings, listed)
    unknown = listed.keys() - {recording.name for recording in recordings}
    more += misread(files_in(root, (".txt", ".csv")), unknown)
    expected: dict[str, int] = {split: list(listed.values()).count(split) for split in _LISTS}
    return Found(placed, "the authors' lists", expected, [*notes, *more])


def _truth(path: Path) -> TimedFixations:
    """Rows of ``Data.fixdata``: subject, start in ms, duration in ms, x, y, from 1."""
    data = load_mat(path).get("Data")
    if not isinstance(data, dict) or not {"fixdata", "VideoSize"} <= set(data):
        raise SalstreamError(f"{path} is not LEDOV's: expected Data.fixdata and Data.VideoSize")
    rows = np.asarray(data["fixdata"], np.float64).reshape(-1, 5)
    table = np.stack(
        (rows[:, 1] / 1000, rows[:, 2] / 1000, rows[:, 0], rows[:, 4] - 1, rows[:, 3] - 1), 1
    )
    width, height = (int(length) for length in np.asarray(data["VideoSize"]).ravel()[:2])
    return TimedFixations(table, (height, width))


def _listed(root: Path) -> dict[str, Split]:
    """Return the split of each video that the lists name."""
    names, places = child(root, "VideoNameList.mat"), child(root, "namelist.mat")
    found: dict[str, Split] = {}
    if names.is_file() and places.is_file():
        all_names = _texts(load_mat(names).get("VideoNameList", []))
        lists = load_mat(places)
        for split, kinds in _LISTS.items():
            for kind in set(kinds) & set(lists):
                for place in np.atleast_1d(lists[kind]).astype(int):
                    if not 1 <= place <= len(all_names):
                        raise SalstreamError(
                            f"{places} names the video {place}, but {names} has 1 to "
                            f"{len(all_names)} in VideoNameList"
                        )
                    found[composed(all_names[place - 1])] = split
        return found
    for split, kinds in _LISTS.items():
        for kind in kinds:
            for suffix in (".txt", ".csv"):
                path = child(root, kind + suffix)
                if path.is_file():
                    for line in composed(read_text(path)).split("\n"):
                        found[_name_in(line)] = split
    return {name: split for name, split in found.items() if name}


def _name_in(line: str) -> str:
    """Return the video's name in a line of a list, which may have a number before it."""
    cells = cells_in(line)
    name = next((cell for cell in cells if not cell.isdecimal()), "".join(cells[:1]))
    path = PureWindowsPath(name)  # folders before the name, of either kind
    return path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name


def _texts(cells: Any) -> list[str]:
    return [str(cell) for cell in np.atleast_1d(np.asarray(cells, object)).ravel()]
