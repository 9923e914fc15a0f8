"""What a dataset gives: recordings, each with frames and where people looked.

A reader (package `readers`) finds the recordings of a dataset on disk without decoding
anything; `prepare` packs them, `evaluate` streams them.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from salstream.runtime.errors import SalstreamError
from salstream.runtime.sources import Frame, open_source
from salstream.runtime.sources.images import read_image
from salstream.training.data.matfile import map_in
from salstream.training.data.packed import Split

Points = NDArray[np.int32]
Size = tuple[int, int]

CLIP: Final = 16  # frames of HD2S's window: shorter videos are counted
NOWHERE: Final = np.zeros((0, 3), np.int32)


class Truth(Protocol):
    """Where people looked in one recording.

    Attributes:
        counts: How many files of each kind it has, one per frame; empty if it is no files.
    """

    counts: Mapping[str, int]

    @property
    def observers(self) -> bool:
        """Whether it tells who fixated."""

    def fixations(self, index: int, size: Size, fps: float | None) -> Points:
        """Return the fixations of a frame as (subject, y, x), (k, 3); -1: subject unknown.

        Args:
            index: Of the frame.
            size: Height and width that the coordinates belong to, in pixels.
            fps: Of the video; None: a static image.
        """

    def density(self, index: int) -> NDArray[Any] | None:
        """Return the dataset's own density map, (height, width); None if it has none."""

    def size(self, frame_size: Size) -> Size:
        """Return height and width that fixations and maps belong to, in pixels."""


@dataclass(frozen=True)
class Recording:
    """A video, or a static image, of a dataset as it lies on disk.

    Attributes:
        name: Unique in the dataset, in the Unicode form NFC.
        split: ``train``, ``val`` or ``test``.
        source: A video file, an image, or the images of a video in order.
        fps: Of images that make a video; a video file knows its own.
        truth: Where people looked; None: not annotated.
        static: Whether it is an image.
    """

    name: str
    split: Split
    source: Path | Sequence[Path]
    truth: Truth | None = None
    fps: float | None = None
    static: bool = False

    def __post_init__(self) -> None:
        """Compose the name, so that lists and tables of any system name the same recording."""
        object.__setattr__(self, "name", composed(self.name))

    def frame_count(self) -> int | None:
        """Return the number of frames as declared, without decoding; None: not known."""
        if not isinstance(self.source, Path):
            return len(self.source)
        if self.static:
            return 1
        with open_source(self.source) as opened:
            return opened.frame_count

    def rate(self) -> float | None:
        """Return the frames per second; None: a static image, or not known."""
        if self.static or not isinstance(self.source, Path):
            return self.fps
        with open_source(self.source) as opened:
            return opened.fps or self.fps

    def frames(self) -> Iterator[Frame]:
        """Decode the frames, BGR.

        Raises:
            SalstreamError: A frame cannot be decoded.
        """
        if isinstance(self.source, Path) and not self.static:
            with open_source(self.source) as opened:
                yield from opened
                if damaged := getattr(opened, "damaged", 0):
                    raise SalstreamError(
                        f"{self.source} is damaged: {damaged} packets cannot be decoded, so its "
                        "frames and their annotation no longer fit"
                    )
            return
        for index, path in enumerate(self.images()):
            yield Frame(index, index / self.fps if self.fps else None, read_image(path))

    def images(self) -> Sequence[Path]:
        """Return the image files; none for a video file."""
        if isinstance(self.source, Path):
            return [self.source] if self.static else []
        return self.source


@dataclass(frozen=True)
class Found:
    """What a reader found.

    Attributes:
        recordings: Sorted by name.
        splits: Where the splits come from, for people.
        expected: How many recordings the published dataset has in each split; empty: unknown.
        notes: What was missing or left out, one sentence each.
        video_of: Gives the video that a recording, by its name, is a shot of.
    """

    recordings: Sequence[Recording]
    splits: str
    expected: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()
    video_of: Callable[[str], str] = lambda name: name

    @property
    def static(self) -> bool:
        """Whether these are images."""
        return all(recording.static for recording in self.recordings)


class TimedFixations:
    """Fixations with start and duration: each person is where their latest fixation began.

    Args:
        table: (k, 5) as (start in s, duration in s, subject, y, x), origin 0; ends may overlap,
            because some trackers merge and some do not.
        size: Height and width of the coordinates; None: the frame's own.
    """

    counts: Mapping[str, int] = {}
    observers = True

    def __init__(self, table: NDArray[np.float64], size: Size | None = None) -> None:
        self._table = table[np.argsort(table[:, 0], kind="stable")]
        # to the microsecond, so that a fixation that ends as a frame begins is not at it
        self._start = self._table[:, 0].round(6)
        self._end = (self._table[:, 0] + self._table[:, 1]).round(6)
        self._size = size

    def fixations(self, index: int, size: Size, fps: float | None) -> Points:
        """Return one point for each person who is fixating at the frame's time."""
        if fps is None:
            raise SalstreamError("fixations with times need a video's frame rate")
        now = round(index / fps, 6)
        current = self._table[(self._start <= now) & (now < self._end)]
        latest = {row[2]: row for row in current}  # later rows began later
        return pixels(np.array(list(latest.values())).reshape(-1, 5)[:, 2:])

    def density(self, index: int) -> None:
        """There is none: it is made from the fixations."""

    def size(self, frame_size: Size) -> Size:
        """Return the size of the coordinates."""
        return self._size or frame_size


class FrameFixations:
    """Fixations frame by frame; a static image has one frame.

    Args:
        by_frame: Gives (k, 3) as (subject, y, x) for a frame's index.
        size: Height and width of the coordinates; None: the frame's own.
        observers: Whether subjects are told.
    """

    counts: Mapping[str, int] = {}

    def __init__(
        self,
        by_frame: Callable[[int], NDArray[Any]],
        size: Size | None = None,
        *,
        observers: bool = True,
    ) -> None:
        self._by_frame = by_frame
        self._size = size
        self.observers = observers

    def fixations(self, index: int, size: Size, fps: float | None) -> Points:
        """Return the points of that frame."""
        return pixels(self._by_frame(index))

    def density(self, index: int) -> None:
        """There is none: it is made from the fixations."""

    def size(self, frame_size: Size) -> Size:
        """Return the size of the coordinates."""
        return self._size or frame_size


class MapFiles:
    """One file per frame: density maps and fixation maps, as images or ``.mat``.

    Args:
        maps: Density map of a frame, by its index; may have holes.
        fixations: Fixation map of a frame, by its index; may be empty.
        doubt: What is not certain about the frames that they belong to; empty: nothing.
    """

    observers = False

    def __init__(
        self, maps: Mapping[int, Path], fixations: Mapping[int, Path], doubt: str = ""
    ) -> None:
        self._maps = maps
        self._fixations = fixations
        self.doubt = doubt
        kinds = {"maps": len(maps), "fixation maps": len(fixations)}
        self.counts: Mapping[str, int] = {kind: count for kind, count in kinds.items() if count}

    def fixations(self, index: int, size: Size, fps: float | None) -> Points:
        """Return the points of the fixation map, brought to ``size`` where it has another."""
        path = self._fixations.get(index)
        if path is None:
            return NOWHERE
        return fixated_in(path, size)

    def density(self, index: int) -> NDArray[Any] | None:
        """Return the map in the file; zeros where a frame has none."""
        if not self._maps:
            return None
        path = self._maps.get(index)
        return read_map(path) if path is not None else np.zeros((1, 1), np.uint8)

    def size(self, frame_size: Size) -> Size:
        """Fixation and density maps are brought to the frame's size."""
        return frame_size


def mismatch(recording: Recording, frames: int) -> str:
    """Say which files are too many or too few for a video's frames; empty if they fit.

    One more or one less is let pass, because decoders disagree about the last frame: a frame
    without a map is then no target, a map without a frame is not used.
    """
    counts = recording.truth.counts if recording.truth else {}
    wrong = [f"{count} {kind}" for kind, count in counts.items() if abs(count - frames) > 1]
    return f"{recording.name} has {frames} frames, but {' and '.join(wrong)}" if wrong else ""


def read_map(path: Path) -> NDArray[Any]:
    """Read a map, (height, width), from an image or a ``.mat`` file.

    Raises:
        SalstreamError: It cannot be decoded.
    """
    if path.suffix.lower() == ".mat":
        return map_in(path)
    return read_image(path)[:, :, 0]


def fixated_in(path: Path, size: Size) -> Points:
    """Return the points of a fixation map, whose subjects are unknown, brought to ``size``.

    Raises:
        SalstreamError: It cannot be decoded.
    """
    found = read_map(path)
    threshold = 0 if path.suffix.lower() not in (".jpg", ".jpeg") else 127
    points = np.argwhere(found > threshold)
    located = np.floor((points + 0.5) * (np.array(size) / found.shape))
    return np.hstack((np.full((len(points), 1), -1), located)).astype(np.int32)


def composed(name: str) -> str:
    """Return a name in the Unicode form NFC: macOS decomposes letters, other systems do not."""
    return unicodedata.normalize("NFC", name)


def without(names: Iterable[str], what: str, shown: int = 3) -> list[str]:
    """Return a note on what lacks its other half, with how many there are and the first names.

    Args:
        names: Any number of them; none: no note.
        what: Of them, with what they lack: ``images have no annotation``.
        shown: How many are named.
    """
    lacking = sorted(set(names))
    more = f" and {len(lacking) - shown} more" if len(lacking) > shown else ""
    return [f"{len(lacking)} {what}: {', '.join(lacking[:shown])}{more}"] if lacking else []


def pixels(points: NDArray[Any]) -> Points:
    """Return (subject, y, x) with the coordinates of the pixels that hold the points."""
    return np.asarray(np.floor(points), np.int32).reshape(-1, 3)


def inside(points: Points, size: Size) -> tuple[Points, int]:
    """Return the points that lie inside of the frame, and how many do not."""
    y, x = points[:, 1], points[:, 2]
    good = (y >= 0) & (y < size[0]) & (x >= 0) & (x < size[1])
    return points[good], int(np.count_nonzero(~good))


def gaussian_density(
    points: NDArray[Any], size: Size, to: Size, sigma: float, pixel_aspect: float = 1.0
) -> NDArray[np.float32]:
    """Return the density map of fixations: a sum of Gaussians, round in the frame as it is shown.

    Args:
        points: (k, 2) as (y, x), in pixels of a frame of ``size``.
        size: Height and width of the frame.
        to: Height and width of the map.
        sigma: Standard deviation as a share of the frame's height. DHF1K's is about 12.7 of
            360 pixels, 0.035.
        pixel_aspect: Width of the frame's pixels as they are shown, divided by their height.

    Returns:
        float32, maximum 1; all zero without points.
    """
    scale = np.array(to) / size
    centres = (np.asarray(points, np.float64) + 0.5) * scale - 0.5
    spread = sigma * size[0] * scale / (1, pixel_aspect)
    rows, columns = (
        np.exp(-0.5 * ((np.arange(to[axis]) - centres[:, axis, None]) / spread[axis]) ** 2)
        for axis in (0, 1)
    )
    density = rows.T.astype(np.float32) @ columns.astype(np.float32)
    peak = density.max(initial=0)
    return np.asarray(density / peak if peak > 0 else density, np.float32)


def resized_density(density: NDArray[Any], to: Size) -> NDArray[np.float32]:
    """Bring a dataset's density map to a size, float32 with maximum 1 (or all zero)."""
    small = density.astype(np.float32)
    if small.shape != to:
        shrinks = to[0] < small.shape[0]
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        small = np.asarray(cv2.resize(small, (to[1], to[0]), interpolation=how), np.float32)
    peak = small.max(initial=0)
    return small / peak if peak > 0 else small


def seeded_splits(
    recordings: Sequence[Recording],
    group: Callable[[Recording], str] = lambda recording: recording.name,
    seed: int = 0,
) -> list[Recording]:
    """Split where a dataset has no splits: 60 % of the groups train, 20 % val, 20 % test.

    Args:
        recordings: Whatever their split says.
        group: What a recording belongs to: those of one scene stay together.
        seed: Of the choice.
    """
    groups = list(dict.fromkeys(map(group, recordings)))
    order = np.random.default_rng(seed).permutation(len(groups))
    share = round(0.2 * len(groups))
    splits: dict[str, Split] = dict.fromkeys(groups, "train")
    splits |= dict.fromkeys((groups[place] for place in order[:share]), "test")
    splits |= dict.fromkeys((groups[place] for place in order[share : 2 * share]), "val")
    return [replace(recording, split=splits[group(recording)]) for recording in recordings]


def seeded_validation(
    recordings: Sequence[Recording], group: Callable[[Recording], str], seed: int = 0
) -> list[Recording]:
    """Take a tenth of the training videos as validation, where a dataset names none.

    Args:
        recordings: With splits ``train`` and ``test``.
        group: What a recording belongs to: shots of one video stay together.
        seed: Of the choice.
    """
    groups = sorted({group(r) for r in recordings if r.split == "train"})
    count = math.ceil(0.1 * len(groups)) if len(groups) > 1 else 0
    chosen = {
        groups[place] for place in np.random.default_rng(seed).permutation(len(groups))[:count]
    }
    return [
        replace(r, split="val") if r.split == "train" and group(r) in chosen else r
        for r in recordings
    ]
