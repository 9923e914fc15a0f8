"""DIEM: 85 videos, free viewing by over 250 people (Mital, Smith, Hill and Henderson, 2011)."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.errors import SalstreamError
from salstream.runtime.sources.images import IMAGE_SUFFIXES
from salstream.runtime.sources.pictures import VIDEO_SUFFIXES
from salstream.training.data.packed import Split
from salstream.training.data.readers.layouts import (
    child,
    files_in,
    folders_in,
    in_lists,
    paired,
)
from salstream.training.data.readers.tables import cells_in, misread, read_text
from salstream.training.data.recordings import (
    Found,
    FrameFixations,
    Recording,
    composed,
    seeded_splits,
    seeded_validation,
    without,
)

FPS: Final = 30.0
SCREEN: Final = (960, 1280)  # height and width; videos were shown in its middle
_FIXATION: Final = 1


def find(root: Path) -> Found:
    """Find DIEM as downloaded, or in the layout of images that STAViS and ViNet use.

    As downloaded: ``NAME/video/NAME.mp4`` and ``NAME/event_data/SUBJECT_NAME.txt``. Images:
    ``video_frames/DIEM/NAME``, ``annotations/DIEM/NAME/maps`` and ``fixMap_*.mat``. Splits are
    those of ``fold_lists/DIEM_list_{train,test}_fps.txt``, else seeded.
    """
    downloaded, without_video = _downloaded(root)
    images, without_frames = _images(root)
    recordings = sorted([*downloaded, *images], key=lambda r: r.name)
    notes = without([*without_video, *without_frames], "have gaze or maps, but no video or frames")
    lists = _lists(root)
    if not lists:
        return Found(seeded_splits(recordings), "seeded, by video", notes=notes)
    placed, more = in_lists(recordings, lists)
    unknown = lists.keys() - {recording.name for recording in recordings}
    notes += [*more, *misread(files_in(child(root, "fold_lists"), (".txt",)), unknown)]
    placed = seeded_validation(placed, lambda recording: recording.name)
    return Found(placed, "lists; a seeded tenth of the training videos validates", {}, notes)


def _downloaded(root: Path) -> tuple[list[Recording], list[str]]:
    """Return the videos, and the names of those that have gaze alone."""
    recordings, bare = [], []
    for folder in folders_in(root):
        videos = files_in(child(folder, "video"), VIDEO_SUFFIXES)
        events = files_in(child(folder, "event_data"), (".txt",))
        if videos:
            size = _size_in(folder.name)
            truth = FrameFixations(_lazily(events, size), size) if events else None
            recordings.append(Recording(folder.name, "train", videos[0], truth))
        elif events:
            bare.append(folder.name)
    return recordings, bare


def _size_in(name: str) -> tuple[int, int]:
    """Names end in width x height as shown: BBC_life_in_cold_blood_1278x710."""
    found = re.search(r"(\d+)x(\d+)$", name)
    if found is None:
        raise SalstreamError(f"DIEM's video {name} should end in its size, such as _1280x720")
    return int(found[2]), int(found[1])


def _lazily(events: list[Path], size: tuple[int, int]) -> Callable[[int], NDArray[Any]]:
    """Return what gives the fixations of a frame; the files are read when first asked for."""

    def by_index(index: int) -> NDArray[Any]:
        rows = _table(tuple(events), size)
        first = min(rows[:, 0].min(initial=1), 1)  # frames count from 1, in copies from 0
        return rows[rows[:, 0] == index + first, 1:]

    return by_index


@lru_cache(maxsize=8)  # the videos that are being decoded
def _table(events: tuple[Path, ...], size: tuple[int, int]) -> NDArray[np.float64]:
    return np.concatenate([_events(path, n, size) for n, path in enumerate(events)])


def _events(path: Path, subject: int, size: tuple[int, int]) -> NDArray[np.float64]:
    """Return one person's fixations as (frame, subject, y, x), in pixels of the video.

    Columns: frame, then x, y, pupil and event of the left eye and of the right one; the event
    1 is a fixation. Where both eyes fixate, their mean counts.
    """
    text = read_text(path)
    if ";" in text or "\t" in text:  # what is not a separator is a decimal comma
        text = text.replace(",", ".")
    try:
        lines = (re.sub("[,;]", " ", line) for line in text.split("\n"))
        rows = np.loadtxt(lines, ndmin=2, usecols=range(9))
    except ValueError as error:
        raise SalstreamError(f"{path} is not DIEM's: expected nine numbers a line") from error
    points = []
    for eye in (rows[:, 1:5], rows[:, 5:9]):
        good = (eye[:, 3] == _FIXATION) & np.isfinite(eye[:, :2]).all(1)
        points.append(np.where(good[:, None], eye[:, :2], np.nan))
    both = np.stack(points)
    seen = np.isfinite(both[..., 0]).any(0)
    x, y = np.nanmean(both[:, seen], 0).T
    top, left_edge = (SCREEN[0] - size[0]) / 2, (SCREEN[1] - size[1]) / 2
    who = np.full(len(x), subject)
    return np.stack((rows[seen, 0], who, y - top, x - left_edge), 1)


def _images(root: Path) -> tuple[list[Recording], list[str]]:
    """Return the videos, and the names of those that have maps alone."""
    recordings = []
    annotations = {
        composed(path.name): path for path in folders_in(child(root, "annotations") / "DIEM")
    }
    for folder in folders_in(child(root, "video_frames") / "DIEM"):
        frames = files_in(folder, IMAGE_SUFFIXES)
        if frames:
            annotation = annotations.pop(composed(folder.name), folder / "none")
            maps = files_in(child(annotation, "maps"), IMAGE_SUFFIXES)
            truth = paired(maps, files_in(annotation, (".mat",)), frames)
            recordings.append(Recording(folder.name, "train", frames, truth, fps=FPS))
    return recordings, list(annotations)


def _lists(root: Path) -> dict[str, Split]:
    """Return the split of each video that the lists name."""
    found: dict[str, Split] = {}
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        path = child(child(root, "fold_lists"), f"DIEM_list_{split}_fps.txt")
        if path.is_file():
            lines = map(cells_in, composed(read_text(path)).split("\n"))
            found |= {cells[0]: split for cells in lines if cells}
    return found
