"""From a deployable network to an ONNX file that was checked against PyTorch."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from salstream.calibration.budget import correlations
from salstream.export.deployable import Deployable, Frames, Maps
from salstream.export.limits import fault
from salstream.export.precision import to_fp16
from salstream.runtime import GraphSpec, SaliencyModel, SalstreamError
from salstream.runtime.preprocess import prepare
from salstream.runtime.sources import Frame, open_source

# ONNX Runtime's CUDA provider has no Resize of opset 19.
OPSET: Final = 18
CHECK_FRAMES: Final = 12


def export_graph(
    deployable: Deployable, path: Path, frames: Frames, frames_from: str, precision: str = "fp32"
) -> GraphSpec:
    """Write a graph and check it; the file appears only if the check holds.

    Args:
        deployable: The network.
        path: The ``.onnx`` file.
        frames: Consecutive frames for the check, uint8 RGB (frames, height, width, 3).
        frames_from: Where they come from, for the graph's metadata.
        precision: ``fp32`` or ``fp16``.

    Returns:
        The graph's spec, with the figures of the check.

    Raises:
        SalstreamError: The graph's maps differ from PyTorch's by more than its precision
            explains (see :mod:`salstream.export.limits`), or the file cannot be written.
    """
    graph = to_onnx(deployable)
    if precision == "fp16":
        graph = to_fp16(graph)
    deployable = replace(deployable, spec=replace(deployable.spec, precision=precision))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".salstream-") as folder:
            part = Path(folder) / path.name
            _save(graph, deployable.spec, part)
            figures = _check(part, deployable, frames)
            spec = replace(deployable.spec, verification={**figures, "frames_from": frames_from})
            _save(graph, spec, part)
            part.replace(path)
    except OSError as error:
        raise SalstreamError(f"cannot write {path}: {error.strerror}") from error
    return spec


def to_onnx(deployable: Deployable) -> onnx.ModelProto:
    """Return the graph, without metadata: inputs and outputs named, batch axis dynamic."""
    spec = deployable.spec
    # A batch of 2 while tracing: an axis of length 1 would be taken for a constant.
    frames = torch.zeros(2, spec.window, *spec.size, 3, dtype=torch.uint8)
    states = [torch.zeros(2, *shape) for shape in deployable.states.values()]
    names = list(deployable.states)
    batch = torch.export.Dim("batch", min=1, max=64)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            deployable.module.eval(),
            (frames, *states),
            dynamo=True,
            opset_version=OPSET,
            input_names=["frames", *names],
            output_names=["saliency", *deployable.outputs, *(f"{name}_next" for name in names)],
            dynamic_shapes=[{0: batch} for _ in range(1 + len(names))],
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    _strip(graph)
    return graph


def given_frames(source: str, spec: GraphSpec, count: int | None = None) -> tuple[Frames, str]:
    """Read the first frames of a source.

    Returns:
        The frames at the model's size, uint8 RGB (frames, height, width, 3), and what to
        call them: no folders, no passwords.
    """
    count = _enough(spec) if count is None else count
    frames: list[NDArray[np.uint8]] = []
    opened = open_source(source)
    try:
        for frame in opened:
            frames.append(prepare(frame, spec))
            if len(frames) == count:
                break
    finally:
        opened.close()
    return np.stack(frames), opened.name.rpartition("/")[2]


def made_frames(spec: GraphSpec, count: int | None = None) -> Frames:
    """Make frames with the statistics of natural pictures: drifting 1/f noise, seeded.

    Returns:
        uint8 RGB, (frames, height, width, 3).
    """
    count = _enough(spec) if count is None else count
    rng = np.random.default_rng(0)
    height, width = spec.size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal((3, height, width))) / frequency
    spectrum[:, 0, 0] = 0
    picture = np.fft.irfft2(spectrum, (height, width))
    picture = np.clip(128 + 50 * picture / picture.std(), 0, 255).astype(np.uint8)
    drifting = [np.roll(picture, (2 * t, 3 * t), axis=(1, 2)) for t in range(count)]
    return np.stack(drifting).transpose(0, 2, 3, 1).copy()


def _enough(spec: GraphSpec) -> int:
    """Return how many frames show the start of a video, whole windows and a carried state."""
    return max(CHECK_FRAMES, spec.window + 4)


def _check(path: Path, deployable: Deployable, frames: Frames) -> dict[str, float]:
    """Compare the graph, streamed as users stream it, with the network in PyTorch."""
    expected = deployable.reference(frames)
    predictor = SaliencyModel.open(path, backend="onnxruntime:cpu").predictor(
        phases=deployable.reference_phases
    )
    results = [
        result
        for index, rgb in enumerate(frames)
        # The frames are at the model's size already; the picture itself is not looked at.
        for result in predictor.push(Frame(index, None, rgb), prepared=rgb)
    ] + predictor.flush()
    figures = compare(np.stack([result.map for result in results]), expected.maps)
    if expected.conspicuity is not None:
        given = [result.conspicuity for result in results if result.conspicuity is not None]
        figures["conspicuity_max_abs"] = compare(np.stack(given), expected.conspicuity)["max_abs"]
    found = fault(deployable.spec.precision, figures)
    if found:
        raise SalstreamError(
            f"the exported graph differs from PyTorch: {found}; nothing was written"
        )
    return figures


def compare(actual: Maps, expected: Maps) -> dict[str, float]:
    """Return the largest and mean absolute difference, smallest and mean CC, and the frames."""
    difference = np.abs(actual - expected)
    ccs = correlations(actual, expected)
    return {
        "frames": len(expected),
        "max_abs": float(f"{difference.max():.3g}"),
        "mean_abs": float(f"{difference.mean():.3g}"),
        "min_cc": round(min(ccs), 6),
        "mean_cc": round(float(np.mean(ccs)), 6),
    }


def _save(graph: onnx.ModelProto, spec: GraphSpec, path: Path) -> None:
    del graph.metadata_props[:]
    onnx.helper.set_model_props(graph, spec.to_metadata())
    path.write_bytes(graph.SerializeToString(deterministic=True))


def _strip(graph: onnx.ModelProto) -> None:
    """Remove what the exporter says about the source code that it traced."""
    graph.producer_name, graph.producer_version = "salstream", ""
    graph.doc_string = ""
    graph.graph.name, graph.graph.doc_string = "saliency", ""
    for part in (
        graph.graph.node,
        graph.graph.value_info,
        graph.graph.initializer,
        graph.graph.input,
        graph.graph.output,
    ):
        for item in part:
            item.doc_string = ""
            del item.metadata_props[:]
    del graph.graph.metadata_props[:]
    # The runtimes infer the shapes in between by themselves.
    del graph.graph.value_info[:]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's own messages from the user's terminal."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)
