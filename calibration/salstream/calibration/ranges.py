"""Ranges: the largest value that each tensor should represent, measured over real windows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from salstream.calibration.graphs import Graph
from salstream.calibration.windows import Windows

METHODS: Final = ("minmax", "entropy", "percentile")
PERCENTILE: Final = 99.99
_BINS: Final = 2048
_LEVELS: Final = 128  # of int8, without the sign
# Values of one tensor that one window adds to a histogram, at most.
_SAMPLES: Final = 1 << 16
# What was cut off falls where there may have been nothing: its share counts as this much there.
_FLOOR: Final = 1e-6
_PREFIX: Final = "observed_"


def measure(
    graph: Graph, windows: Windows, method: str, advance: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Return, for each tensor that a layer reads, the largest absolute value to represent.

    Windows run one by one, and what is observed is reduced or sampled inside the graph, so
    that memory does not grow with their number.

    Args:
        graph: In float32.
        windows: What to run it on.
        method: ``minmax``: the largest that occurs. ``percentile``: what 99.99 % of the values
            do not exceed. ``entropy``: where cutting off and rounding together lose the
            least information (Kullback-Leibler divergence).
        advance: Called after every window.
    """
    tensors = sorted({layer.input for layer in graph.layers})
    observe = _largest if method == "minmax" else _samples
    session = onnxruntime.InferenceSession(
        _observing(graph, tensors, observe).SerializeToString(),
        providers=["CPUExecutionProvider"],
    )
    names = [_PREFIX + tensor for tensor in tensors]
    histograms = {tensor: Histogram() for tensor in tensors}
    for index in range(len(windows)):
        observed = session.run(names, windows.inputs(index))
        for tensor, values in zip(tensors, observed, strict=True):
            histograms[tensor].add(np.abs(values).ravel())
        advance()
    pick = {
        "minmax": Histogram.maximum,
        "percentile": Histogram.percentile,
        "entropy": Histogram.least_divergence,
    }[method]
    return {tensor: pick(histogram) for tensor, histogram in histograms.items()}


class Histogram:
    """Absolute values, counted; the bins widen as larger ones come."""

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(_BINS, np.int64)
        self._limit = 0.0
        self._largest = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values, not negative."""
        self._largest = max(self._largest, float(values.max()))
        self._limit = self._limit or self._largest
        while self._largest > self._limit:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([pairs, np.zeros_like(pairs)])
            self._limit *= 2
        if self._limit:
            self.counts += np.histogram(values, _BINS, (0, self._limit))[0]

    def maximum(self) -> float:
        """Return the largest value."""
        return self._largest

    def percentile(self, percent: float = PERCENTILE) -> float:
        """Return what so many percent of the values do not exceed."""
        share = np.cumsum(self.counts) / max(1, self.counts.sum())
        return self._edge(int(np.searchsorted(share, percent / 100)) + 1)

    def least_divergence(self) -> float:
        """Return the limit that loses the least information in 128 levels.

        What lies above a limit counts as the limit; what lies below is spread evenly over
        the bins of its level that are not empty. The limit with the smallest divergence of
        this from the truth is taken (S. Migacz, 8-bit inference with TensorRT, 2017).
        """
        counts = self.counts.astype(np.float64)
        # Zeros are exact at any scale, and after a ReLU they would outvote all else.
        counts[0] = 0
        if not counts.any():
            return self._largest
        best, best_bins = np.inf, _BINS
        for bins in range(_LEVELS, _BINS + 1, 8):
            true = counts[:bins].copy()
            true[-1] += counts[bins:].sum()
            level = np.arange(bins) * _LEVELS // bins
            occupied = counts[:bins] > 0
            if not occupied.any():
                continue
            sums = np.bincount(level, counts[:bins], _LEVELS)
            filled = np.bincount(level, occupied, _LEVELS)
            spread = np.where(occupied, (sums / np.maximum(filled, 1))[level], 0)
            p, q = true / true.sum(), np.maximum(spread / spread.sum(), _FLOOR)
            divergence = float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())
            if divergence < best:
                best, best_bins = divergence, bins
        return self._edge(best_bins)

    def _edge(self, bins: int) -> float:
        return min(self._largest, bins * self._limit / _BINS)


def _observing(
    graph: Graph,
    tensors: Iterable[str],
    observe: Callable[[Graph, str], tuple[list[onnx.NodeProto], list[onnx.TensorProto]]],
) -> onnx.ModelProto:
    """Return the graph with one more output for each tensor."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    for tensor in tensors:
        nodes, constants = observe(graph, tensor)
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(constants)
        name = _PREFIX + tensor
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return model


def _largest(_: Graph, tensor: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Reduce a tensor to its largest absolute value."""
    absolute = f"{tensor}_absolute"
    return [
        helper.make_node("Abs", [tensor], [absolute]),
        helper.make_node("ReduceMax", [absolute], [_PREFIX + tensor], keepdims=0),
    ], []


def _samples(graph: Graph, tensor: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Take every n-th value of a tensor, with its largest among them."""
    size = graph.size_of(tensor)
    # An odd step, so that rows of even length are not sampled in the same columns only.
    step = -(-size // _SAMPLES) | 1
    flat, some, top = (f"{tensor}_{what}" for what in ("flat", "some", "top"))
    numbers = {"shape": [-1], "begin": [0], "end": [size], "axis": [0], "step": [step]}
    constants = [
        numpy_helper.from_array(np.array(value, np.int64), f"{tensor}_{name}")
        for name, value in numbers.items()
    ]
    names = [constant.name for constant in constants]
    nodes, _ = _largest(graph, tensor)
    nodes[1].output[0] = top
    return [
        helper.make_node("Reshape", [tensor, names[0]], [flat]),
        helper.make_node("Slice", [flat, *names[1:]], [some]),
        *nodes,
        helper.make_node("Reshape", [top, names[0]], [f"{top}_flat"]),
        helper.make_node("Concat", [some, f"{top}_flat"], [_PREFIX + tensor], axis=0),
    ], constants
