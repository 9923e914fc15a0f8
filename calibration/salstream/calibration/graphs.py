"""A graph as calibration sees it: its layers, what they cost, and their int8 form."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from salstream.runtime import GraphSpec, SalstreamError, UsageError
from salstream.runtime.spec import PREFIX

# Symmetric, and -128 is left out, as TensorRT has it.
_LARGEST: Final = 127
_ZERO_POINT: Final = "int8_zero_point"


@dataclass(frozen=True)
class Layer:
    """A convolution.

    Attributes:
        name: Its path in the network, such as ``encoder.blocks.3.0``.
        input: Name of the tensor that it reads.
        weight: Name of its weights.
        macs: Multiply-accumulates for a batch of 1.
    """

    name: str
    input: str
    weight: str
    macs: int


class Graph:
    """A deployable graph in float32.

    Args:
        path: The ``.onnx`` file.

    Raises:
        UsageError: It is quantized already, or not in float32.
        SalstreamError: It is damaged, or none of ours.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.model = onnx.load_model_from_string(path.read_bytes())
        except OSError as error:
            raise SalstreamError(f"{path} cannot be read: {error.strerror}") from error
        except Exception as error:  # protobuf has classes of its own
            raise SalstreamError(f"{path} is damaged or no ONNX graph") from error
        metadata = {entry.key: entry.value for entry in self.model.metadata_props}
        try:
            self.spec = GraphSpec.from_metadata(metadata)
        except SalstreamError as error:
            raise SalstreamError(f"{path} is not a graph for salstream: {error}") from error
        quantized = any(node.op_type == "QuantizeLinear" for node in self.model.graph.node)
        if quantized or self.spec.precision != "fp32":
            what = "quantized already" if quantized else f"in {self.spec.precision}"
            raise UsageError(f"{path} is {what}: calibrate the float32 graph that it was made from")
        self.sha256 = _sha256(self.model)
        self._shapes = _shapes(self.model)

    @property
    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape, without the batch, of each recurrent state."""
        names = [value.name for value in self.model.graph.input if value.name != "frames"]
        return {name: self._shapes[name][1:] for name in names}

    @cached_property
    def layers(self) -> list[Layer]:
        """The network's convolutions, in the order in which they run."""
        return [
            Layer(
                node.input[1].removesuffix(".weight"),
                node.input[0],
                node.input[1],
                self._macs_of(node),
            )
            for node in self.model.graph.node
            if is_layer(node)
        ]

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and matrix products, for a batch of 1."""
        return sum(self._macs_of(node) for node in self.model.graph.node)

    def _macs_of(self, node: onnx.NodeProto) -> int:
        if node.op_type == "Conv":
            inner = math.prod(self._shapes[node.input[1]][1:])
        elif node.op_type in ("MatMul", "Gemm"):
            inner = self._shapes[node.input[0]][-1]
        else:
            return 0
        return inner * math.prod(self._shapes[node.output[0]])

    def size_of(self, tensor: str) -> int:
        """Return the number of values of a tensor, for a batch of 1."""
        return math.prod(self._shapes[tensor])

    def quantized(
        self, largest: Mapping[str, float], layers: Collection[Layer], spec: GraphSpec | None = None
    ) -> onnx.ModelProto:
        """Return the graph with Q/DQ pairs before these layers, in symmetric int8.

        One scale for each tensor that a layer reads, one for each output channel of its
        weights. What a layer gives is not rounded: the activation after it is fused with it, and
        the next layer's pair does the rounding, once. The bias stays in float: TensorRT
        refuses a quantized one.

        Args:
            largest: For each tensor that is read, the largest absolute value to represent.
            layers: Those to quantize.
            spec: Facts for the metadata; None: the graph's own, as int8, unverified.
        """
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        weights = {tensor.name: tensor for tensor in model.graph.initializer}
        chosen = {layer.weight for layer in layers}
        nodes: list[onnx.NodeProto] = []
        added = [numpy_helper.from_array(np.array(0, np.int8), _ZERO_POINT)] if chosen else []
        rounded: set[str] = set()
        for node in model.graph.node:
            if node.op_type == "Conv" and node.input[1] in chosen:
                tensor, weight = node.input[0], node.input[1]
                if tensor not in rounded:
                    rounded.add(tensor)
                    scale = np.array((largest[tensor] or 1.0) / _LARGEST, np.float32)
                    added.append(numpy_helper.from_array(scale, f"{tensor}_scale"))
                    nodes += _pair(tensor)
                added += _int8(weights.pop(weight))
                nodes.append(_dequantize(weight, f"{weight}_zero_points", axis=0))
                node.input[0], node.input[1] = f"{tensor}_dq", f"{weight}_dq"
            nodes.append(node)
        del model.graph.node[:], model.graph.initializer[:], model.metadata_props[:]
        model.graph.node.extend(nodes)
        model.graph.initializer.extend([*weights.values(), *added])
        spec = spec or replace(self.spec, precision="int8", verification={})
        helper.set_model_props(model, spec.to_metadata())
        return model


def is_layer(node: onnx.NodeProto) -> bool:
    """Whether a node is a layer of the network, and not the smoothing of its map."""
    return node.op_type == "Conv" and not node.input[1].startswith("smoothing.")


def _sha256(model: onnx.ModelProto) -> str:
    """Return the checksum of a graph; what is recorded of its verification does not count."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.metadata_props[:]
    for entry in sorted(model.metadata_props, key=lambda entry: entry.key):
        if entry.key != f"{PREFIX}verification":
            bare.metadata_props.append(entry)
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def _pair(tensor: str) -> list[onnx.NodeProto]:
    inputs = [tensor, f"{tensor}_scale", _ZERO_POINT]
    quantize = helper.make_node("QuantizeLinear", inputs, [f"{tensor}_q"], name=f"{tensor}_q")
    return [quantize, _dequantize(tensor, _ZERO_POINT)]


def _dequantize(tensor: str, zero_point: str, **attributes: Any) -> onnx.NodeProto:
    inputs = [f"{tensor}_q", f"{tensor}_scale", zero_point]
    return helper.make_node(
        "DequantizeLinear", inputs, [f"{tensor}_dq"], name=f"{tensor}_dq", **attributes
    )


def _int8(weight: onnx.TensorProto) -> list[onnx.TensorProto]:
    """Return weights in int8, with one scale for each output channel."""
    values = numpy_helper.to_array(weight)
    channels = len(values)
    scales = np.abs(values.reshape(channels, -1)).max(axis=1) / _LARGEST
    scales[scales == 0] = 1
    steps = np.round(values / scales.reshape(-1, *[1] * (values.ndim - 1)))
    return [
        numpy_helper.from_array(
            steps.clip(-_LARGEST, _LARGEST).astype(np.int8), f"{weight.name}_q"
        ),
        numpy_helper.from_array(scales.astype(np.float32), f"{weight.name}_scale"),
        numpy_helper.from_array(np.zeros(channels, np.int8), f"{weight.name}_zero_points"),
    ]


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors for a batch of 1."""
    single = onnx.ModelProto()
    single.CopyFrom(model)
    for value in (*single.graph.input, *single.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    inferred = onnx.shape_inference.infer_shapes(single, data_prop=True).graph
    shapes = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*inferred.input, *inferred.output, *inferred.value_info)
    }
    return shapes | {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
