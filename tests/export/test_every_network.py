"""Every network from a checkpoint to streamed maps, against PyTorch; every graph, every library.

UNISAL has its published weights. The other checkpoints hold made-up weights under the
published names (`fill`), for HD2S's and ESAN's own are not ours to pass on. (With made-up
weights UNISAL is ill-conditioned: PyTorch in float32 is 6e-4 away from PyTorch in float64.)
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from clips import clip
from reference import fill_module
from salstream.export.deployable import Deployable, Options, load
from salstream.runtime import SaliencyModel
from salstream.runtime.cli import load_commands
from salstream.runtime.preprocess import prepare
from salstream.runtime.sources import open_source
from salstream.training import networks

pytestmark = pytest.mark.slow

CASES = {
    "unisal-hollywood": ("unisal", "hollywood"),
    "unisal-salicon": ("unisal", "salicon"),
    "hd2s": ("hd2s", None),
    "hd2s-da": ("hd2s-da", None),
    "salgradnet": ("salgradnet", None),
    "hd2s-dsl-dhf1k": ("hd2s-dsl", "dhf1k"),
    "hd2s-dsl-hollywood": ("hd2s-dsl", "hollywood"),
    "hd2s-dsl-ucfsports": ("hd2s-dsl", "ucfsports"),
    "hd2s-net34": ("hd2s-net34", None),
    "esan": ("esan", None),
}


@dataclass(frozen=True)
class Exported:
    """A graph, and the network that it was made from."""

    path: Path
    deployable: Deployable


@pytest.fixture(scope="module")
def exported(
    tmp_path_factory: pytest.TempPathFactory, unisal_checkpoint: Path
) -> Callable[[str], Exported]:
    """Return a function that imports and exports a case with the commands, once each."""
    folder = tmp_path_factory.mktemp("graphs")
    done: dict[str, Exported] = {}
    application = load_commands()

    def command(*arguments: str | Path) -> None:
        result = CliRunner().invoke(application, [str(a) for a in arguments])
        assert result.exit_code == 0, (result.output, result.exception)

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
    counts = {"hd2s-dsl-hollywood": (1, 8, 16, 20, 31), "hd2s": (16,), "esan": (1, 4, 8)}
    with open_source(clip("bikes.mp4")) as source:
        frames = [prepare(frame.image, model.spec) for frame, _ in zip(source, range(31))]  # noqa: B905
    for count in counts.get(case, (8,)):
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


@pytest.mark.parametrize("case", CASES)
def test_openvino_says_the_same(case: str, exported: Callable[[str], Exported]) -> None:
    openvino = pytest.importorskip("openvino")
    backend = SaliencyModel.open(exported(case).path).backend
    # On processors with bfloat16 OpenVINO would use it unless told otherwise.
    compiled = openvino.Core().compile_model(
        exported(case).path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    request = compiled.create_infer_request()
    state = {
        port.any_name: np.zeros([1, *list(port.partial_shape)[1:]], np.float32)
        for port in compiled.inputs
        if port.any_name != "frames"
    }
    for frames in _batches(backend.spec.window, backend.spec.size):
        expected = backend.run(frames, state)
        request.infer({"frames": frames, **state})
        actual = {port.any_name: request.get_tensor(port).data.copy() for port in compiled.outputs}
        np.testing.assert_allclose(actual["saliency"], expected.saliency, rtol=0, atol=1e-4)
        state = expected.state


@pytest.mark.parametrize("case", [*CASES, "unisal-dhf1k"])
def test_it_builds_into_a_tensorrt_engine(case: str, exported: Callable[[str], Exported]) -> None:
    """TensorRT-RTX builds without a GPU."""
    trt = pytest.importorskip("tensorrt_rtx")
    path = exported(case).path if case in CASES else SaliencyModel.open(case).path
    builder = trt.Builder(logger := trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(path)), [
        parser.get_error(n).desc() for n in range(parser.num_errors)
    ]
    profile = builder.create_optimization_profile()
    for number in range(network.num_inputs):
        tensor = network.get_input(number)
        shape = list(tensor.shape)[1:]
        profile.set_shape(tensor.name, [1, *shape], [1, *shape], [4, *shape])
    config = builder.create_builder_config()
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None
    assert engine.nbytes > 1_000_000


def test_hd2s_costs_no_more_than_the_network() -> None:
    """Multiply-accumulates at 16×128×192: 11.0 G in the paper's network."""
    from torch.utils.flop_counter import FlopCounterMode

    counts = {}
    for model, domain in (("hd2s", ""), ("hd2s-dsl", "dhf1k")):
        network = networks.get(model).build().eval()
        from salstream.export.hd2s import DeployableHd2s
        from salstream.training.hd2s import Hd2s

        assert isinstance(network, Hd2s)
        deployable = DeployableHd2s(network, domain, (128, 192), 16, 5.0, False)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            deployable(torch.zeros(1, 16, 128, 192, 3, dtype=torch.uint8))
        counts[model] = counter.get_total_flops() / 2
    assert counts["hd2s"] <= 11.0e9
    assert counts["hd2s-dsl"] == counts["hd2s"]


def test_metadata_say_how_each_is_streamed(exported: Callable[[str], Exported]) -> None:
    hd2s = SaliencyModel.open(exported("hd2s").path)
    assert (hd2s.spec.window, hd2s.spec.map_frame, hd2s.spec.phases) == (16, 15, 1)
    assert (hd2s.spec.smoothing_sigma, hd2s.backend.recurrent) == (5.0, False)
    esan = SaliencyModel.open(exported("esan").path)
    assert (esan.spec.window, esan.spec.map_frame, esan.spec.phases) == (5, 2, 5)
    assert (esan.spec.fit, esan.backend.recurrent) == ("letterbox", True)
    assert json.loads(esan.spec.to_metadata()["salstream.verification"])["max_abs"] < 1e-4


def _batches(window: int, size: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (2, 1, window, 8, 8, 3), dtype=np.uint8)
    rows, columns = np.arange(size[0]) * 8 // size[0], np.arange(size[1]) * 8 // size[1]
    return list(coarse[:, :, :, rows][:, :, :, :, columns])
