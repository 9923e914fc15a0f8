"""Float16 written into the graph by casts, which every library reads.

The converters at hand cast in and out around every single node that stays in float32, and
so round each of its inputs and outputs; here float32 is kept in whole stretches.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from salstream.calibration.graphs import is_layer

PRECISIONS: Final = ("fp32", "fp16")
# The scales of a Resize are float32 whatever it enlarges.
_ALWAYS_FLOAT32: Final = {"Resize": (1, 2)}


def to_fp16(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph in float16, with float32 where float16 would show.

    Inputs and outputs stay as they are: the recurrent state is float32 outside and cast
    inside. These stretches stay in float32: what follows the last layer of the network (the
    smoothing and the scaling to the maximum), and the positions at which a deformable
    convolution samples, because float16 has but 2,048 steps from the middle to the border.

    Args:
        graph: A deployable graph in float32; not changed.
    """
    half = onnx.ModelProto()
    half.CopyFrom(onnx.shape_inference.infer_shapes(graph, data_prop=True))
    _Conversion(half.graph).run()
    del half.graph.value_info[:]
    onnx.checker.check_model(half, full_check=True)
    return half


class _Conversion:
    """One conversion, in place.

    Args:
        graph: With the types of its tensors inferred.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._makers = {name: node for node in graph.node for name in node.output}
        self._kept = self._in_float32()
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        values = [*graph.input, *graph.output, *graph.value_info]
        types = {value.name: value.type.tensor_type.elem_type for value in values}
        types |= {name: tensor.data_type for name, tensor in self._weights.items()}
        self._floats = {name for name, type_ in types.items() if type_ == TensorProto.FLOAT}
        self._halves: set[str] = set()  # tensors that the converted nodes made float16
        self._casts: dict[tuple[str, int], str] = {}
        self._nodes: list[onnx.NodeProto] = []

    def run(self) -> None:
        outputs = {value.name for value in self._graph.output}
        for node in self._graph.node:
            half = node.output[0] not in self._kept
            always = _ALWAYS_FLOAT32.get(node.op_type, ())
            for place, name in enumerate(node.input):
                if name in self._floats and place not in always:
                    node.input[place] = self._as(name, half)
            if half and node.op_type == "Cast":
                for attribute in node.attribute:
                    if attribute.i == TensorProto.FLOAT:
                        attribute.i = TensorProto.FLOAT16
            self._nodes.append(node)
            if half:
                for place, name in enumerate(node.output):
                    if name in self._floats:
                        self._made_half(node, place, name in outputs)
        used = {name for node in self._nodes for name in node.input}
        weights = [tensor for name, tensor in self._weights.items() if name in used]
        del self._graph.node[:], self._graph.initializer[:]
        self._graph.node.extend(self._nodes)
        self._graph.initializer.extend(weights)

    def _made_half(self, node: onnx.NodeProto, place: int, is_output: bool) -> None:
        """Note a tensor that is float16 now; an output of the graph is cast back."""
        name = node.output[place]
        if not is_output:
            self._halves.add(name)
            return
        node.output[place] = inner = f"{name}_fp16"
        self._halves.add(inner)
        self._casts[name, TensorProto.FLOAT16] = inner
        self._cast(inner, name, TensorProto.FLOAT)

    def _as(self, name: str, half: bool) -> str:
        """Return the name of a tensor in the type that a node wants."""
        if (name in self._halves) == half:
            return name
        type_ = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        if (name, type_) not in self._casts:
            other = f"{name}_{'fp16' if half else 'fp32'}"
            self._casts[name, type_] = other
            if name in self._weights:
                self._weights[other] = _half(self._weights[name], other)
            else:
                self._cast(name, other, type_)
        return self._casts[name, type_]

    def _cast(self, source: str, target: str, type_: int) -> None:
        node = helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=type_)
        self._nodes.append(node)

    def _in_float32(self) -> set[str]:
        """Return the first outputs of the nodes that stay in float32."""
        samplers = [node for node in self._graph.node if node.op_type == "GridSample"]
        kept = self._since_last_layer(["saliency", *(node.input[1] for node in samplers)])
        return kept | {node.output[0] for node in samplers}

    def _since_last_layer(self, tensors: Iterable[str]) -> set[str]:
        """Return the tensors between the network's layers and these, them included."""
        found: set[str] = set()
        waiting = list(tensors)
        while waiting:
            name = waiting.pop()
            node = self._makers.get(name)
            if node is not None and name not in found and not is_layer(node):
                found.add(node.output[0])
                waiting += node.input
        return found


def _half(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    values = numpy_helper.to_array(tensor)
    largest = float(np.finfo(np.float16).max)
    return numpy_helper.from_array(values.clip(-largest, largest).astype(np.float16), name)
