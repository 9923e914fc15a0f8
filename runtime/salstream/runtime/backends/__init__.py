"""Inference libraries: each runs a graph, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.errors import SalstreamError, UsageError
from salstream.runtime.ring import FrameRing
from salstream.runtime.spec import GraphSpec


@dataclass(frozen=True, slots=True)
class Output:
    """What one run of a graph gives.

    Attributes:
        saliency: float32 in [0, 1], (batch, map height, map width).
        conspicuity: float32 in [0, 1], (batch, levels, map height, map width), shallow to
            deep; None if the graph does not give them.
        state: What the next run of the same stream is given; only the backend knows its form.
    """

    saliency: NDArray[np.float32]
    state: Any
    conspicuity: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A run of the graph that is wanted: what ``Backend.run`` takes."""

    frames: Any
    state: Any


class Backend(Protocol):
    """A graph that is ready to run. Backends name this as their base class.

    Attributes:
        name: Library and device.
        spec: What the graph says about itself.
        recurrent: Whether it has a state.
        conspicuity: Whether it gives conspicuity maps.
        batch: For how many streams at once it runs best. On processors that is 1: their cores
            are busy with one, and batches gain nothing.
    """

    name: str
    spec: GraphSpec
    recurrent: bool
    conspicuity: bool
    batch: int = 1

    def new_ring(self) -> FrameRing:
        """Return a ring for one stream's windows, in memory that this backend likes."""
        return FrameRing(self.spec.window, (*self.spec.size, 3))

    def run(self, frames: NDArray[np.uint8], state: Any) -> Output:
        """Run the graph once.

        Args:
            frames: uint8 RGB, (batch, window, height, width, 3), oldest first; or the ``batch``
                of a ring of its own.
            state: ``Output.state`` of the run before; None starts a stream. It is used up: it
                may lie in memory that later runs write to.
        """
        ...

    def run_batch(self, requests: Sequence[Request]) -> list[Output]:
        """Run the graph for several streams: at once, where that can be.

        Args:
            requests: One for each stream.

        Returns:
            One output for each, in their order, as ``run`` would give it.
        """
        outputs: dict[int, Output] = {}
        for starts in (True, False):  # a state that has not begun cannot be joined to others
            group = [n for n, request in enumerate(requests) if (request.state is None) == starts]
            whole = _joined([requests[n] for n in group]) if len(group) > 1 else None
            if whole is None:
                outputs |= {n: self.run(requests[n].frames, requests[n].state) for n in group}
            else:
                output = self.run(whole.frames, whole.state)
                outputs |= {n: _row(output, row) for row, n in enumerate(group)}
        return [outputs[n] for n in range(len(requests))]


def _joined(requests: Sequence[Request]) -> Request | None:
    """Return requests as one; None: they lie on a device, each in a place of its own."""
    states = [request.state for request in requests]
    arrays = [request.frames for request in requests]
    arrays += [value for state in states for value in (state or {}).values()]
    if not all(isinstance(array, np.ndarray) for array in arrays):
        return None
    state = states[0] and {name: np.concatenate([s[name] for s in states]) for name in states[0]}
    return Request(np.concatenate([request.frames for request in requests]), state)


def _row(output: Output, row: int) -> Output:
    """Return one stream's part of an output."""
    only = slice(row, row + 1)
    return Output(
        output.saliency[only],
        output.state and {name: value[only] for name, value in output.state.items()},
        None if output.conspicuity is None else output.conspicuity[only],
    )


def _onnxruntime(path: Path, device: str | None, threads: int | None) -> Backend:
    from salstream.runtime.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(path, device, threads)


def _openvino(path: Path, device: str | None, threads: int | None) -> Backend:
    from salstream.runtime.backends.openvino import OpenVinoBackend

    return OpenVinoBackend(path, device, threads)


def _tensorrt(path: Path, device: str | None, _: int | None) -> Backend:
    from salstream.runtime.backends.tensorrt import TensorRTBackend

    if device is not None:
        raise UsageError(f"an engine runs on the GPU that it was built for, not on {device!r}")
    return TensorRTBackend(path)


_Opener = Callable[[Path, str | None, int | None], Backend]
# By the suffix of the file that they read; the first is the fallback.
BACKENDS: Final[dict[str, dict[str, _Opener]]] = {
    ".onnx": {"onnxruntime": _onnxruntime, "openvino": _openvino},
    ".engine": {"tensorrt": _tensorrt},
}


def open_backend(path: Path, name: str | None = None, threads: int | None = None) -> Backend:
    """Load a graph.

    Args:
        path: An ``.onnx`` file that salstream exported, or an ``.engine`` that it built.
        name: A library, or a library and a device: ``openvino``, ``openvino:GPU``,
            ``onnxruntime:cpu``. None: for a graph, ONNX Runtime where it has CUDA, else
            OpenVINO where it is installed, else ONNX Runtime on the CPU.
        threads: Threads for one inference; None leaves it to the library.

    Raises:
        UsageError: The name or the suffix is not known.
        SalstreamError: The library or the device is not there, or the file is damaged or not
            ours.
    """
    known = BACKENDS.get(path.suffix.lower())
    if known is None:
        raise UsageError(
            f"cannot run {path}: expected an .onnx file made by `salstream export`, "
            "or an .engine file made by `salstream build`"
        )
    library, _, device = (name or _default(known)).partition(":")
    if library not in known:
        raise UsageError(f"unknown backend {library!r} for {path.name}; known: {', '.join(known)}")
    return known[library](path, device or None, threads)


def _default(known: Mapping[str, _Opener]) -> str:
    """Return the library to use where none was asked for."""
    first = next(iter(known))
    if "openvino" in known and find_spec("openvino") and not _has_cuda():
        return "openvino"
    return first


def _has_cuda() -> bool:
    """Whether ONNX Runtime is there, built for CUDA, on a machine with a GPU."""
    if find_spec("onnxruntime") is None:
        return False
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return False
    from salstream.runtime.cuda import Gpu

    try:
        Gpu()
    except SalstreamError:
        return False
    return True


def check_tensors(
    path: Path, spec: GraphSpec, inputs: Mapping[str, Sequence[int]], outputs: Container[str]
) -> None:
    """Refuse a graph whose tensors are not those that its metadata promise.

    Args:
        path: The graph's file.
        spec: What its metadata say.
        inputs: Names and shapes without the batch.
        outputs: Names.

    Raises:
        SalstreamError: They do not agree.
    """
    promised = ["saliency", *(f"{name}_next" for name in inputs if name.startswith("state_"))]
    frames = list(inputs.get("frames", ()))
    if frames != [spec.window, *spec.size, 3] or any(name not in outputs for name in promised):
        raise SalstreamError(
            f"{path} is not a graph for salstream: its tensors are not those of its metadata; "
            "export it again"
        )


def check_finite(saliency: NDArray[np.float32]) -> None:
    """Refuse maps that are not finite.

    Raises:
        SalstreamError: One is not.
    """
    if not np.isfinite(saliency).all():
        raise SalstreamError(
            "the graph gave a map that is not finite: its weights are damaged, or too large for "
            "its precision"
        )


def first_line(error: Exception) -> str:
    """Return the first line of what a library says."""
    return str(error).strip().partition("\n")[0][:200]
