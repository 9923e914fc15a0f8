"""A small deployable graph whose middle layer suffers in int8, for tests that need many runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from salstream.runtime import GraphSpec

SIZE = (32, 48)
SENSITIVE = "middle"


def small_graph(path: Path, window: int = 1, fit: str = "stretch") -> Path:
    """Write it: three convolutions over the last of ``window`` frames of 32×48, no state.

    The layer ``middle`` reads one channel that is 300 times as large as the others and hardly
    counts: int8, which has one scale for them all, rounds away what matters.
    """
    rng = np.random.default_rng(0)
    first = rng.normal(0, 0.3, (8, 3, 3, 3))
    first[0] *= 300
    middle = rng.normal(0, 0.3, (8, 8, 3, 3))
    middle[:, 0] /= 3000
    last = rng.normal(0, 0.3, (1, 8, 3, 3))
    weights = {"first": first / 255, SENSITIVE: middle, "last": last}
    constants = {f"{name}.weight": value.astype(np.float32) for name, value in weights.items()}
    constants["axis"] = np.array([1], np.int64)
    nodes = [
        helper.make_node("Cast", ["frames"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["float", "newest"], ["images"], axis=1),
        helper.make_node("Transpose", ["images"], ["x0"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x0", "first.weight"], ["c0"], pads=[1] * 4),
        helper.make_node("Relu", ["c0"], ["x1"]),
        helper.make_node("Conv", ["x1", f"{SENSITIVE}.weight"], ["c1"], pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["x2"]),
        helper.make_node("Conv", ["x2", "last.weight"], ["c2"], pads=[1] * 4),
        helper.make_node("Tanh", ["c2"], ["x3"]),
        helper.make_node("Squeeze", ["x3", "axis"], ["map"]),
        helper.make_node("ReduceMax", ["map", "sides"], ["top"], keepdims=1),
        helper.make_node("Sub", ["map", "top"], ["below"]),
        helper.make_node("Exp", ["below"], ["saliency"]),
    ]
    constants |= {"sides": np.array([1, 2], np.int64), "newest": np.array(window - 1, np.int64)}
    for node in nodes:
        node.name = node.output[0]
    graph = helper.make_graph(
        nodes,
        "saliency",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["batch", window, *SIZE, 3])],
        [helper.make_tensor_value_info("saliency", TensorProto.FLOAT, ["batch", *SIZE])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    spec = GraphSpec(
        model="small",
        domain="",
        fit=fit,
        height=SIZE[0],
        width=SIZE[1],
        window=window,
        map_frame=window - 1,
    )
    helper.set_model_props(model, spec.to_metadata())
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return path
