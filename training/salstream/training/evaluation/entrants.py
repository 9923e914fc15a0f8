"""Who is scored: models, maps that others made, and the baselines to read their numbers against.

Every entrant gives, for the frames of a scene that are asked for, a map and the truth that it
is scored against.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import cv2
import numpy as np
from numpy.lib.format import read_array
from numpy.typing import NDArray

from salstream.runtime.errors import SalstreamError, UsageError
from salstream.runtime.model import SaliencyModel
from salstream.runtime.sources.images import IMAGE_SUFFIXES
from salstream.runtime.sources.quiet import quiet_opencv
from salstream.training.data.readers.layouts import (
    UNCERTAIN,
    by_frame,
    child,
    files_in,
    folders_in,
    identity,
)
from salstream.training.data.recordings import composed, gaussian_density, resized_density, without
from salstream.training.evaluation.scenes import FrameTruth, Scene

CENTRE_GRID: Final = (90, 160)  # height and width at which the centre bias is learned
MAP_SUFFIXES: Final = (*IMAGE_SUFFIXES, ".npy")
_GREY: Final = 8  # between the channels of a grey picture, as JPEG leaves them

Map = NDArray[np.float32]


@dataclass(frozen=True)
class Entry:
    """One map and what it is scored against.

    Attributes:
        index: Of the frame.
        saliency: (height, width), any size.
        truth: Where people looked.
        frame: The frame itself, BGR; None where the entrant does not look at it.
        densities: Whether CC, SIM and KLD are meaningful.
    """

    index: int
    saliency: Map
    truth: FrameTruth
    frame: NDArray[np.uint8] | None = None
    densities: bool = True


class Entrant(Protocol):
    """Somebody to be scored.

    Attributes:
        name: For people.
        about: What it is, in a sentence.
        model: Whether it looks at the frames; the others are baselines.
    """

    name: str
    about: str
    model: bool

    def enter(self, scene: Scene, indices: Sequence[int] | None, every: int) -> Iterator[Entry]:
        """Give a map for each of the frames.

        Args:
            scene: A video or an image.
            indices: The frames; None: every n-th of the whole video.
            every: That n.
        """
        ...


class Model:
    """A model, streamed as its users stream it: the map is the one at the frame's size."""

    model = True

    def __init__(self, name: str, opened: SaliencyModel) -> None:
        self.name = name
        self._opened = opened
        spec = opened.spec
        self.about = (
            f"{spec.name}, {spec.height}×{spec.width}, {spec.precision}, on {opened.backend.name}"
        )

    def enter(self, scene: Scene, indices: Sequence[int] | None, every: int) -> Iterator[Entry]:
        """Stream the whole scene, give every n-th map."""
        source = scene.frames() if scene.source is None else scene.source
        fps = None if scene.static or scene.source is not None else scene.fps
        frames = 0
        with self._opened.stream(source, fps=fps) as stream:
            for result in stream:
                frames = result.index + 1
                if result.index % every == 0:
                    truth = scene.truth(result.index)
                    yield Entry(result.index, result.saliency, truth, result.frame)
            damaged = getattr(stream.source, "damaged", 0)
        if damaged:
            raise SalstreamError(
                f"{scene.name} is damaged: {damaged} packets cannot be decoded, so its frames and "
                "their annotation no longer fit"
            )
        scene.check(frames)


class Maps:
    """Maps that another model made, in files: a folder for each video, one map for each image.

    Args:
        name: For people.
        folder: Holds, for the recordings or below a folder for each split, ``RECORDING/NUMBER.png``
            for a video and ``IMAGE.png`` for an image, in any format of :data:`MAP_SUFFIXES`.
            Numbers are matched with those of the frames as a dataset's own maps are.
        scenes: Those to be scored.

    Raises:
        UsageError: There is no map of any of them.
        SalstreamError: An image has two maps.
    """

    model = True

    def __init__(self, name: str, folder: Path, scenes: Sequence[Scene]) -> None:
        self.name = name
        self.about = f"maps in {folder}"
        self._doubts: list[str] = []
        self._lacking: list[str] = []
        self._files: dict[str, Mapping[int, Path]] = {scene.name: {} for scene in scenes}
        places: dict[Path, list[Scene]] = {}
        for scene in scenes:
            below = child(folder, scene.split)
            places.setdefault(below if below.is_dir() else folder, []).append(scene)
        for place, some in places.items():
            self._find(place, some)
        if not any(self._files.values()):
            first = scenes[0]
            expected = Path(first.name).stem if first.static else f"{first.name}/0001"
            raise UsageError(
                f"{folder} holds no maps of these recordings; expected files such as "
                f"{folder / expected}.png or .npy"
            )

    def _find(self, place: Path, scenes: Sequence[Scene]) -> None:
        files: dict[str, list[Path]] = {}
        for path in files_in(place, MAP_SUFFIXES):
            for name in (composed(path.stem), composed(path.name)):
                files.setdefault(name, []).append(path)
        folders = {composed(path.name): path for path in folders_in(place)}
        numbered = {identity(name): path for name, path in folders.items()}
        stems = Counter(_stem(scene) for scene in scenes)
        for scene in scenes:
            stem = _stem(scene)
            alone = stems[stem] == 1  # else only the whole name says whose map it is
            if scene.static:
                found = files.get(scene.name, []) + (files.get(str(stem), []) if alone else [])
                found = list(dict.fromkeys(found))
                if len(found) > 1:
                    raise SalstreamError(f"{scene.name} has two maps: {found[0]} and {found[1]}")
                self._files[scene.name] = dict(enumerate(found))
                continue
            folder = folders.get(scene.name) or (numbered.get(stem) if alone else None)
            if folder is not None:
                found = files_in(folder, MAP_SUFFIXES)
                found = found or files_in(child(folder, "maps", "saliency"), MAP_SUFFIXES)
                pairs = by_frame(found, scene.images or scene.count)
                self._doubts += [f"{scene.name} ({pairs.doubt})"] if pairs.doubt else []
                self._files[scene.name] = pairs

    @property
    def notes(self) -> Sequence[str]:
        """Which frames have no map, and where the maps' numbers are not certain."""
        said = [
            *without(
                self._lacking, "recordings have frames without a map, which were not scored", 10
            ),
            *without(self._doubts, UNCERTAIN),
        ]
        return [f"{self.name}: {note}" for note in said]

    def enter(self, scene: Scene, indices: Sequence[int] | None, every: int) -> Iterator[Entry]:
        """Give the maps of the frames that have one."""
        scene.check(scene.count)
        missing, asked = [], _indices(scene, indices, every)
        for index in asked:
            truth, path = scene.truth(index), self._files[scene.name].get(index)
            if path is not None:
                yield Entry(index, read_saliency(path), truth)
            elif not truth.empty:
                missing.append(str(index))
        if missing:
            some = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
            which = "" if scene.static else f" ({len(missing)} of {len(asked)}, from 0: {some})"
            self._lacking.append(scene.name + which)


def read_saliency(path: Path) -> Map:
    """Read a map that a model made, (height, width), from a grey picture or an array.

    Raises:
        SalstreamError: It cannot be read, or is no map: coloured, not finite, of other axes.
    """
    values: NDArray[Any] | None
    try:
        content = path.read_bytes()
        if path.suffix.lower() == ".npy":
            values = read_array(io.BytesIO(content), allow_pickle=False)
        else:
            with quiet_opencv():
                values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except (OSError, ValueError, EOFError, cv2.error) as error:
        raise SalstreamError(f"{path} cannot be read: it is damaged, or not a map") from error
    if values is None:
        raise SalstreamError(f"{path} cannot be decoded: it is damaged, or not an image")
    if path.suffix.lower() == ".npy":  # an axis for the channel or the batch
        values = values.squeeze() if values.ndim > 2 else values
    elif values.ndim == 3:
        values = values[..., :3].astype(np.float32)  # without opacity
        if np.ptp(values, axis=2).max() > _GREY:
            raise SalstreamError(
                f"{path} is coloured: expected the map itself, a grey picture, not one drawn for "
                "people"
            )
        values = values[..., 0]
    if values.ndim != 2 or not values.size or values.dtype.kind not in "buif":
        raise SalstreamError(
            f"{path} is no map: expected a number for each pixel, got {values.dtype} of shape "
            f"{values.shape}"
        )
    saliency = np.asarray(values, np.float32)
    if not np.isfinite(saliency).all():
        raise SalstreamError(f"{path} has values that are not finite")
    if saliency.min() < 0:
        raise SalstreamError(
            f"{path} has negative values; expected a density, not its logarithm or a network's "
            "raw output"
        )
    return saliency


class CentreBias:
    """The mean density map of the training videos; of the others, for one of them."""

    model = False
    name = "centre bias"

    def __init__(self, training: Sequence[Scene]) -> None:
        self._training = {scene.name for scene in training}
        self._total = np.zeros(CENTRE_GRID)
        for scene in training:
            self._total += _mean_density(scene)
        self.about = (
            f"mean density map of the training split ({len(training)} recordings, up to 20 "
            "frames each), without the scored one"
        )

    def enter(self, scene: Scene, indices: Sequence[int] | None, every: int) -> Iterator[Entry]:
        """Give the same map for every frame."""
        own = _mean_density(scene) if scene.name in self._training else 0
        saliency = resized_density(np.maximum(self._total - own, 0), scene.size)
        for index in _indices(scene, indices, every):
            yield Entry(index, saliency, scene.truth(index))


class Chance:
    """The same value everywhere."""

    model = False
    name = "chance"
    about = "a constant map"

    def enter(self, scene: Scene, indices: Sequence[int] | None, every: int) -> Iterator[Entry]:
        """Give a constant map for every frame."""
        saliency = np.ones(scene.size, np.float32)
        for index in _indices(scene, indices, every):
            yield Entry(index, saliency, scene.truth(index))


class Observers:
    """People against people: what a perfect predictor of one group could say of another.

    Args:
        one: One person against all the others, chosen anew for each frame: the bound for NSS
            and the AUCs. Otherwise one half against the other.
        sigma: Of the density maps, as a share of the frame's height.
        seed: Of the choices.
    """

    model = False

    def __init__(self, *, one: bool, sigma: float, seed: int = 0) -> None:
        self._one = one
        self._sigma = sigma
        self._seed = seed
        self.name = "observers, one" if one else "observers, half"
        self.about = (
            "density map of all observers but one, against that one (chosen anew each frame)"
            if one
            else "density map of a random half of the observers, against the other half"
        )

    def enter(self, scene: Scene, indices: Sequence[int] | None, every: int) -> Iterator[Entry]:
        """Give the density map of some people, to be scored against the others."""
        rng = np.random.default_rng([self._seed, *scene.name.encode()])
        for index in _indices(scene, indices, every):
            points = scene.points(index)
            people = rng.permutation(np.unique(points[:, 0]))
            if len(people) < 2:
                continue
            left_out = people[: 1 if self._one else len(people) // 2]
            chosen = np.isin(points[:, 0], left_out)
            size = scene.size
            saliency, density = (
                gaussian_density(points[who, 1:], size, size, self._sigma)
                for who in (~chosen, chosen)
            )
            truth = FrameTruth(points[chosen], density)
            yield Entry(index, saliency, truth, densities=not self._one)


def _mean_density(scene: Scene) -> NDArray[np.float64]:
    """Mean over up to 20 frames, on a coarse grid."""
    truths = [scene.truth(index, CENTRE_GRID).density for index in scene.sampled()]
    return np.asarray(np.mean(truths, axis=0), np.float64)


def _stem(scene: Scene) -> str | int:
    return Path(scene.name).stem if scene.static else identity(scene.name)


def _indices(scene: Scene, indices: Sequence[int] | None, every: int) -> Sequence[int]:
    return range(0, scene.count, every) if indices is None else indices
