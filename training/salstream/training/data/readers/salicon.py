"""SALICON: 20,000 images, gaze by mouse (Jiang, Huang, Duan and Zhao, CVPR 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.errors import SalstreamError
from salstream.runtime.sources.images import IMAGE_SUFFIXES
from salstream.training.data.matfile import load_mat
from salstream.training.data.packed import Split
from salstream.training.data.readers.layouts import by_stem, child, files_in
from salstream.training.data.recordings import (
    NOWHERE,
    Found,
    Points,
    Recording,
    Size,
    composed,
    fixated_in,
    pixels,
    read_map,
    without,
)

_SPLITS: Final[tuple[Split, ...]] = ("train", "val", "test")
_SIZE: Final = (480, 640)


def find(root: Path) -> Found:
    """Find SALICON: ``images``, ``maps`` and ``fixations``, each with ``train`` and ``val``.

    10,000 images train, 5,000 validate, 5,000 test without public annotation. Fixations are
    ``.mat``, with one struct per person or, in the first release, one map ``I`` of all of them;
    or ``.png``.
    """
    recordings, bare = [], set()
    for split in _SPLITS:
        maps = by_stem(child(root, "maps") / split)
        fixations = by_stem(child(root, "fixations", "fixation") / split)
        bare |= {*maps, *fixations}
        for image in files_in(child(root, "images") / split, IMAGE_SUFFIXES):
            stem = composed(image.stem)
            bare.discard(stem)
            pair = maps.get(stem), fixations.get(stem)
            truth = _Truth(*pair) if any(pair) else None
            recordings.append(Recording(image.name, split, image, truth, static=True))
    expected = {"train": 10_000, "val": 5_000, "test": 5_000}
    notes = without(bare, "images with maps or fixations are not there")
    return Found(sorted(recordings, key=lambda r: r.name), "official", expected, notes)


class _Truth:
    """A density map and the gaze of one image."""

    def __init__(self, density: Path | None, fixations: Path | None) -> None:
        self._density = density
        self._fixations = fixations
        self.counts: Mapping[str, int] = {"maps": 1} if density else {}

    @cached_property
    def observers(self) -> bool:
        """Whether the fixations are those of people apart."""
        path = self._fixations
        return path is not None and path.suffix.lower() == ".mat" and "gaze" in load_mat(path)

    def fixations(self, index: int, size: Size, fps: float | None) -> Points:
        """Return the fixations of all people."""
        if self._fixations is None:
            return NOWHERE
        if self.observers:
            return pixels(_gaze(self._fixations))
        return fixated_in(self._fixations, _SIZE)

    def density(self, index: int) -> NDArray[Any] | None:
        """Return the published map."""
        return None if self._density is None else read_map(self._density)

    def size(self, frame_size: Size) -> Size:
        """All images are 640×480."""
        return _SIZE


def _gaze(path: Path) -> NDArray[np.float64]:
    gaze = load_mat(path)["gaze"]
    people = gaze if isinstance(gaze, list | np.ndarray) else [gaze]
    rows = []
    for subject, person in enumerate(people):
        if not isinstance(person, dict) or "fixations" not in person:
            raise SalstreamError(f"{path} is not SALICON's: expected gaze.fixations")
        points = np.asarray(person["fixations"], np.float64).reshape(-1, 2) - 1
        rows.append(np.insert(points[:, ::-1], 0, subject, axis=1))
    return np.concatenate(rows) if rows else np.zeros((0, 3))
