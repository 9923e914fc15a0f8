"""DHF1K: 1000 videos, free viewing (Wang, Shen, Guo, Cheng and Borji, CVPR 2018)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from salstream.training.data.packed import Split
from salstream.training.data.readers.layouts import videos_in
from salstream.training.data.recordings import Found, Recording

FPS: Final = 30.0
_LAST_OF_TRAIN: Final = 600
_LAST_OF_VAL: Final = 700


def find(root: Path) -> Found:
    """Find DHF1K as downloaded, or in UNISAL's, HD2S's or ViNet's layout of images.

    Videos 1 to 600 train, 601 to 700 validate, 701 to 1000 test; the last have no public
    annotation.
    """
    recordings = []
    entries, notes = videos_in(root)
    for entry in entries:
        if not entry.name.isdigit():
            notes.append(f"{entry.name} is no video of DHF1K and was left out")
            continue
        name = f"{int(entry.name):04d}"
        recordings.append(
            Recording(name, _split(int(entry.name)), entry.source, entry.truth, fps=FPS)
        )
    return Found(recordings, "official", {"train": 600, "val": 100, "test": 300}, notes)


def _split(number: int) -> Split:
    if number <= _LAST_OF_TRAIN:
        return "train"
    return "val" if number <= _LAST_OF_VAL else "test"
