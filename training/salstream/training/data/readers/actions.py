"""Hollywood-2 and UCF Sports with eye movements (Mathe and Sminchisescu, TPAMI 2015).

As distributed for saliency: ``training`` and ``testing``, a folder per video or shot with
``images``, ``maps`` and ``fixation``. Viewers had a task. 24 frames per second.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Final

from salstream.training.data.packed import Split
from salstream.training.data.readers.layouts import Entry, videos_in
from salstream.training.data.recordings import (
    Found,
    Recording,
    seeded_splits,
    seeded_validation,
)

FPS: Final = 24.0


def find_hollywood2(root: Path) -> Found:
    """Find Hollywood-2: shots of 823 training and 884 test videos, whose names say which."""
    recordings = []
    entries, notes = videos_in(root)
    for entry in entries:
        named = re.match(r"actionclip(train|test)\d{5}", entry.name)
        if named is None:
            notes.append(f"{entry.name} is no shot of Hollywood-2 and was left out")
            continue
        split: Split = "train" if named[1] == "train" else "test"
        split = "val" if entry.split == "val" else split
        recordings.append(Recording(entry.name, split, entry.source, entry.truth, fps=FPS))
    return _with_validation(recordings, notes, {"train": 823, "test": 884})


def find_ucfsports(root: Path) -> Found:
    """Find UCF Sports: 103 training and 47 test videos, told apart by the folder above."""
    entries, notes = videos_in(root)
    if any(entry.split is None for entry in entries):
        recordings = seeded_splits([_recording(entry, "train") for entry in entries])
        note = "training and testing are not told apart, so the split is not the official one"
        return Found(recordings, "seeded, by video", notes=[note, *notes])
    recordings = [_recording(entry, entry.split or "train") for entry in entries]
    return _with_validation(recordings, notes, {"train": 103, "test": 47})


def video_of(name: str) -> str:
    """Return the video that a shot belongs to: actioncliptrain00001_2 is one of 00001."""
    return re.sub(r"(actionclip(?:train|test)\d{5}).*", r"\1", name)


def _recording(entry: Entry, split: Split) -> Recording:
    return Recording(entry.name, split, entry.source, entry.truth, fps=FPS)


def _with_validation(
    recordings: list[Recording], notes: list[str], expected: dict[str, int]
) -> Found:
    splits, expected = "official", dict(expected)
    if not any(recording.split == "val" for recording in recordings):
        recordings = seeded_validation(recordings, lambda recording: video_of(recording.name))
        splits = "official; a seeded tenth of the training videos validates"
        expected["val"] = math.ceil(0.1 * expected["train"])
        expected["train"] -= expected["val"]
    return Found(recordings, splits, expected, notes, video_of)
