"""A plain folder: recordings of your own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from salstream.runtime.errors import UsageError
from salstream.runtime.sources.images import IMAGE_SUFFIXES
from salstream.runtime.sources.pictures import VIDEO_SUFFIXES
from salstream.training.data.readers import osie, remega
from salstream.training.data.readers.layouts import (
    SPLIT_FOLDERS,
    by_stem,
    child,
    files_in,
    videos_in,
)
from salstream.training.data.recordings import (
    Found,
    MapFiles,
    Recording,
    composed,
    seeded_splits,
    without,
)

FPS: Final = 30.0


def find(root: Path) -> Found:
    """Find recordings in the first of these that is there.

    - ``videos`` and ``fixations.csv`` (video, subject, start_ms, duration_ms, x, y)
    - ``images`` and ``fixations.csv`` (image, subject, x, y)
    - a folder per video with ``images``, ``maps`` and ``fixation``, below ``train``, ``val`` and
      ``test`` or not
    - ``video`` and ``annotation``, or ``frames`` and ``annotation``, as DHF1K and HD2S have them
    - ``images``, ``maps`` and ``fixation`` of static images, named alike
    - nothing but videos: not labelled

    Without folders that say so, splits are seeded. Images of a video count as 30 per second.
    """
    if child(root, "fixations.csv").is_file():
        videos = files_in(child(root, "videos", "video"), VIDEO_SUFFIXES)
        if not videos:
            return osie.find(root)
        found = remega.find(root)
        return replace(found, recordings=seeded_splits(found.recordings), splits="seeded, by video")
    entries, notes = videos_in(root)
    if entries:
        recordings = [
            Recording(
                entry.name if entry.split is None else f"{entry.split}-{entry.name}",
                entry.split or "train",
                entry.source,
                entry.truth,
                fps=FPS,
            )
            for entry in entries
        ]
        if all(entry.split is not None for entry in entries):
            return Found(recordings, "by folder", notes=notes)
        if any(entry.split is not None for entry in entries):
            known = ", ".join(sorted(set(SPLIT_FOLDERS.values())))
            raise UsageError(f"{root} has videos inside and outside of {known}; move the latter")
        return Found(seeded_splits(recordings), "seeded, by video", notes=notes)
    images, notes = _images(root)
    if images:
        return Found(seeded_splits(images), "seeded, by image", notes=notes)
    videos = files_in(root, VIDEO_SUFFIXES)
    return Found(
        seeded_splits([Recording(path.stem, "train", path) for path in videos]), "seeded, by video"
    )


def _images(root: Path) -> tuple[list[Recording], list[str]]:
    maps, fixations = (
        by_stem(child(root, *names)) for names in (("maps", "saliency"), ("fixation", "fixations"))
    )
    recordings, stems = [], set()
    for image in files_in(child(root, "images"), IMAGE_SUFFIXES):
        stem = composed(image.stem)
        stems.add(stem)
        found = [{0: files[stem]} if stem in files else {} for files in (maps, fixations)]
        truth = MapFiles(found[0], found[1]) if any(found) else None
        recordings.append(Recording(image.name, "train", image, truth, static=True))
    notes = without({*maps, *fixations} - stems, "maps have no image")
    return sorted(recordings, key=lambda recording: recording.name), notes
