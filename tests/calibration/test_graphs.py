"""The int8 form of a graph: what is rounded, how far, and what is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from salstream.calibration.graphs import Graph
from salstream.runtime import SalstreamError, UsageError
from salstream.runtime.model import find_model

BUNDLED = "unisal-dhf1k"


@pytest.fixture(scope="module")
def graph() -> Graph:
    return Graph(find_model(BUNDLED))


@pytest.fixture(scope="module")
def quantized(graph: Graph) -> onnx.ModelProto:
    return graph.quantized({layer.input: 2.0 for layer in graph.layers}, graph.layers)


def test_weights_are_rounded_by_half_a_step_of_their_channel_at_most(
    graph: Graph, quantized: onnx.ModelProto
) -> None:
    before = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in graph.model.graph.initializer
    }
    after = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    for layer in graph.layers:
        weight = before[layer.weight]
        steps, scale = after[f"{layer.weight}_q"], after[f"{layer.weight}_scale"]
        assert steps.dtype == np.int8
        assert scale.shape == (len(weight),)
        assert steps.min() >= -127
        assert not after[f"{layer.weight}_zero_points"].any()
        shape = (-1, *[1] * (weight.ndim - 1))
        error = np.abs(steps * scale.reshape(shape) - weight)
        assert (error <= 0.5001 * scale.reshape(shape)).all()


def test_layers_read_pairs_and_nothing_else_is_touched(
    graph: Graph, quantized: onnx.ModelProto
) -> None:
    """One pair per tensor, symmetric; bias and smoothing are float; so are inputs and outputs."""
    onnx.checker.check_model(quantized, full_check=True)
    makers = {name: node for node in quantized.graph.node for name in node.output}
    weights = {tensor.name: tensor for tensor in quantized.graph.initializer}
    for node in quantized.graph.node:
        if node.op_type != "Conv" or node.input[1] == "smoothing.weight":
            continue
        assert makers[node.input[0]].op_type == "DequantizeLinear"
        assert makers[makers[node.input[0]].input[0]].op_type == "QuantizeLinear"
        assert makers[node.input[1]].op_type == "DequantizeLinear"
        for bias in node.input[2:]:
            assert weights[bias].data_type == onnx.TensorProto.FLOAT
    pairs = [node for node in quantized.graph.node if node.op_type == "QuantizeLinear"]
    assert len(pairs) == len({layer.input for layer in graph.layers})
    assert all(numpy_helper.to_array(weights[node.input[2]]) == 0 for node in pairs)
    assert quantized.graph.input == graph.model.graph.input
    assert quantized.graph.output == graph.model.graph.output


def test_layers_are_counted_as_the_benchmarks_say(graph: Graph) -> None:
    """0.82 G multiply-accumulates; names are paths in the network."""
    assert graph.macs == pytest.approx(0.82e9, rel=0.01)
    assert sum(layer.macs for layer in graph.layers) <= graph.macs
    names = [layer.name for layer in graph.layers]
    assert len(set(names)) == len(names) == 79
    assert {"encoder.blocks.0.0", "gru.r_x.0", "up_4x.project"} <= set(names)
    assert "smoothing" not in names


def test_the_metadata_say_int8_and_no_more_that_it_was_verified(
    quantized: onnx.ModelProto,
) -> None:
    metadata = {entry.key: entry.value for entry in quantized.metadata_props}
    assert metadata["salstream.precision"] == "int8"
    assert "salstream.verification" not in metadata


def test_the_checksum_is_of_the_graph_and_not_of_what_was_verified(
    graph: Graph, tmp_path: Path
) -> None:
    changed = onnx.ModelProto()
    changed.CopyFrom(graph.model)
    path = tmp_path / "x.onnx"
    for key, same in (("salstream.verification", True), ("salstream.license", False)):
        next(entry for entry in changed.metadata_props if entry.key == key).value = "{}"
        path.write_bytes(changed.SerializeToString())
        assert (Graph(path).sha256 == graph.sha256) == same


def test_no_layer_changes_nothing(graph: Graph) -> None:
    same = graph.quantized({}, [])
    assert same.graph == graph.model.graph


def test_what_cannot_be_quantized(graph: Graph, quantized: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(quantized.SerializeToString())
    with pytest.raises(UsageError, match="quantized already: calibrate the float32 graph"):
        Graph(path)
    half = onnx.ModelProto()
    half.CopyFrom(graph.model)
    for entry in half.metadata_props:
        if entry.key == "salstream.precision":
            entry.value = "fp16"
    path.write_bytes(half.SerializeToString())
    with pytest.raises(UsageError, match="is in fp16: calibrate the float32 graph"):
        Graph(path)
    path.write_bytes(b"nothing")
    with pytest.raises(SalstreamError, match="damaged or no ONNX graph"):
        Graph(path)
    with pytest.raises(SalstreamError, match="cannot be read"):
        Graph(tmp_path / "gone.onnx")
