"""Small packed datasets for the training tests: bright discs on textured ground, looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from salstream.training.data.packed import PackWriter, Split, write_dataset

SPLITS: tuple[Split, ...] = ("train", "train", "train", "val")


def pack(
    folder: Path,
    *,
    videos: int = 4,
    frames: int = 12,
    size: tuple[int, int] = (64, 96),
    fps: float | None = 30.0,
    labelled: bool = True,
    splits: Sequence[Split] = SPLITS,
    seed: int = 0,
    name: str = "made-up",
    fit: str = "stretch",
) -> Path:
    """Pack videos in each of which a disc moves and is where people look; return the folder.

    They were filmed at 360×540 pixels; with ``letterbox``, at the packed proportions.
    """
    filmed = (360, 540) if fit == "stretch" else (6 * size[0], 6 * size[1])
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    write_dataset(folder, name, size, static=fps is None, finished=False, fit=fit)
    for number in range(videos):
        with PackWriter(folder, f"{number:04d}", size) as writer:
            writer.start(
                f"{number:04d}", splits[number % len(splits)], fps, filmed, labelled=labelled
            )
            start, step = random.uniform(0.2, 0.8, 2) * size, random.uniform(-1, 1, 2)
            ground = random.integers(0, 120, (*size, 3))
            for index in range(frames if fps else 1):
                y, x = np.clip(start + index * step, 4, np.array(size) - 5)
                squared = (rows - y) ** 2 + (columns - x) ** 2
                frame = np.where(squared[..., None] < 36, 250, ground).astype(np.uint8)
                density = np.asarray(255 * np.exp(-squared / 72), np.uint8)
                at = (np.array([[y, x]]) / size * filmed).astype(int)
                points = np.hstack((np.zeros((1, 1), int), at))
                density_of = density if labelled else None
                writer.append(frame, density_of, points if labelled else None)
    write_dataset(folder, name, size, static=fps is None, finished=True, fit=fit)
    return folder
