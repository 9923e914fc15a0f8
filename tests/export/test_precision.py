"""Float16 in the graph: where it is, where it is not, and what it changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from typer.testing import CliRunner

from graphs import small_graph
from salstream.export.precision import to_fp16
from salstream.runtime import SaliencyModel, UsageError
from salstream.runtime.cli import load_commands
from salstream.runtime.model import find_model

BUNDLED = find_model("unisal-dhf1k")


@pytest.fixture(scope="module")
def half() -> onnx.ModelProto:
    return to_fp16(onnx.load(BUNDLED))


def types_of(graph: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(graph, data_prop=True).graph
    values = [*inferred.input, *inferred.output, *inferred.value_info]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in inferred.initializer}


def test_layers_are_float16_and_what_finishes_the_map_is_float32(half: onnx.ModelProto) -> None:
    types = types_of(half)
    layers = [node for node in half.graph.node if node.op_type == "Conv"]
    smoothing = [node for node in layers if node.input[1].startswith("smoothing.")]
    assert (len(layers), len(smoothing)) == (80, 1)
    for node in layers:
        expected = TensorProto.FLOAT if node in smoothing else TensorProto.FLOAT16
        assert {types[name] for name in (*node.input, *node.output)} == {expected}
    for node in half.graph.node:
        if node.op_type in ("Exp", "ReduceMax", "DepthToSpace", "Pad"):
            assert types[node.input[0]] == TensorProto.FLOAT


def test_inputs_and_outputs_are_as_before(half: onnx.ModelProto) -> None:
    graph = onnx.load(BUNDLED).graph
    assert half.graph.input == graph.input
    assert half.graph.output == graph.output
    assert [node.op_type for node in half.graph.node].count("Cast") == 4  # frames, state, map


def test_maps_and_states_differ_by_rounding_alone(half: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    path.write_bytes(half.SerializeToString())
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (3, 1, 1, 14, 24, 3), dtype=np.uint8)
    states: list[object] = [None, None]
    backends = [SaliencyModel.open(p, backend="onnxruntime:cpu").backend for p in (BUNDLED, path)]
    for frames in coarse.repeat(16, 3).repeat(16, 4):
        outputs = [b.run(frames, s) for b, s in zip(backends, states, strict=True)]
        states = [output.state for output in outputs]
        maps = [output.saliency.ravel() for output in outputs]
        assert 0 < np.abs(maps[0] - maps[1]).max() < 0.02
        assert np.corrcoef(maps[0], maps[1])[0, 1] > 0.9995
        assert outputs[1].state["state_gru"].dtype == np.float32


def test_weights_beyond_float16_are_held_at_its_limit(tmp_path: Path) -> None:
    graph = onnx.load(small_graph(tmp_path / "small.onnx"))
    weight = next(t for t in graph.graph.initializer if t.name == "first.weight")
    values = onnx.numpy_helper.to_array(weight) * 1e6
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    converted = {t.name: onnx.numpy_helper.to_array(t) for t in to_fp16(graph).graph.initializer}
    assert np.isfinite(converted["first.weight_fp16"]).all()


def test_other_precisions_are_refused(tmp_path: Path) -> None:
    for precision in ("int8", "bf16"):
        arguments = ["export", "x.pth", "-o", str(tmp_path / "x.onnx"), "--precision", precision]
        done = CliRunner().invoke(load_commands(), arguments)
        assert isinstance(done.exception, UsageError)
        assert "`salstream calibrate`" in str(done.exception)
