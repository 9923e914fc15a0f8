"""Artefacts against PyTorch over real clips, streamed as users stream them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from salstream.calibration.budget import correlation
from salstream.export.deployable import Deployable, Expected, Frames, Options, load
from salstream.export.limits import fault
from salstream.runtime import GraphSpec, SaliencyModel, SalstreamError, UsageError
from salstream.runtime.preprocess import prepare
from salstream.runtime.results import Result
from salstream.runtime.sources import open_source
from salstream.training import metrics
from salstream.training.data.recordings import Truth, inside

WORST_FRAMES: Final = 4
_PICTURE_WIDTH: Final = 480

Progress = Callable[[str], None]
Picture = NDArray[np.uint8]


@dataclass(frozen=True, order=True)
class WorstFrame:
    """A frame whose map is among the farthest from PyTorch's.

    Attributes:
        distance: 1 - CC.
        clip: Name of the clip.
        index: Number of the frame.
        pictures: Frame, PyTorch's map, the artefact's and their difference, uint8 BGR.
    """

    distance: float
    clip: str
    index: int
    pictures: Mapping[str, Picture] = field(compare=False)


@dataclass
class Comparison:
    """An artefact and what was seen of it, frame by frame.

    Attributes:
        path: The artefact.
        spec: What it says about itself.
        backend: What ran it.
        rows: One per frame: ``clip``, ``frame``, ``max_abs``, ``mean_abs``, ``cc``, ``sim``,
            ``kld``; ``conspicuity_max_abs`` where the artefact gives those maps; where people
            fixated, ``nss``, ``auc_judd`` and the same of PyTorch's map,
            ``nss_reference`` and ``auc_judd_reference``.
        worst: The frames farthest from PyTorch, the worst first.
        failure: Why it gave no further maps; empty where it gave all.
    """

    path: Path
    spec: GraphSpec
    backend: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    worst: list[WorstFrame] = field(default_factory=list)
    failure: str = ""

    def add(self, row: dict[str, Any], result: Result, reference: Result) -> None:
        """Note a frame, and keep its pictures if it is among the worst."""
        self.rows.append(row)
        distance = 1 - row["cc"]
        if len(self.worst) < WORST_FRAMES or distance > self.worst[-1].distance:
            pictures = _pictures(result, reference)
            worst = WorstFrame(distance, row["clip"], row["frame"], pictures)
            self.worst = heapq.nlargest(WORST_FRAMES, [*self.worst, worst])

    def figures(self) -> dict[str, Any]:
        """Return the summary that goes into the artefact's metadata.

        A change of a metric is relative to that of PyTorch's maps.
        """
        columns = {
            name: np.array([row[name] for row in self.rows])
            for name in ("max_abs", "mean_abs", "cc", "sim", "kld")
        }
        figures: dict[str, Any] = {
            "backend": self.backend,
            "clips": len({row["clip"] for row in self.rows}),
            "frames": len(self.rows),
        }
        if not self.rows:
            return figures
        figures |= {
            "max_abs": float(f"{columns['max_abs'].max():.3g}"),
            "mean_abs": float(f"{columns['mean_abs'].mean():.3g}"),
        }
        for name, worst in (("cc", "min"), ("sim", "min"), ("kld", "max")):
            values = columns[name]
            # Plus zero, so that nothing is -0.
            figures[f"mean_{name}"] = round(float(values.mean()), 6) + 0.0
            figures[f"{worst}_{name}"] = round(float(getattr(values, worst)()), 6) + 0.0
        if all("conspicuity_max_abs" in row for row in self.rows):
            largest = max(row["conspicuity_max_abs"] for row in self.rows)
            figures["conspicuity_max_abs"] = float(f"{largest:.3g}")
        fixated = [row for row in self.rows if "nss" in row]
        if fixated:
            figures["fixated_frames"] = len(fixated)
        for name in ("nss", "auc_judd") if fixated else ():
            ours, reference = (
                float(np.mean([row[key] for row in fixated])) for key in (name, f"{name}_reference")
            )
            figures[name] = round(ours, 5)
            figures[f"{name}_reference"] = round(reference, 5)
            figures[f"{name}_change"] = round(ours / reference - 1, 5) if reference else 0.0
        return figures

    def fault(self) -> str:
        """Say why the artefact fails its precision's limits; nothing if it passes."""
        return self.failure or fault(self.spec.precision, self.figures())


def compare(
    models: Sequence[SaliencyModel],
    checkpoint: Path,
    clips: Sequence[Path],
    frames: int,
    truths: Mapping[str, Truth],
    progress: Progress = lambda _: None,
) -> list[Comparison]:
    """Stream clips through artefacts and compare every map with PyTorch's.

    Args:
        models: The artefacts, opened.
        checkpoint: Whose network they are.
        clips: Videos.
        frames: How many of each clip, from its start.
        truths: Where people looked, by the clip's name without suffix; may be empty.
        progress: Told what is being done.

    Raises:
        UsageError: An artefact was made from another checkpoint.
        SalstreamError: A clip, or an artefact, cannot be read.
    """
    deployables = [
        deployable_of(model.path, model.spec, checkpoint, model.backend.conspicuity)
        for model in models
    ]
    comparisons = [Comparison(model.path, model.spec, model.backend.name) for model in models]
    for clip in clips:
        references: dict[tuple[Any, ...], Expected] = {}
        scored: dict[tuple[Any, ...], dict[str, float]] = {}
        for model, deployable, comparison in zip(models, deployables, comparisons, strict=True):
            if comparison.failure:
                continue
            # as the reference has it: frames one by one, whatever the clip's rate
            stream = model.stream(clip, stride=1, limit=frames)
            phases = stream.predictor.phases
            key = (_options(model.spec, model.backend.conspicuity), model.spec.domain, phases)
            if key not in references:
                progress(f"PyTorch: {clip.name}")
                read = _frames(clip, model.spec, frames)
                references[key] = reference_maps(deployable, read, phases)
            progress(f"{model.path.name} on {model.backend.name}: {clip.name}")
            expected, truth = references[key], truths.get(clip.stem)
            try:
                with stream:
                    for result in stream:
                        reference = _with_maps(result, expected)
                        row = _row(clip, result, reference)
                        points = _points(truth, result, stream.source.fps)
                        if len(points):
                            frame = (*key, result.index)
                            if frame not in scored:
                                scored[frame] = _scores(reference, points, "_reference")
                            row |= _scores(result, points) | scored[frame]
                        comparison.add(row, result, reference)
            except SalstreamError as error:  # PyTorch could read the clip: it is the artefact's
                comparison.failure = str(error)
    return comparisons


def reference_maps(deployable: Deployable, frames: Frames, phases: int) -> Expected:
    """Return what PyTorch says of a video that is read in so many interleaved phases.

    Args:
        deployable: The network.
        frames: uint8 RGB, (frames, height, width, 3).
        phases: Each with a recurrent state of its own.
    """
    if not deployable.states or phases == deployable.reference_phases:
        return deployable.reference(frames)
    if deployable.reference_phases != 1:
        raise UsageError(f"{deployable.spec.model} is read in {deployable.reference_phases} phases")
    parts = [deployable.reference(frames[n::phases]).maps for n in range(min(phases, len(frames)))]
    maps = np.empty((len(frames), *parts[0].shape[1:]), np.float32)
    for number, part in enumerate(parts):
        maps[number::phases] = part
    return Expected(maps)


def _options(spec: GraphSpec, conspicuity: bool = False) -> Options:
    """Return the options that an artefact was exported with."""
    if spec.smoothing_sigma is None:
        return Options(size=spec.size)
    return Options(
        size=spec.size,
        smoothing=spec.smoothing_sigma,
        conspicuity=conspicuity,
        clip_length=spec.window,
    )


def deployable_of(
    path: Path, spec: GraphSpec, checkpoint: Path, conspicuity: bool = False
) -> Deployable:
    """Return the network that an artefact was made from.

    Args:
        path: The artefact, for messages.
        spec: What it says about itself.
        checkpoint: The checkpoint.
        conspicuity: Whether the artefact gives conspicuity maps.

    Raises:
        UsageError: It was made from another checkpoint.
    """
    options = _options(spec, conspicuity)
    deployable = load(checkpoint, spec.model, spec.domain or None, options)
    if deployable.spec.checkpoint_sha256 != spec.checkpoint_sha256:
        raise UsageError(f"{path} was not made from {checkpoint}, but from another checkpoint")
    return deployable


def _frames(clip: Path, spec: GraphSpec, count: int) -> Frames:
    with open_source(clip) as source:
        frames = [prepare(frame, spec) for frame, _ in zip(source, range(count), strict=False)]
    if not frames:
        raise SalstreamError(f"{clip} has no frames")
    return np.stack(frames)


def _with_maps(result: Result, expected: Expected) -> Result:
    """Return the result that the frame has in PyTorch."""
    index = result.index
    conspicuity = None if expected.conspicuity is None else expected.conspicuity[index]
    return replace(result, map=expected.maps[index], conspicuity=conspicuity)


def _row(clip: Path, result: Result, reference: Result) -> dict[str, Any]:
    """Compare one map with PyTorch's."""
    difference = np.abs(result.map - reference.map)
    row = {
        "clip": clip.name,
        "frame": result.index,
        "max_abs": float(difference.max()),
        "mean_abs": float(difference.mean()),
        "cc": correlation(result.map, reference.map),
        "sim": metrics.sim(result.map, reference.map),
        "kld": metrics.kld(result.map, reference.map),
    }
    if result.conspicuity is not None and reference.conspicuity is not None:
        apart = np.abs(result.conspicuity - reference.conspicuity)
        row["conspicuity_max_abs"] = float(apart.max())
    return row


def _points(truth: Truth | None, result: Result, fps: float | None) -> NDArray[np.int32]:
    """Return the fixations of a frame as (y, x), (k, 2), in its own pixels."""
    if truth is None:
        return np.zeros((0, 2), np.int32)
    size = result.frame.shape[:2]
    return inside(truth.fixations(result.index, size, fps), size)[0][:, 1:]


def _scores(result: Result, points: NDArray[np.int32], suffix: str = "") -> dict[str, float]:
    """Score a map at the frame's size against where people looked."""
    scores = {"nss": metrics.nss, "auc_judd": metrics.auc_judd}
    return {f"{name}{suffix}": score(result.saliency, points) for name, score in scores.items()}


def _pictures(result: Result, reference: Result) -> dict[str, Picture]:
    """Return the pictures of a frame, small enough for a report."""
    difference = np.abs(result.saliency - reference.saliency)
    scale = 1 / max(float(difference.max()), 1e-12)
    shown = {
        "frame": result.frame,
        "PyTorch": reference.overlay(),
        "artefact": result.overlay(),
        f"difference × {scale:.3g}": cv2.cvtColor(
            (255 * scale * difference).astype(np.uint8), cv2.COLOR_GRAY2BGR
        ),
    }
    height, width = result.frame.shape[:2]
    size = (_PICTURE_WIDTH, max(1, round(height * _PICTURE_WIDTH / width)))
    return {
        name: np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
        for name, picture in shown.items()
    }
