"""OSIE: 700 images watched by 15 people (Xu, Jiang, Wang, Kankanhalli and Zhao, JoV 2014)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.errors import SalstreamError
from salstream.runtime.sources.images import IMAGE_SUFFIXES
from salstream.training.data.matfile import load_mat
from salstream.training.data.readers.layouts import child, files_in
from salstream.training.data.readers.tables import belonging, misread, read_table
from salstream.training.data.recordings import (
    Found,
    FrameFixations,
    Recording,
    composed,
    seeded_splits,
    without,
)


def find(root: Path) -> Found:
    """Find ``images`` and ``fixations.csv``, or ``stimuli`` and ``eye/fixations.mat``.

    Columns: image, subject, duration_ms, x, y, in pixels from 0. There are no official splits.
    """
    table = child(root, "fixations.csv")
    matlab = child(child(child(root, "data"), "eye"), "fixations.mat")
    matlab = matlab if matlab.is_file() else child(root, "eye") / "fixations.mat"
    if table.is_file():
        named = read_table(table, "image", ("subject", "y", "x"))
    else:
        named = _matlab(matlab) if matlab.is_file() else {}
    images = [
        path
        for folder in (child(root, "images", "stimuli"), child(root, "data") / "stimuli")
        for path in files_in(folder, IMAGE_SUFFIXES)
    ]
    rows, missing = belonging(named, images)
    recordings = [
        Recording(
            path.name,
            "train",
            path,
            FrameFixations(_always(rows[path])) if path in rows else None,
            static=True,
        )
        for path in sorted(images, key=lambda path: composed(path.name))
    ]
    notes = [
        *without(missing, "images with fixations are not there"),
        *misread([table], missing),
    ]
    return Found(seeded_splits(recordings), "seeded, by image", notes=notes)


def _always(rows: NDArray[Any]) -> Callable[[int], NDArray[Any]]:
    return lambda _: rows


def _matlab(path: Path) -> dict[str, NDArray[np.float64]]:
    """Cells of structs: ``img``, and ``subjects`` with ``fix_x`` and ``fix_y``, from 1."""
    found = {}
    try:
        for image in load_mat(path)["fixations"]:
            people = [
                np.stack(
                    (
                        np.full(np.size(person["fix_x"]), subject),
                        np.ravel(person["fix_y"]) - 1,
                        np.ravel(person["fix_x"]) - 1,
                    ),
                    1,
                )
                for subject, person in enumerate(image["subjects"], 1)
            ]
            found[str(image["img"])] = np.concatenate(people)
    except (KeyError, TypeError, ValueError) as error:
        raise SalstreamError(f"{path} is not OSIE's: expected fixations with subjects") from error
    return found
