"""What is scored against: videos or images, each with the truth of its frames.

A dataset as it lies on disk, or one that `salstream prepare` packed; the packed one has frames
of the network's size, but the same fixations at their native resolution.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.errors import SalstreamError, UsageError
from salstream.training.data.packed import SPLITS, PackedVideo, open_packed, read_about
from salstream.training.data.prepare import SIGMA
from salstream.training.data.readers import find_recordings
from salstream.training.data.recordings import (
    NOWHERE,
    Points,
    Recording,
    Size,
    gaussian_density,
    inside,
    mismatch,
    resized_density,
)

SAMPLED_FRAMES: Final = 20  # of a video, for what is learned from a whole dataset


@dataclass(frozen=True)
class FrameTruth:
    """Where people looked in one frame.

    Attributes:
        points: Fixations as (subject, y, x), (k, 3), in pixels of ``density``.
        density: Density map, float32, (height, width), maximum 1 or all zero.
    """

    points: Points
    density: NDArray[np.float32]

    @property
    def empty(self) -> bool:
        """Whether nobody fixated."""
        return not (len(self.points) or self.density.any())


class Scene(ABC):
    """A video or an image to be scored.

    Attributes:
        name: Unique in the dataset.
        split: ``train``, ``val`` or ``test``.
        static: Whether it is an image.
        source: What :meth:`salstream.runtime.SaliencyModel.stream` is given: a path, or None,
            where `frames` gives BGR frames.
    """

    name: str
    split: str
    static: bool
    source: Path | None

    @property
    @abstractmethod
    def observers(self) -> bool:
        """Whether the truth tells who fixated."""

    @property
    @abstractmethod
    def fps(self) -> float | None:
        """Frames per second; None: an image."""

    @abstractmethod
    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames, BGR."""

    @abstractmethod
    def points(self, index: int) -> Points:
        """Return the fixations of a frame as (subject, y, x), in pixels of ``size``."""

    @abstractmethod
    def truth(self, index: int, size: Size | None = None) -> FrameTruth:
        """Return where people looked; the density map has the native size, or ``size``."""

    @property
    @abstractmethod
    def size(self) -> Size:
        """Native height and width of fixations and maps."""

    @property
    @abstractmethod
    def count(self) -> int:
        """Frames, as declared."""

    @property
    def images(self) -> Sequence[Path]:
        """Image files that the frames are; none for a video file."""
        return ()

    @abstractmethod
    def check(self, frames: int) -> None:
        """Refuse a truth that does not fit the number of frames that came.

        Raises:
            SalstreamError: It does not.
        """

    def sampled(self) -> list[int]:
        """Return up to 20 frames, evenly over the video."""
        count = min(SAMPLED_FRAMES, self.count)
        return [(2 * place + 1) * self.count // (2 * count) for place in range(count)]


class RawScene(Scene):
    """A recording as it lies on disk."""

    def __init__(self, recording: Recording, sigma: float) -> None:
        self._recording = recording
        self._sigma = sigma
        self.name, self.split, self.static = recording.name, recording.split, recording.static
        self.source = recording.source if isinstance(recording.source, Path) else None

    @cached_property
    def observers(self) -> bool:
        """Whether the truth tells who fixated; a file may have to be read for it."""
        return self._recording.truth is not None and self._recording.truth.observers

    @cached_property
    def fps(self) -> float | None:
        """Frames per second; the file is asked when first needed."""
        return self._recording.rate()

    @cached_property
    def _native(self) -> Size:
        frame = next(iter(self._recording.frames()), None)
        if frame is None:
            raise SalstreamError(f"{self.name} has no frames")
        return frame.image.shape[0], frame.image.shape[1]

    @property
    def size(self) -> Size:
        """Native height and width of fixations and maps."""
        truth = self._recording.truth
        return truth.size(self._native) if truth else self._native

    @cached_property
    def count(self) -> int:
        """Frames, as declared; counted where the file does not say."""
        declared = self._recording.frame_count()
        return declared or sum(1 for _ in self._recording.frames())

    @property
    def images(self) -> Sequence[Path]:
        """Image files that the frames are; none for a video file."""
        return self._recording.images()

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames, BGR."""
        return (frame.image for frame in self._recording.frames())

    def points(self, index: int) -> Points:
        """Return the fixations of a frame; those outside of it are left out."""
        truth = self._recording.truth
        if truth is None:
            return NOWHERE
        return inside(truth.fixations(index, self.size, self.fps), self.size)[0]

    def truth(self, index: int, size: Size | None = None) -> FrameTruth:
        """Return where people looked."""
        points = self.points(index)
        given = self._recording.truth.density(index) if self._recording.truth else None
        to = size or self.size
        if given is None:
            return FrameTruth(points, gaussian_density(points[:, 1:], self.size, to, self._sigma))
        return FrameTruth(points, resized_density(given, to))

    def check(self, frames: int) -> None:
        """Refuse a truth that does not fit the number of frames that came."""
        if wrong := mismatch(self._recording, frames):
            raise SalstreamError(f"{wrong}: expected one for each frame")


class PackedScene(Scene):
    """A video of a packed dataset."""

    source = None

    def __init__(self, video: PackedVideo, sigma: float | None) -> None:
        self._video = video
        self._sigma = sigma
        self.name, self.split = video.name, video.split
        self.static = video.fps is None

    @cached_property
    def observers(self) -> bool:
        """Whether the truth tells who fixated."""
        table = [self._video.fixations_by_subject(index) for index in self.sampled()]
        return any((rows[:, 0] >= 0).any() for rows in table)

    @property
    def fps(self) -> float | None:
        """Frames per second; None: an image."""
        return self._video.fps

    @property
    def size(self) -> Size:
        """Native height and width of the fixations."""
        return self._video.fixation_size

    @property
    def count(self) -> int:
        """Frames."""
        return len(self._video)

    def check(self, frames: int) -> None:
        """Nothing to refuse: it was packed frame by frame."""

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames, BGR, at the packed size."""
        return (np.ascontiguousarray(frame[..., ::-1]) for frame in self._video.frames)

    def points(self, index: int) -> Points:
        """Return the fixations of a frame."""
        return self._video.fixations_by_subject(index)

    def truth(self, index: int, size: Size | None = None) -> FrameTruth:
        """Return where people looked; a dataset's own density map is enlarged."""
        points, to = self.points(index), size or self.size
        if self._sigma is not None:
            aspect = self._video.pixel_aspect
            density = gaussian_density(points[:, 1:], self.size, to, self._sigma, aspect)
            return FrameTruth(points, density)
        maps = self._video.maps
        density = np.zeros(to, np.float32) if maps is None else resized_density(maps[index], to)
        return FrameTruth(points, density)


@dataclass(frozen=True)
class Scenes:
    """The scenes of a dataset.

    Attributes:
        dataset: Its name.
        path: Where it is.
        scored: Those that are scored, by name.
        training: Those of the training split.
        sigma: Of density maps made from fixations, as a share of the frame's height.
        notes: What a reader of the numbers should know, one sentence each.
    """

    dataset: str
    path: Path
    scored: Sequence[Scene]
    training: Sequence[Scene]
    sigma: float
    notes: Sequence[str]


def open_scenes(
    dataset: str,
    path: Path,
    split: str = "test",
    limit: int | None = None,
    sigma: float | None = None,
) -> Scenes:
    """Find the scenes of a split.

    Args:
        dataset: Its name, one of :data:`salstream.training.data.readers.READERS`.
        path: The unpacked dataset, or a folder that `salstream prepare` wrote.
        split: ``train``, ``val``, ``test`` or ``all``.
        limit: Only the first so many recordings, by name.
        sigma: Of density maps made from fixations, as a share of the frame's height; None: as
            the dataset was prepared, or 0.035.

    Raises:
        UsageError: The dataset is not known, not there, or has no annotation in the split.
    """
    if split not in (*SPLITS, "all"):
        raise UsageError(f"unknown split {split!r}; known: {', '.join(SPLITS)}, all")
    notes: list[str] = []
    about = read_about(path)
    scenes: list[Scene]
    if sigma is None:
        sigma = SIGMA if about is None else float(about.get("sigma", SIGMA))
    if about is None:
        found = find_recordings(dataset, path)
        notes += [f"Splits: {found.splits}.", *found.notes]
        scenes = [RawScene(r, sigma) for r in found.recordings if r.truth is not None]
        sources = "density maps of the dataset, or Gaussians"
    else:
        if about["name"] != dataset:
            raise UsageError(f"{path} holds {about['name']}, not {dataset}")
        if about.get("fit", "stretch") != "stretch":
            raise UsageError(f"{path} has letterboxed frames; give the dataset as it was unpacked")
        packed = open_packed(path)
        notes.append(f"Splits: {about.get('splits')}. Frames as packed: {packed.size}.")
        notes += about.get("notes", [])
        made = about.get("densities", "made") == "made"
        scenes = [
            PackedScene(video, sigma if made else None)
            for video in packed.videos("all")
            if video.labelled
        ]
        sources = "density maps as packed, or Gaussians"
    notes.append(f"Density: {sources} of sigma {sigma:g} of the frame's height at the fixations.")
    scored = [scene for scene in scenes if split in ("all", scene.split)]
    if not scored:
        raise UsageError(f"{dataset} in {path} has no annotated recordings in the split {split}")
    training = [scene for scene in scenes if scene.split == "train"]
    return Scenes(dataset, path, scored[:limit], training, sigma, notes)
