"""Packed videos as the batches that training forwards."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from salstream.runtime.errors import SalstreamError, UsageError
from salstream.runtime.preprocess import placement
from salstream.training import esan
from salstream.training.data.packed import PackedDataset, PackedVideo
from salstream.training.order import generator, video_of
from salstream.training.recipes.config import Recipe
from salstream.training.sliding import back_and_forth

_log = logging.getLogger("salstream")
_ATTEMPTS: Final = 50

Frames = NDArray[np.uint8]
Maps = Callable[[PackedVideo], NDArray[np.uint8]]


@dataclass(frozen=True)
class Geometry:
    """How a network wants to see a frame, and where its map lies.

    Attributes:
        size: Height and width of the input.
        map_size: Height and width of the map.
        letterbox: Frames keep their proportions and are filled up with black.
    """

    size: tuple[int, int]
    map_size: tuple[int, int]
    letterbox: bool = False

    def check(self, name: str, dataset: PackedDataset) -> None:
        """Refuse frames that were packed in another way.

        Raises:
            UsageError: The message has the command that packs them right.
        """
        letterboxed = dataset.about.get("fit") == "letterbox"
        # Black borders do not stretch with the frame, so such packs have the size to the pixel.
        if letterboxed != self.letterbox or (letterboxed and dataset.size != self.size):
            size = "x".join(map(str, self.size))
            fit = " --fit letterbox" if self.letterbox else ""
            raise UsageError(
                f"{name}: {dataset.folder} has frames of another kind than the network takes; "
                f"pack them with: salstream prepare {dataset.name} … --size {size}{fit}"
            )

    @classmethod
    def of(cls, recipe: Recipe, source: str) -> Geometry:
        """Return the geometry of a recipe's network, for one of its sources."""
        height, width = recipe.size_of(source)
        if recipe.family == "esan":
            stride = esan.model.MAP_STRIDE
            return cls((height, width), (height // stride, width // stride), letterbox=True)
        return cls((height, width), (height, width))

    def place(
        self, points: NDArray[np.int32], frame_size: tuple[int, int], pixel_aspect: float = 1.0
    ) -> NDArray[np.bool_]:
        """Return fixations as a map.

        Args:
            points: (k, 2) as (y, x), in pixels of the frame as it was filmed.
            frame_size: Its height and width.
            pixel_aspect: Width of its pixels as they are shown, divided by their height.

        Returns:
            Boolean, ``map_size``.
        """
        top, left, height, width = 0, 0, *self.map_size
        if self.letterbox:
            top, left, height, width = placement(frame_size, self.map_size, pixel_aspect)
        fixated = np.zeros(self.map_size, bool)
        if len(points):
            scaled = (points + 0.5) * (height, width) / frame_size
            rows, columns = scaled.astype(int).T
            fixated[np.clip(rows, 0, height - 1) + top, np.clip(columns, 0, width - 1) + left] = (
                True
            )
        return fixated

    def placed(self, video: PackedVideo, index: int) -> NDArray[np.bool_]:
        """Return the fixations of a video's frame as a map: boolean, ``map_size``."""
        return self.place(video.fixations(index), video.fixation_size, video.pixel_aspect)


@dataclass(frozen=True)
class Batch:
    """Clips of one source.

    Attributes:
        source: Its name.
        frames: uint8 RGB, (batch, time, height, width, 3).
        maps: Density maps in [0, 1], float32, (batch, maps, map height, map width).
        fixations: Boolean, same shape.
        names: Where each clip is from.
        static: Whether these are single images.
    """

    source: str
    frames: Tensor
    maps: Tensor
    fixations: Tensor
    names: tuple[str, ...]
    static: bool = False

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return replace(
            self,
            frames=self.frames.to(device, non_blocking=True),
            maps=self.maps.to(device, non_blocking=True),
            fixations=self.fixations.to(device, non_blocking=True),
        )


@dataclass(frozen=True)
class Source:
    """Training videos of a dataset, and how clips are drawn from them.

    Attributes:
        name: As the recipe calls it.
        videos: Those that are used.
        left_out: Names of those that are too short for a clip.
        static: Whether they are images.
        recipe: Says how clips are drawn.
        labelled: Whether maps are wanted; those of gradient reversal's target are not.
        maps: Density maps of a video, uint8, (frames, height, width).
    """

    name: str
    videos: tuple[PackedVideo, ...]
    left_out: tuple[str, ...]
    static: bool
    recipe: Recipe
    labelled: bool
    maps: Maps
    _geometry: Geometry = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_geometry", Geometry.of(self.recipe, self.name))

    @property
    def single(self) -> bool:
        """Whether a clip is one image, on which UNISAL bypasses its recurrent part."""
        return self.static and self.recipe.family == "unisal"

    @property
    def batch_size(self) -> int:
        """Clips of a batch, over all processes together."""
        clips = self.recipe.clips
        return (clips.image_batch or clips.batch) if self.static else clips.batch

    @property
    def iterations_per_epoch(self) -> int:
        """Iterations in which every video comes once."""
        return -(-len(self.videos) // (self.batch_size * self.recipe.clips.accumulate))

    def batch(self, number: int, rank: int = 0, processes: int = 1) -> Batch:
        """Return one process's share of a batch.

        Args:
            number: Of the batch among this source's, over the whole run.
            rank: Number of the process.
            processes: How many share the batch.
        """
        share = self.batch_size // processes
        first = number * self.batch_size + rank * share
        clips = [self.clip(sample) for sample in range(first, first + share)]
        frames, maps, fixations, names = zip(*clips, strict=True)
        return Batch(
            self.name,
            torch.from_numpy(np.stack(frames)),
            torch.from_numpy(np.stack(maps)).float() / 255,
            torch.from_numpy(np.stack(fixations)),
            tuple(names),
            self.single,
        )

    def clip(self, sample: int) -> tuple[Frames, Frames, NDArray[np.bool_], str]:
        """Return a clip, its density maps and fixations, and where it is from.

        Args:
            sample: Its number over the whole run, which decides everything about it.

        Raises:
            SalstreamError: It cannot be read, or no clip of the source has a fixation.
        """
        seed = self.recipe.seed
        for attempt in range(_ATTEMPTS):
            # Other videos take the place of one that cannot be used.
            number = video_of(seed, self.name, sample, len(self.videos))
            video = self.videos[(number + attempt) % len(self.videos)]
            random = generator(seed, self.name, "clip", sample, attempt)
            try:
                drawn = self._draw(video, random)
            except (SalstreamError, OSError, ValueError, IndexError) as error:
                message = f"cannot read a clip of {video.name} in {self.name}: {error}"
                if self.recipe.clips.on_bad_clip == "stop":
                    raise SalstreamError(
                        f"{message}; prepare it again, or go on without it: "
                        "--set clips.on_bad_clip=skip"
                    ) from error
                _log.warning("%s; another clip takes its place", message)
                continue
            if drawn is not None:
                return drawn
        raise SalstreamError(
            f"found no clip with a fixation in {_ATTEMPTS} tries in {self.name}; check the data "
            "with: salstream prepare --check"
        )

    def _draw(
        self, video: PackedVideo, random: np.random.Generator
    ) -> tuple[Frames, Frames, NDArray[np.bool_], str] | None:
        """Return a random clip of a video; None if nobody fixates anywhere in its maps' frames."""
        clips, geometry = self.recipe.clips, self._geometry
        length = 1 if self.single else clips.length
        stride = stride_of(video, clips.rate)
        wanted = map_frames(self.recipe.family, length)
        starts = np.arange(_starts(len(video), length, stride))
        places = starts[:, None] + stride * np.arange(length)
        turn = np.array(back_and_forth(len(video)))
        frames = turn[places % len(turn)]
        if self.labelled and video.labelled:
            frames = frames[video.fixated[frames[:, wanted]].any(axis=1)]
            if not len(frames):
                return None
        indices = frames[random.integers(len(frames))]
        flip = random.random() < clips.flip
        film = video.frames
        pictures = np.stack([resized(film[i], geometry.size) for i in indices])
        shape = (len(wanted), *geometry.map_size)
        maps, fixations = np.zeros(shape, np.uint8), np.zeros(shape, bool)
        if self.labelled:
            truth = self.maps(video)
            for place, index in enumerate(indices[wanted]):
                maps[place] = resized(truth[index], geometry.map_size)
                fixations[place] = geometry.placed(video, int(index))
        if flip:
            pictures, maps, fixations = pictures[:, :, ::-1], maps[..., ::-1], fixations[..., ::-1]
        return pictures.copy(), maps.copy(), fixations.copy(), f"{video.name}:{indices[0]}"


def open_source(
    name: str,
    dataset: PackedDataset,
    recipe: Recipe,
    labelled: bool,
    teacher: Maps | None = None,
    split: str = "train",
) -> Source:
    """Return the videos of a dataset that clips are drawn from.

    Args:
        name: As the recipe calls it.
        dataset: What the user gave.
        recipe: Says how clips are drawn.
        labelled: Whether maps are wanted.
        teacher: Gives maps of videos that have none.
        split: Which of the videos.

    Raises:
        UsageError: There are no videos, none that can be used, or they were packed for another
            network.
    """
    geometry = Geometry.of(recipe, name)
    geometry.check(name, dataset)
    if dataset.size != geometry.size:
        packed, wanted = ("x".join(map(str, size)) for size in (dataset.size, geometry.size))
        _log.info("%s: packed at %s, trained at %s; each frame is resized", name, packed, wanted)
    videos = dataset.videos(split)
    if not videos:
        raise UsageError(f"{name}: {dataset.folder} has no videos for {split}")
    unlabelled = [video.name for video in videos if not video.labelled]
    if labelled and unlabelled and teacher is None:
        raise UsageError(
            f"{name}: {unlabelled[0]} has no maps; give a model whose maps it learns from "
            "(--set teacher=unisal-dhf1k), or use the data as a target"
        )
    single = dataset.static and recipe.family == "unisal"
    usable: list[PackedVideo] = []
    left_out: list[PackedVideo] = []
    for video in videos:
        span = (recipe.clips.length - 1) * stride_of(video, recipe.clips.rate) + 1
        short = not dataset.static and len(video) < span
        leave = recipe.clips.short_videos == "leave-out" and not single
        (left_out if leave and short else usable).append(video)
    if not usable:
        raise UsageError(
            f"{name}: all {len(videos)} videos are shorter than a clip of {recipe.clips.length} "
            "frames; shorten it, or extend them: --set clips.short_videos=extend"
        )

    def maps(video: PackedVideo) -> NDArray[np.uint8]:
        own = video.maps
        if own is not None:
            return own
        assert teacher is not None
        return teacher(video)

    names = tuple(video.name for video in left_out)
    return Source(name, tuple(usable), names, dataset.static, recipe, labelled, maps)


def map_frames(family: str, length: int) -> list[int]:
    """Return which frames of a clip have a map: HD2S's last, each of UNISAL's, ESAN's middles."""
    if family == "hd2s":
        return [length - 1]
    if family == "esan":
        return list(range(esan.MAP_FRAME, length, esan.WINDOW))
    return list(range(length))


def stride_of(video: PackedVideo, rate: float) -> int:
    """Return every how many frames a clip of ``rate`` frames per second takes one; 0: each."""
    return max(1, round(video.fps / rate)) if rate and video.fps else 1


def _starts(count: int, length: int, stride: int) -> int:
    """Return how many frames a clip can start at; a short video goes back and forth."""
    whole = count - (length - 1) * stride
    return whole if whole > 0 else count


def resized(picture: Frames, size: tuple[int, int]) -> Frames:
    """Bring a frame or a map to a size; both uint8."""
    if picture.shape[:2] == size:
        return picture
    height, width = size
    shrinks = picture.shape[0] > height or picture.shape[1] > width
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (width, height), interpolation=how), np.uint8)
