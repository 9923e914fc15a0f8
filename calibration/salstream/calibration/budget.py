"""An accuracy budget: layers that lose too much in int8 stay in float, and no others."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from salstream.calibration.graphs import Graph, Layer
from salstream.calibration.windows import Progress, Windows
from salstream.runtime import SaliencyModel, SalstreamError
from salstream.runtime.preprocess import prepare
from salstream.runtime.sources import Frame, open_source

RANKING_WINDOWS: Final = 8
EQUAL: Final = 1e-4
_CHECK_CLIPS: Final = 6

Maps = NDArray[np.float32]


@dataclass(frozen=True)
class Segment:
    """Consecutive frames of a video.

    Attributes:
        frames: uint8 RGB at the model's size, (frames, height, width, 3).
        fps: Of the video.
    """

    frames: NDArray[np.uint8]
    fps: float | None


class BudgetError(SalstreamError):
    """A budget that cannot be met.

    Attributes:
        ranking: What each layer costs alone, the most sensitive first.
    """

    def __init__(self, message: str, ranking: list[tuple[Layer, float]]) -> None:
        super().__init__(message)
        self.ranking = ranking


@dataclass(frozen=True)
class Fit:
    """Which layers are quantized, and what it costs.

    Attributes:
        quantized: Layers in int8.
        kept: Layers left in float, the most sensitive first.
        ranking: All layers, the most sensitive first, each with the fall of CC that it causes
            alone; empty where it was not needed.
        mean_cc: Of the streamed maps with the float32 graph's, over all checked frames.
        worst_cc: The smallest of them.
        frames: How many were checked.
    """

    quantized: list[Layer]
    kept: list[Layer]
    ranking: list[tuple[Layer, float]]
    mean_cc: float
    worst_cc: float
    frames: int


def cut_segments(graph: Graph, clips: Sequence[Path], frames: int) -> list[Segment]:
    """Take about so many frames out of the middle of up to six clips, in equal parts."""
    chosen = [clips[i] for i in np.unique(np.linspace(0, len(clips) - 1, _CHECK_CLIPS).astype(int))]
    length = max(graph.spec.window, -(-frames // len(chosen)))
    segments = []
    for clip in chosen:
        with open_source(clip) as source:
            begin = max(0, (source.frame_count or 0) - length) // 2
            kept = []
            for frame in source:
                if frame.index >= begin:
                    kept.append(prepare(frame, graph.spec))
                if len(kept) == length:
                    break
            if kept:
                segments.append(Segment(np.stack(kept), source.fps))
    return segments


def fit(
    graph: Graph,
    largest: Mapping[str, float],
    windows: Windows,
    segments: Sequence[Segment],
    budget: float | None,
    progress: Progress = lambda _: None,
) -> Fit:
    """Quantize as many layers as the budget allows.

    Sensitivity is the fall of CC when a layer is quantized alone, over a few windows. Whether
    the budget holds is measured on streams, where a recurrent state carries its errors on.

    Args:
        graph: In float32.
        largest: The ranges of its tensors.
        windows: For the ranking.
        segments: For the check.
        budget: Largest fall of the mean CC; None: every layer is quantized.
        progress: Told what is being done.

    Raises:
        BudgetError: The budget cannot be met with any layer in int8.
    """
    progress("streaming the float32 graph")
    expected = [_streamed(graph.model, segment) for segment in segments]

    def check(kept: Sequence[tuple[Layer, float]]) -> Fit:
        names = {layer.name for layer, _ in kept}
        quantized = [layer for layer in graph.layers if layer.name not in names]
        progress(f"checking int8 with {len(kept)} of {len(graph.layers)} layers in float")
        model = graph.quantized(largest, quantized)
        ccs = [
            cc
            for segment, maps in zip(segments, expected, strict=True)
            for cc in correlations(_streamed(model, segment), maps)
        ]
        return Fit(
            quantized, [layer for layer, _ in kept], [], float(np.mean(ccs)), min(ccs), len(ccs)
        )

    everything = check([])
    if budget is None or 1 - everything.mean_cc <= budget:
        return everything
    ranking = rank(graph, largest, windows, progress)
    # Bisection, as if every further layer in float made it better; all of them are enough.
    too_few, enough, best = 0, len(ranking), None
    closest = everything
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        candidate = check(ranking[:middle])
        closest = max(closest, candidate, key=lambda result: result.mean_cc)
        if 1 - candidate.mean_cc <= budget:
            enough, best = middle, candidate
        else:
            too_few = middle
    if best is None:
        raise BudgetError(
            f"the budget of {budget:g} cannot be met: CC still falls by "
            f"{1 - closest.mean_cc:.4f} with {len(closest.kept)} of {len(ranking)} layers in "
            "float; give more, or other, clips, or a larger budget",
            ranking,
        )
    return Fit(best.quantized, best.kept, ranking, best.mean_cc, best.worst_cc, best.frames)


def rank(
    graph: Graph,
    largest: Mapping[str, float],
    windows: Windows,
    progress: Progress = lambda _: None,
) -> list[tuple[Layer, float]]:
    """Return each layer with the fall of CC when it is quantized alone, largest first."""
    indices = np.unique(np.linspace(0, len(windows) - 1, RANKING_WINDOWS).astype(int))
    inputs = [windows.inputs(int(index)) for index in indices]

    def maps(model: onnx.ModelProto) -> Maps:
        session = _session(model)
        return np.concatenate([session.run(["saliency"], given)[0] for given in inputs])

    expected = maps(graph.model)
    falls = []
    for number, layer in enumerate(graph.layers):
        progress(f"ranking layers: {number + 1} of {len(graph.layers)}")
        ccs = correlations(maps(graph.quantized(largest, [layer])), expected)
        falls.append((layer, 1 - float(np.mean(ccs))))
    return sorted(falls, key=lambda item: -item[1])


def correlations(actual: Maps, expected: Maps) -> list[float]:
    """Return :func:`correlation` of each pair of maps, (maps, height, width)."""
    return [correlation(a, b) for a, b in zip(actual, expected, strict=True)]


def correlation(actual: Maps, expected: Maps) -> float:
    """Return CC, Pearson's correlation, of two maps whose maximum is 1.

    Maps that differ by no more than 1e-4 count as equal, whatever they are: of nearly constant
    ones Pearson's correlation says nothing. A constant map correlates with no other: 0.
    """
    if np.abs(actual - expected).max() <= EQUAL:
        return 1.0
    with np.errstate(invalid="ignore", divide="ignore"):
        cc = float(np.corrcoef(actual.ravel(), expected.ravel())[0, 1])
    return float(np.nan_to_num(cc))


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)


def _streamed(model: onnx.ModelProto, segment: Segment) -> Maps:
    """Stream frames through a graph as users do."""
    with tempfile.TemporaryDirectory(prefix="salstream-") as folder:
        path = Path(folder) / "graph.onnx"
        path.write_bytes(model.SerializeToString())
        predictor = SaliencyModel.open(path, backend="onnxruntime:cpu").predictor(fps=segment.fps)
    results = [
        result
        for index, rgb in enumerate(segment.frames)
        for result in predictor.push(Frame(index, None, rgb), prepared=rgb)
    ] + predictor.flush()
    return np.stack([result.map for result in results])
