"""Deployable graphs of a few nodes, whose maps tell every frame and its place in the window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from salstream.runtime.spec import GraphSpec


def save(
    path: Path,
    *,
    recurrent: bool = False,
    levels: int = 0,
    map_size: tuple[int, int] | None = None,
    metadata: dict[str, str] | None = None,
    **facts: Any,
) -> Path:
    """Write a graph.

    Args:
        path: Where.
        recurrent: Whether it has a state: half the one before and the window's own map.
        levels: Conspicuity maps.
        map_size: Height and width of the map, where they are not the input's; they divide it.
        metadata: Entries in place of those that the facts make.
        **facts: Of its `GraphSpec`.
    """
    values: dict[str, Any] = {"model": "tiny", "domain": "test", "height": 8, "width": 10} | facts
    values.setdefault("map_frame", values.get("window", 1) - 1)
    spec = GraphSpec(**values)
    window, (height, width) = spec.window, spec.size
    rows, columns = map_size or spec.size
    # Each frame and channel has a weight of its own: no two orders give the same map.
    weights = 1 + np.arange(window * 3, dtype=np.float32).reshape(1, window, 1, 1, 3)
    weights /= weights.sum() * 255
    constants: dict[str, NDArray[Any]] = {
        "weights": weights,
        "axes": np.array([1, 4], np.int64),
        "blocks": np.array([0, rows, height // rows, columns, width // columns], np.int64),
        "block_axes": np.array([2, 4], np.int64),
        "half": np.array(0.5, np.float32),
        "level_axis": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "weights"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "axes"], ["plain"], keepdims=0),
        helper.make_node("Reshape", ["plain", "blocks"], ["blocked"]),
        helper.make_node("ReduceMean", ["blocked", "block_axes"], ["own"], keepdims=0),
    ]
    shape: list[str | int | None] = ["batch", rows, columns]
    inputs = [
        helper.make_tensor_value_info(
            "frames", TensorProto.UINT8, ["batch", window, height, width, 3]
        )
    ]
    outputs = [helper.make_tensor_value_info("saliency", TensorProto.FLOAT, shape)]
    if recurrent:
        nodes += [
            helper.make_node("Mul", ["state_sum", "half"], ["faded"]),
            helper.make_node("Add", ["faded", "own"], ["state_sum_next"]),
            helper.make_node("Mul", ["state_sum_next", "half"], ["saliency"]),
        ]
        inputs.append(helper.make_tensor_value_info("state_sum", TensorProto.FLOAT, shape))
        outputs.append(helper.make_tensor_value_info("state_sum_next", TensorProto.FLOAT, shape))
    else:
        nodes.append(helper.make_node("Identity", ["own"], ["saliency"]))
    if levels:
        names = []
        for level in range(levels):
            constants[f"share_{level}"] = np.array((level + 1) / levels, np.float32)
            nodes += [
                helper.make_node("Mul", ["own", f"share_{level}"], [f"plane_{level}"]),
                helper.make_node("Unsqueeze", [f"plane_{level}", "level_axis"], [f"l_{level}"]),
            ]
            names.append(f"l_{level}")
        nodes.append(helper.make_node("Concat", names, ["conspicuity"], axis=1))
        outputs.append(
            helper.make_tensor_value_info(
                "conspicuity", TensorProto.FLOAT, ["batch", levels, rows, columns]
            )
        )
    graph = helper.make_graph(
        nodes,
        "tiny",
        inputs,
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, spec.to_metadata() if metadata is None else metadata)
    onnx.save(model, path)
    return path


def echo(path: Path, size: tuple[int, int], fit: str) -> Path:
    """Write a graph whose conspicuity maps are its frame's channels; the map is their mean."""
    height, width = size
    spec = GraphSpec(model="echo", domain="test", height=height, width=width, fit=fit)
    nodes = [
        helper.make_node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["pixels", "white"], ["scaled"]),
        helper.make_node("Squeeze", ["scaled", "one"], ["frame"]),
        helper.make_node("Transpose", ["frame"], ["conspicuity"], perm=[0, 3, 1, 2]),
        helper.make_node("ReduceMean", ["conspicuity", "one"], ["saliency"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "echo",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["b", 1, height, width, 3])],
        [
            helper.make_tensor_value_info("saliency", TensorProto.FLOAT, ["b", height, width]),
            helper.make_tensor_value_info(
                "conspicuity", TensorProto.FLOAT, ["b", 3, height, width]
            ),
        ],
        [
            numpy_helper.from_array(np.array(255, np.float32), "white"),
            numpy_helper.from_array(np.array([1], np.int64), "one"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, spec.to_metadata())
    onnx.save(model, path)
    return path
