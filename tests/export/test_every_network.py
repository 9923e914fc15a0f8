"""Every network from a checkpoint to streamed maps, against PyTorch; every graph, every library.

UNISAL has its published weights. The other checkpoints hold made-up weights under the
published names (`fill`), for HD2S's and ESAN's own are not ours to pass on. (With made-up
weights UNISAL is ill-conditioned: PyTorch in float32 is 6e-4 away from PyTorch in float64.)
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from clips import clip, numbered_clip
from reference import fill_module
from salstream.calibration.graphs import Graph
from salstream.export.deployable import Deployable, Options, load
from salstream.export.precision import to_fp16
from salstream.export.verify import compare
from salstream.runtime import SaliencyModel, UsageError
from salstream.runtime.cli import load_commands
from salstream.runtime.preprocess import prepare
from salstream.runtime.sources import open_source
from salstream.training import networks

pytestmark = pytest.mark.slow

CASES = {
    "unisal-hollywood": ("unisal", "hollywood"),
    "unisal-ucfsports": ("unisal", "ucfsports"),
    "unisal-salicon": ("unisal", "salicon"),
    "hd2s": ("hd2s", None),
    "hd2s-da": ("hd2s-da", None),
    "salgradnet": ("salgradnet", None),
    "hd2s-dsl-dhf1k": ("hd2s-dsl", "dhf1k"),
    "hd2s-net34": ("hd2s-net34", None),
    "esan": ("esan", None),
}


@dataclass(frozen=True)
class Exported:
    """A graph, and the network that it was made from."""

    path: Path
    deployable: Deployable


def command(*arguments: str | Path) -> None:
    """Run `salstream` with these arguments; it must succeed."""
    result = CliRunner().invoke(load_commands(), [str(a) for a in arguments])
    assert result.exit_code == 0, (result.output, result.exception)


@pytest.fixture(scope="module")
def exported(
    tmp_path_factory: pytest.TempPathFactory, unisal_checkpoint: Path
) -> Callable[[str], Exported]:
    """Return a function that imports and exports a case with the commands, once each."""
    folder = tmp_path_factory.mktemp("graphs")
    done: dict[str, Exported] = {}

    def export(case: str) -> Exported:
        if case not in done:
            model, domain = CASES[case]
            checkpoint = folder / f"{model}.safetensors"
            if not checkpoint.exists():
                published = unisal_checkpoint
                if model != "unisal":
                    published = folder / f"{model}.pth"
                    state = networks.get(model).build().state_dict()
                    torch.save(fill_module().fill(state, 0), published)
                command("weights", "import", published, "-o", checkpoint)
            conspicuity = ["--conspicuity"] if model in ("hd2s", "hd2s-dsl") else []
            chosen = ["--domain", domain] if domain else []
            # A small size shows the same in a fraction of the time; one case has its own.
            size = None if case == "hd2s" or model == "unisal" else (64, 96)
            chosen += ["--size", f"{size[0]}x{size[1]}"] if size else []
            path = folder / f"{case}.onnx"
            video = clip("bikes.mp4")
            command("export", checkpoint, "--model", model, *chosen, *conspicuity,
                    "--frames", video, "-o", path)  # fmt: skip
            options = Options(size=size, conspicuity=bool(conspicuity))
            done[case] = Exported(path, load(checkpoint, model, domain, options))
        return done[case]

    return export


@pytest.mark.parametrize("case", CASES)
def test_streamed_maps_equal_pytorch(case: str, exported: Callable[[str], Exported]) -> None:
    """A real clip as a file, the first frames and short videos included."""
    graph = exported(case)
    model = SaliencyModel.open(graph.path)
    assert model.spec.name == case
    windowed = model.spec.window == 16
    # Short videos are the same work for every window: one of them does it all.
    counts = {"hd2s-dsl-dhf1k": (1, 8, 16, 20, 31), "esan": (1, 4, 8)}
    with open_source(clip("bikes.mp4")) as source:
        frames = [prepare(frame, model.spec) for frame, _ in zip(source, range(31), strict=False)]
    for count in counts.get(case, (17,) if windowed else (8,)):
        stream = model.stream(
            clip("bikes.mp4"), limit=count, phases=graph.deployable.reference_phases
        )
        results = list(stream)
        expected = graph.deployable.reference(np.stack(frames[:count]))
        assert [result.index for result in results] == list(range(count))
        actual = np.stack([result.map for result in results])
        np.testing.assert_allclose(actual, expected.maps, rtol=0, atol=1e-4)
        if expected.conspicuity is not None:
            maps = np.stack([r.conspicuity for r in results if r.conspicuity is not None])
            np.testing.assert_allclose(maps, expected.conspicuity, rtol=0, atol=1e-4)


# One of each kind: the others differ in their weights.
KINDS = ("unisal-hollywood", "unisal-salicon", "hd2s", "hd2s-dsl-dhf1k", "hd2s-net34", "esan")


@pytest.mark.parametrize("case", KINDS)
def test_openvino_says_the_same(case: str, exported: Callable[[str], Exported]) -> None:
    """Two streams in one call, with their states carried on."""
    pytest.importorskip("openvino")
    path = exported(case).path
    backend = SaliencyModel.open(path, backend="onnxruntime:cpu").backend
    other = SaliencyModel.open(path, backend="openvino:CPU").backend
    assert (other.recurrent, other.conspicuity) == (backend.recurrent, backend.conspicuity)
    state, other_state = None, None
    for frames in _batches(backend.spec.window, backend.spec.size):
        expected = backend.run(frames, state)
        actual = other.run(frames, other_state)
        np.testing.assert_allclose(actual.saliency, expected.saliency, rtol=0, atol=1e-4)
        if expected.conspicuity is not None:
            assert actual.conspicuity is not None
            np.testing.assert_allclose(actual.conspicuity, expected.conspicuity, rtol=0, atol=1e-4)
        state, other_state = expected.state, actual.state


@pytest.mark.parametrize("case", [*KINDS, "salgradnet"])
def test_it_builds_into_a_tensorrt_engine(case: str, exported: Callable[[str], Exported]) -> None:
    """TensorRT-RTX builds without a GPU."""
    pytest.importorskip("tensorrt_rtx")
    assert _build(exported(case).path) > 1_000_000


IN_EVERY_PRECISION = ("hd2s", "hd2s-dsl-dhf1k", "unisal-ucfsports", "esan")


@pytest.mark.parametrize("case", IN_EVERY_PRECISION)
def test_float16_is_nearly_the_same_and_builds(
    case: str, exported: Callable[[str], Exported], tmp_path: Path
) -> None:
    graph = exported(case)
    half = to_fp16(onnx.load(graph.path))
    path = tmp_path / "fp16.onnx"
    path.write_bytes(half.SerializeToString())
    assert path.stat().st_size < 0.55 * graph.path.stat().st_size
    types = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    sampled = [node for node in half.graph.node if node.op_type == "GridSample"]
    assert len(sampled) == (4 if case == "esan" else 0)
    assert all(f"{node.input[1]}_fp16" not in types for node in sampled)
    backends = [
        SaliencyModel.open(p, backend="onnxruntime:cpu").backend for p in (graph.path, path)
    ]
    frames = _batches(backends[0].spec.window, backends[0].spec.size)[0]
    maps = [backend.run(frames, None).saliency.ravel() for backend in backends]
    assert np.corrcoef(maps[0], maps[1])[0, 1] >= 0.9995
    pytest.importorskip("tensorrt_rtx")
    assert _build(path) < 0.7 * _build(graph.path)


def test_float16_by_the_command(exported: Callable[[str], Exported], tmp_path: Path) -> None:
    """Checked against PyTorch like any export."""
    graph, path = exported("unisal-ucfsports"), tmp_path / "fp16.onnx"
    checkpoint = graph.path.parent / "unisal.safetensors"
    command("export", checkpoint, "--model", "unisal", "--domain", "ucfsports", "--precision",
            "fp16", "--frames", clip("bikes.mp4"), "-o", path)  # fmt: skip
    spec = SaliencyModel.open(path).spec
    assert spec.precision == "fp16"
    assert 0.9995 <= spec.verification["min_cc"] < 1


@pytest.mark.parametrize("case", IN_EVERY_PRECISION)
def test_int8_is_calibrated_and_builds_with_quantized_convolutions(
    case: str, exported: Callable[[str], Exported], tmp_path: Path
) -> None:
    """TensorRT's own parser sees both inputs of every convolution come out of int8."""
    path, graph = tmp_path / "int8.onnx", Graph(exported(case).path)
    video = numbered_clip(tmp_path / "v.mp4", 20)
    command("calibrate", graph.path, "--clips", video, "-o", path, "--windows", "2", "--check", "2")
    assert SaliencyModel.open(path).spec.precision == "int8"
    trt = pytest.importorskip("tensorrt_rtx")
    # What TensorRT-RTX makes of small depthwise convolutions is not smaller in int8.
    assert _build(path) < (0.5 if case.startswith("hd2s") else 1.2) * graph.path.stat().st_size
    logger = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(logger).create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(path))
    layers = [network.get_layer(number) for number in range(network.num_layers)]
    from_int8 = {
        layer.get_output(0).name for layer in layers if layer.type == trt.LayerType.DEQUANTIZE
    }
    quantized = {
        layer.get_output(0).name
        for layer in layers
        if layer.type == trt.LayerType.CONVOLUTION
        and all(layer.get_input(place).name in from_int8 for place in range(2))
    }
    outputs = {
        node.input[1]: node.output[0] for node in graph.model.graph.node if node.op_type == "Conv"
    }
    work = sum(layer.macs for layer in graph.layers if outputs[layer.weight] in quantized)
    assert work > 0.99 * graph.macs


@cache
def _build(path: Path) -> int:
    """Build an engine with `salstream build` and return its size."""
    engine = path.with_suffix(".engine")
    command("build", path, "--target", "tensorrt-rtx", "-o", engine, "--no-cache")
    size = engine.stat().st_size
    engine.unlink()
    return size


def test_hd2s_costs_no_more_than_the_network(exported: Callable[[str], Exported]) -> None:
    """Multiply-accumulates per clip of 16×128×192: 11.0 G in the paper's network."""
    network = networks.get("hd2s").build().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, 16, 128, 192))
    of_network = counter.get_total_flops() / 2
    assert of_network == pytest.approx(11.0e9, rel=0.01)
    assert 10e9 < Graph(exported("hd2s").path).macs <= of_network


def test_all_domains_at_once(tmp_path: Path) -> None:
    """One graph per domain, each checked against PyTorch; or one for a network without any."""
    for model in ("hd2s-dsl", "hd2s-net1"):
        state = networks.get(model).build().state_dict()
        torch.save(fill_module().fill(state, 0), tmp_path / "x.pth")
        arguments = ["export", str(tmp_path / "x.pth"), "--domain", "all", "--size", "32x32"]
        done = CliRunner().invoke(load_commands(), [*arguments, "-o", str(tmp_path / "graphs")])
        assert done.exit_code == 0, (done.output, done.exception)
    assert sorted(path.name for path in (tmp_path / "graphs").iterdir()) == [
        "hd2s-dsl-dhf1k.onnx",
        "hd2s-dsl-hollywood.onnx",
        "hd2s-dsl-ucfsports.onnx",
        "hd2s-net1.onnx",
    ]


def test_conspicuity_pictures(exported: Callable[[str], Exported], tmp_path: Path) -> None:
    """Frame, four conspicuity maps and saliency in a row."""
    path = exported("hd2s-dsl-dhf1k").path
    arguments = ["run", clip("bikes.mp4"), "--model", path, "--conspicuity", tmp_path / "figures"]
    done = CliRunner().invoke(load_commands(), [str(a) for a in [*arguments, "--limit", "3"]])
    assert done.exit_code == 0, (done.output, done.exception)
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert names == ["000000.png", "000001.png", "000002.png"]
    picture = cv2.imread(str(tmp_path / "figures" / "000001.png"))
    assert picture is not None
    assert picture.shape == (272, 6 * 640, 3)
    (result, *_) = SaliencyModel.open(path).stream(clip("bikes.mp4"), limit=3)
    assert result.conspicuity is not None
    assert result.conspicuity.shape == (4, 64, 96)
    refused = ["run", clip("bikes.mp4"), "--conspicuity", tmp_path / "none"]
    done = CliRunner().invoke(load_commands(), [str(a) for a in refused])
    assert isinstance(done.exception, UsageError)
    assert "export --conspicuity" in str(done.exception)


def test_verify_compares_conspicuity_maps_too(exported: Callable[[str], Exported]) -> None:
    graph = exported("hd2s-dsl-dhf1k")
    model = SaliencyModel.open(graph.path)
    checkpoint = graph.path.parent / "hd2s-dsl.safetensors"
    (comparison,) = compare([model], checkpoint, [clip("bikes.mp4")], 3, {})
    assert 0 < comparison.figures()["conspicuity_max_abs"] < 1e-4
    assert not comparison.fault()


def test_metadata_say_how_each_is_streamed(exported: Callable[[str], Exported]) -> None:
    hd2s = SaliencyModel.open(exported("hd2s").path)
    assert (hd2s.spec.window, hd2s.spec.map_frame, hd2s.spec.phases) == (16, 15, 1)
    assert (hd2s.spec.smoothing_sigma, hd2s.backend.recurrent) == (5.0, False)
    assert hd2s.spec.window_fps == 30
    esan = SaliencyModel.open(exported("esan").path)
    assert (esan.spec.window, esan.spec.map_frame, esan.spec.phases) == (5, 2, 5)
    assert (esan.spec.fit, esan.backend.recurrent) == ("letterbox", True)
    assert json.loads(esan.spec.to_metadata()["salstream.verification"])["max_abs"] < 1e-4


def _batches(window: int, size: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (2, 1, window, 8, 8, 3), dtype=np.uint8)
    rows, columns = np.arange(size[0]) * 8 // size[0], np.arange(size[1]) * 8 // size[1]
    return list(coarse[:, :, :, rows][:, :, :, :, columns])
