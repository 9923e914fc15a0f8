"""DIEM: 85 videos, free viewing by over 250 people (Mital, Smith, Hill and Henderson, 2011)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.errors import SalstreamError
from salstream.runtime.sources.images import IMAGE_SUFFIXES
from salstream.training.data.packed import Split
from salstream.training.data.readers.layouts import (
    VIDEO_SUFFIXES,
    by_frame,
    child,
    files_in,
    folders_in,
)
from salstream.training.data.recordings import (
    Found,
    FrameFixations,
    MapFiles,
    Recording,
    seeded_splits,
    seeded_validation,
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
    recordings = sorted([*_downloaded(root), *_images(root)], key=lambda r: r.name)
    lists = _lists(root)
    if not lists:
        return Found(seeded_splits(recordings), "seeded, by video")
    placed = [replace(r, split=lists[r.name]) for r in recordings if r.name in lists]
    notes = [f"{r.name} is in no list and was left out" for r in recordings if r.name not in lists]
    placed = seeded_validation(placed, lambda recording: recording.name)
    return Found(placed, "lists; a seeded tenth of the training videos validates", {}, notes)


def _downloaded(root: Path) -> list[Recording]:
    recordings = []
    for folder in folders_in(root):
        videos = files_in(child(folder, "video"), VIDEO_SUFFIXES)
        events = files_in(child(folder, "event_data"), (".txt",))
        if videos:
            size = _size_in(folder.name)
            truth = FrameFixations(_lazily(events, size), size) if events else None
            recordings.append(Recording(folder.name, "train", videos[0], truth))
    return recordings


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
        return rows[rows[:, 0] == index + 1, 1:]  # frames count from 1

    return by_index


@lru_cache(maxsize=8)  # the videos that are being decoded
def _table(events: tuple[Path, ...], size: tuple[int, int]) -> NDArray[np.float64]:
    return np.concatenate([_events(path, n, size) for n, path in enumerate(events)])


def _events(path: Path, subject: int, size: tuple[int, int]) -> NDArray[np.float64]:
    """Return one person's fixations as (frame, subject, y, x), in pixels of the video.

    Columns: frame, then x, y, pupil and event of the left eye and of the right one; the event
    1 is a fixation. Where both eyes fixate, their mean counts.
    """
    try:
        rows = np.loadtxt(path, ndmin=2)[:, :9]
        left, right = rows[:, 1:5], rows[:, 5:9]
    except (ValueError, IndexError) as error:
        raise SalstreamError(f"{path} is not DIEM's: expected nine numbers a line") from error
    points = []
    for eye in (left, right):
        good = (eye[:, 3] == _FIXATION) & np.isfinite(eye[:, :2]).all(1)
        points.append(np.where(good[:, None], eye[:, :2], np.nan))
    both = np.stack(points)
    seen = np.isfinite(both[..., 0]).any(0)
    x, y = np.nanmean(both[:, seen], 0).T
    top, left_edge = (SCREEN[0] - size[0]) / 2, (SCREEN[1] - size[1]) / 2
    who = np.full(len(x), subject)
    return np.stack((rows[seen, 0], who, y - top, x - left_edge), 1)


def _images(root: Path) -> list[Recording]:
    recordings = []
    for folder in folders_in(child(root, "video_frames") / "DIEM"):
        frames = files_in(folder, IMAGE_SUFFIXES)
        annotation = child(root, "annotations") / "DIEM" / folder.name
        maps = files_in(child(annotation, "maps"), IMAGE_SUFFIXES)
        fixations = files_in(annotation, (".mat",))
        if frames:
            found = MapFiles(by_frame(maps, frames), by_frame(fixations, frames))
            truth = found if maps or fixations else None
            recordings.append(Recording(folder.name, "train", frames, truth, fps=FPS))
    return recordings


def _lists(root: Path) -> dict[str, Split]:
    """Return the split of each video that the lists name."""
    found: dict[str, Split] = {}
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        path = child(root, "fold_lists") / f"DIEM_list_{split}_fps.txt"
        if path.is_file():
            found |= {line.split()[0]: split for line in path.read_text().splitlines() if line}
    return found
