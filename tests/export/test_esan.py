"""ESAN-VSP's graph against PyTorch, group after group, in every library that is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from reference import fill_module
from salstream.export.deployable import Deployable, Expected
from salstream.export.esan import DeployableEsan
from salstream.export.graph import to_onnx
from salstream.runtime import GraphSpec, SaliencyModel
from salstream.training.esan import SIZE, Esan, normalise, predict_video

Frames = NDArray[np.uint8]
Arrays = dict[str, NDArray[np.float32]]
Run = Callable[[Frames, Arrays], Arrays]

SMALL = (64, 96)


@pytest.fixture(scope="module")
def model(random_esan: Esan) -> Esan:
    return random_esan


@pytest.fixture(scope="module")
def graph(model: Esan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The graph of a small size; it is deleted afterwards, being as heavy as any."""
    path = tmp_path_factory.mktemp("esan") / "esan.onnx"
    write(model, SMALL, path)
    yield path
    path.unlink()


def write(model: Esan, size: tuple[int, int], path: Path) -> None:
    """Export the network with its metadata."""

    def reference(frames: Frames) -> Expected:
        return Expected(to_maximum(predict_video(model, torch.from_numpy(frames))))

    state = (512, size[0] // 8, size[1] // 8)
    spec = GraphSpec(
        model="esan",
        domain="test",
        height=size[0],
        width=size[1],
        window=5,
        map_frame=2,
        phases=5,
    )
    exported = to_onnx(
        Deployable(
            module=DeployableEsan(model, size),
            spec=spec,
            states={"state_hidden": state, "state_cell": state},
            reference=reference,
            network=model,
            eager=lambda frames, state: model(normalise(frames), state),
        )
    )
    onnx.helper.set_model_props(exported, spec.to_metadata())
    onnx.save(exported, path)


def to_maximum(maps: torch.Tensor) -> NDArray[np.float32]:
    """Scale maps, (…, height, width), to a maximum of 1."""
    scaled: NDArray[np.float32] = (maps / maps.amax(dim=(-2, -1), keepdim=True)).numpy()
    return scaled


def drifting(batch: int, count: int, size: tuple[int, int], seed: int = 0) -> Frames:
    """Return smooth noise that drifts, (batch, count, height, width, 3)."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((batch, 3, size[0] // 8, size[1] // 8)))
    fine = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)
    picture = (255 * fine).to(torch.uint8).movedim(1, -1).numpy()
    return np.stack([np.roll(picture, (t, 2 * t), axis=(1, 2)) for t in range(count)], axis=1)


def zeros(batch: int, size: tuple[int, int]) -> Arrays:
    """Return the states that a video starts from."""
    shape = (batch, 512, size[0] // 8, size[1] // 8)
    return {name: np.zeros(shape, np.float32) for name in ("state_hidden", "state_cell")}


def in_onnxruntime(path: Path) -> Run:
    """Return a function that runs a graph in ONNX Runtime."""
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]

    def run(frames: Frames, states: Arrays) -> Arrays:
        return dict(zip(names, session.run(names, {"frames": frames, **states}), strict=True))

    return run


def in_openvino(path: Path) -> Run:
    """Return a function that runs a graph in OpenVINO."""
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(frames: Frames, states: Arrays) -> Arrays:
        results = compiled({"frames": frames, **states})
        return {item.get_any_name(): np.array(results[item]) for item in compiled.outputs}

    return run


@torch.inference_mode()
def compare(run: Run, model: Esan, frames: Frames, size: tuple[int, int]) -> None:
    """Run groups one after the other through the graph and the network."""
    graph_states = zeros(len(frames), size)
    state = None
    for start in range(0, frames.shape[1], 5):
        group = np.ascontiguousarray(frames[:, start : start + 5])
        maps, state = model(normalise(torch.from_numpy(group)), state)
        outputs = run(group, graph_states)
        actual = outputs["saliency"]
        assert actual.shape == (len(frames), size[0] // 2, size[1] // 2)
        assert (actual.max(axis=(1, 2)) == 1).all()
        assert actual.min() < 0.9, "too flat to show anything"
        np.testing.assert_allclose(actual, to_maximum(maps[:, 0]), rtol=0, atol=1e-4)
        graph_states = {name: outputs[f"{name}_next"] for name in graph_states}
        for name, direction in (("hidden", state.forward), ("cell", state.backward)):
            np.testing.assert_allclose(
                graph_states[f"state_{name}"], getattr(direction, name), rtol=0, atol=1e-3
            )


def test_the_rewritten_network_equals_the_trained_one(model: Esan) -> None:
    size = (32, 64)
    module = DeployableEsan(model, size)

    def run(frames: Frames, states: Arrays) -> Arrays:
        outputs = module(*map(torch.from_numpy, (frames, *states.values())))
        names = ("saliency", *(f"{name}_next" for name in states))
        return {name: value.numpy() for name, value in zip(names, outputs, strict=True)}

    compare(run, model, drifting(2, 10, size), size)


@pytest.mark.slow
@pytest.mark.parametrize("library", [in_onnxruntime, in_openvino])
def test_chained_groups_equal_pytorch(
    library: Callable[[Path], Run], model: Esan, graph: Path
) -> None:
    run = library(graph)
    for batch in (1, 3):
        compare(run, model, drifting(batch, 10, SMALL), SMALL)


@pytest.mark.slow
def test_the_published_size(tmp_path: Path) -> None:
    filled = Esan().eval()
    filled.load_state_dict(fill_module().fill(filled.state_dict(), 0))
    path = tmp_path / "esan.onnx"
    write(filled, SIZE, path)
    clip = (fill_module().clip((1, 10, *SIZE, 3), 1) + 1) * 127.5
    for library in (in_onnxruntime, in_openvino):
        compare(library(path), filled, clip.round().to(torch.uint8).numpy(), SIZE)
    path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 7])
def test_a_stream_equals_the_published_way_through_a_video(
    count: int, model: Esan, graph: Path
) -> None:
    frames = drifting(1, count, SMALL, seed=1)[0]
    predictor = SaliencyModel.open(graph, backend="onnxruntime").predictor()
    # The frames have the model's size already; runtime frames are BGR.
    results = [r for frame in frames for r in predictor.push(frame[..., ::-1].copy())]
    results += predictor.flush()
    assert [result.index for result in results] == list(range(count))
    expected = to_maximum(predict_video(model, torch.from_numpy(frames)))
    np.testing.assert_allclose([r.map for r in results], expected, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_the_graph_does_less_work_than_the_network(model: Esan) -> None:
    frames = torch.zeros(1, 5, *SMALL, 3, dtype=torch.uint8)
    states = [torch.from_numpy(state) for state in zeros(1, SMALL).values()]
    with FlopCounterMode(display=False) as network:
        model(normalise(frames))
    module = DeployableEsan(model, SMALL)
    with FlopCounterMode(display=False) as deployable:
        module(frames, *states)
    assert deployable.get_total_flops() < 0.86 * network.get_total_flops()


@torch.inference_mode()
def test_a_faint_map_still_reaches_one(model: Esan) -> None:
    size = (32, 64)
    module = DeployableEsan(model, size)
    assert module.decoder.bias is not None
    module.decoder.bias -= 200
    states = [torch.from_numpy(state) for state in zeros(1, size).values()]
    saliency, *_ = module(torch.from_numpy(drifting(1, 5, size)), *states)
    assert saliency.max() == 1
    assert 0 <= saliency.min() < 1


def test_it_leaves_the_network_as_it_was(model: Esan) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    DeployableEsan(model, SMALL)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.slow
def test_the_graph_keeps_to_standard_operators(graph: Path) -> None:
    proto = onnx.load(graph)
    onnx.checker.check_model(graph)
    assert [(item.domain, item.version) for item in proto.opset_import] == [("", 18)]
    assert {
        item.name: item.type.tensor_type.shape.dim[0].dim_param for item in proto.graph.input
    } == {
        "frames": "batch",
        "state_hidden": "batch",
        "state_cell": "batch",
    }
    first = [node.op_type for node in proto.graph.node if "frames" in node.input]
    assert first == ["Cast"]


@pytest.mark.slow
def test_it_builds_into_an_engine(graph: Path) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network()
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    assert parser.parse_from_file(str(graph)), [
        parser.get_error(n).desc() for n in range(parser.num_errors)
    ]
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for n in range(network.num_inputs):
        item = network.get_input(n)
        shape = tuple(item.shape)[1:]
        profile.set_shape(item.name, (1, *shape), (1, *shape), (4, *shape))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None
    assert engine.nbytes > 100e6
