"""One module per dataset: a function that finds its recordings below a folder.

Nothing is decoded here; a reader lists files, knows the official splits, and says what it did
not find. `layouts` holds what several datasets share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from salstream.runtime.errors import SalstreamError, UsageError
from salstream.training.data.packed import SPLITS
from salstream.training.data.readers import (
    actions,
    dhf1k,
    diem,
    ledov,
    osie,
    plain,
    remega,
    salicon,
)
from salstream.training.data.readers.layouts import UNCERTAIN
from salstream.training.data.recordings import Found, Recording, without

READERS: Final[dict[str, Callable[[Path], Found]]] = {
    "dhf1k": dhf1k.find,
    "hollywood2": actions.find_hollywood2,
    "ucfsports": actions.find_ucfsports,
    "ledov": ledov.find,
    "diem": diem.find,
    "salicon": salicon.find,
    "osie": osie.find,
    "remega": remega.find,
    "folder": plain.find,
}


def find_recordings(dataset: str, path: Path) -> Found:
    """Find the recordings of a dataset.

    Args:
        dataset: One of ``READERS``.
        path: The folder that the dataset was unpacked to.

    Raises:
        UsageError: The dataset or the folder is not known, or nothing of it is there.
        SalstreamError: Two recordings have the same name.
    """
    if dataset not in READERS:
        raise UsageError(f"unknown dataset {dataset!r}; known: {', '.join(READERS)}")
    if not path.is_dir():
        raise UsageError(f"{path} is not a folder: expected the unpacked {dataset} dataset")
    found = READERS[dataset](path)
    if not found.recordings:
        raise UsageError(
            f"nothing of {dataset} was found in {path}; docs/data.md shows the layouts that are "
            "known"
        )
    names = [recording.name for recording in found.recordings]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SalstreamError(f"{path} has two recordings called {twice}; rename one of them")
    notes = [*found.notes, *_doubts(found.recordings), *_bare(found.recordings)]
    return replace(found, notes=notes)


def _doubts(recordings: Sequence[Recording]) -> list[str]:
    """Return a note on frames and maps whose numbers fit in more than one way, or not at all."""
    doubts = [f"{r.name} ({doubt})" for r in recordings if (doubt := getattr(r.truth, "doubt", ""))]
    return without(doubts, UNCERTAIN)


def _bare(recordings: Sequence[Recording]) -> list[str]:
    notes = []
    for split in SPLITS:
        there = [recording for recording in recordings if recording.split == split]
        bare = [recording.name for recording in there if recording.truth is None]
        if bare and len(bare) == len(there):
            notes.append(f"none of {split} has an annotation")
        else:
            notes += without(bare, f"of {split} have no annotation")
    return notes
