"""Who is scored: models, and the baselines that their numbers are read against.

Every entrant gives, for the frames of a scene that are asked for, a map and the truth that it
is scored against.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.errors import SalstreamError
from salstream.runtime.model import SaliencyModel
from salstream.training.data.recordings import gaussian_density, resized_density
from salstream.training.evaluation.scenes import FrameTruth, Scene

CENTRE_GRID: Final = (90, 160)  # height and width at which the centre bias is learned

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


def _indices(scene: Scene, indices: Sequence[int] | None, every: int) -> Sequence[int]:
    return range(0, scene.count, every) if indices is None else indices
