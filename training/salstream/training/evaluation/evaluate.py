"""The loop over scenes and entrants, and the means with their confidence."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from salstream.runtime import overlay
from salstream.runtime.errors import SalstreamError
from salstream.training.data.recordings import Size
from salstream.training.evaluation.entrants import Entrant, Entry, Map, Maps
from salstream.training.evaluation.scenes import Scene, Scenes
from salstream.training.metrics import auc_judd, cc, kld, nss, s_auc, sim

METRICS: Final = ("nss", "cc", "sim", "kld", "auc_judd", "s_auc")
RESAMPLES: Final = 2000
PICTURED: Final = 40  # recordings that pictures are kept of, evenly over the dataset
OTHERS: Final = 10_000  # at most so many fixations of other scenes are s-AUC's negatives
_PICTURE_WIDTH: Final = 320

Picture = NDArray[np.uint8]


@dataclass
class SceneScores:
    """What an entrant scored in one scene.

    Attributes:
        scene: Its name.
        split: Its split.
        frames: Numbers of the scored frames.
        values: (frames, metrics); NaN where a metric has no answer.
        nobody: Frames that were left out because nobody fixated.
    """

    scene: str
    split: str
    frames: list[int]
    values: NDArray[np.float64]
    nobody: int = 0

    @property
    def means(self) -> NDArray[np.float64]:
        """Mean of each metric over the frames that have one."""
        return _mean(self.values)


@dataclass
class Result:
    """What an entrant scored.

    Attributes:
        name: The entrant's.
        about: What it is.
        model: Whether it is a model, not a baseline.
        scenes: By scene.
        pictures: A frame's map drawn over it, by scene; for models.
    """

    name: str
    about: str
    model: bool
    scenes: list[SceneScores] = field(default_factory=list)
    pictures: dict[str, Picture] = field(default_factory=dict)

    def per_video(self) -> NDArray[np.float64]:
        """Mean over scenes of their means, with the 95 % interval: (metrics, 3)."""
        return self._bootstrap(weighted=False)

    def per_frame(self) -> NDArray[np.float64]:
        """Mean over all frames, with the 95 % interval (scenes resampled): (metrics, 3)."""
        return self._bootstrap(weighted=True)

    def _bootstrap(self, *, weighted: bool) -> NDArray[np.float64]:
        """Mean, low and high of each metric; scenes are drawn with replacement, seed 0."""
        means = np.array([scores.means for scores in self.scenes])
        weights = np.array([np.isfinite(scores.values).sum(0) for scores in self.scenes], float)
        if not weighted:
            weights = (weights > 0).astype(float)
        sums = np.nan_to_num(means) * weights
        rng = np.random.default_rng(0)
        count = len(self.scenes)
        draws = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES)
        with np.errstate(invalid="ignore"):
            drawn = (draws @ sums) / (draws @ weights)
            mean = sums.sum(0) / weights.sum(0)
        low, high = _percentiles(drawn)
        return np.stack((mean, low, high), 1)


@dataclass
class Evaluation:
    """Everything that was measured.

    Attributes:
        dataset: Name of the dataset.
        split: Which part of it.
        every: Every n-th frame was scored.
        results: Models first, then baselines.
        notes: How to read the numbers.
        truths: A frame with its density map, by scene.
    """

    dataset: str
    split: str
    every: int
    results: list[Result]
    notes: list[str]
    truths: dict[str, tuple[Picture, Picture]] = field(default_factory=dict)


def evaluate(
    scenes: Scenes,
    split: str,
    entrants: Sequence[Entrant],
    every: int = 1,
    progress: Callable[[str, str], None] | None = None,
    workers: int | None = None,
) -> Evaluation:
    """Score every entrant on every scene.

    Args:
        scenes: The dataset.
        split: For the report.
        entrants: Models first: baselines are scored on the frames that the first one gave.
        every: Score every n-th frame; all are streamed.
        progress: Called with entrant and scene before each scene.
        workers: Frames scored at a time, beside the streams; None: as many as there are cores.

    Raises:
        SalstreamError: A scene is damaged or does not fit its annotation, or a model fails.
    """
    # Streams have threads of their own; more would fight for the cores.
    cv2.setNumThreads(1)
    workers = workers or os.cpu_count() or 1
    others = _Others(scenes.scored)
    evaluation = Evaluation(scenes.dataset, split, every, [], list(scenes.notes))
    indices: dict[str, list[int]] = {}
    places = np.linspace(0, len(scenes.scored) - 1, min(PICTURED, len(scenes.scored)))
    pictured = {scenes.scored[place].name for place in places.round().astype(int)}
    with ThreadPoolExecutor(workers) as pool:
        for entrant in entrants:
            result = Result(entrant.name, entrant.about, entrant.model)
            for scene in scenes.scored:
                if progress:
                    progress(entrant.name, scene.name)
                known = indices.get(scene.name)
                shown = scene.count // 2 // every * every if scene.name in pictured else None
                rows: list[Future[NDArray[np.float64]]] = []
                scores = SceneScores(scene.name, scene.split, [], np.zeros((0, len(METRICS))))
                for entry in entrant.enter(scene, known, every):
                    if known is None:
                        indices.setdefault(scene.name, []).append(entry.index)
                    if entry.truth.empty:
                        scores.nobody += 1
                        continue
                    if len(rows) >= 2 * workers:  # maps at the frame's size are not piled up
                        rows[-2 * workers].result()
                    fixated_elsewhere = others.of(scene, entry.truth.density.shape)
                    rows.append(pool.submit(score, entry, fixated_elsewhere))
                    scores.frames.append(entry.index)
                    if entry.frame is not None and entry.index == shown:
                        _keep_pictures(evaluation, result, scene.name, entry)
                scores.values = np.array([row.result() for row in rows]).reshape(-1, len(METRICS))
                result.scenes.append(scores)
            if any(len(scores.frames) for scores in result.scenes):
                evaluation.results.append(result)
            elif entrant.model:
                raise SalstreamError(
                    f"{entrant.name}: nobody fixated in any of the frames that it has a map of"
                )
            if isinstance(entrant, Maps):
                evaluation.notes += entrant.notes
    return evaluation


def score(entry: Entry, others: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Return the six metrics of one map, at the native resolution of the truth."""
    truth = entry.truth
    saliency = _at_size(entry.saliency, truth.density.shape)
    points = truth.points[:, 1:]
    densities: list[float] = [np.nan] * 3
    if entry.densities:
        densities = [metric(saliency, truth.density) for metric in (cc, sim, kld)]
    return np.array(
        [
            nss(saliency, points),
            *densities,
            auc_judd(saliency, points),
            s_auc(saliency, points, others),
        ]
    )


class _Others:
    """Fixations of the other scenes, for s-AUC, as shares of height and width."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        sampled = [self._sampled(scene) for scene in scenes]
        self._shares = np.concatenate(sampled)
        self._owners = np.repeat([scene.name for scene in scenes], [len(s) for s in sampled])
        self._name = ""
        self._size: Size = (0, 0)
        self._points = np.zeros((0, 2), np.int32)

    @staticmethod
    def _sampled(scene: Scene) -> NDArray[np.float64]:
        points = np.concatenate([scene.points(index) for index in scene.sampled()])
        return (points[:, 1:] + 0.5) / scene.size

    def of(self, scene: Scene, size: tuple[int, ...]) -> NDArray[np.int32]:
        """Return the others' points in pixels of ``size``."""
        if (self._name, self._size) != (scene.name, size):
            pool = self._shares[self._owners != scene.name]
            if len(pool) > OTHERS:
                rng = np.random.default_rng([0, *scene.name.encode()])
                pool = rng.choice(pool, OTHERS, replace=False, shuffle=False)
            self._name, self._size = scene.name, (size[0], size[1])
            self._points = np.floor(pool * size).astype(np.int32)
        return self._points


def _keep_pictures(evaluation: Evaluation, result: Result, scene: str, entry: Entry) -> None:
    assert entry.frame is not None
    height, width = entry.frame.shape[:2]
    to = max(1, round(height * _PICTURE_WIDTH / width)), _PICTURE_WIDTH
    frame = np.asarray(cv2.resize(entry.frame, to[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    result.pictures[scene] = overlay.overlay(frame, _at_size(entry.saliency, to))
    truth = overlay.overlay(frame, _at_size(entry.truth.density, to))
    evaluation.truths.setdefault(scene, (frame, truth))


def _at_size(saliency: Map, size: tuple[int, ...]) -> Map:
    if saliency.shape == size:
        return saliency
    resized = cv2.resize(saliency, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.float32)


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over rows without NaN; NaN where there is nothing else."""
    good = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(good, values, 0).sum(0) / good.sum(0), np.float64)


def _percentiles(drawn: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    if np.isnan(drawn).all():
        return iter((drawn[0], drawn[0]))
    columns = [column[np.isfinite(column)] for column in drawn.T]
    return iter(
        np.array([np.percentile(c, share) if c.size else np.nan for c in columns])
        for share in (2.5, 97.5)
    )
