"""Inference libraries: each runs a graph, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.errors import UsageError
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


class Backend(Protocol):
    """A graph that is ready to run. Backends name this as their base class.

    Attributes:
        name: Library and device.
        spec: What the graph says about itself.
        recurrent: Whether it has a state.
        conspicuity: Whether it gives conspicuity maps.
    """

    name: str
    spec: GraphSpec
    recurrent: bool
    conspicuity: bool

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


def _onnxruntime(path: Path, threads: int | None) -> Backend:
    from salstream.runtime.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(path, threads=threads)


def _tensorrt(path: Path) -> Backend:
    from salstream.runtime.backends.tensorrt import TensorRTBackend

    return TensorRTBackend(path)


BACKENDS: Final[dict[str, Callable[[Path, int | None], Backend]]] = {
    "onnxruntime": _onnxruntime,
}


def open_backend(path: Path, name: str | None = None, threads: int | None = None) -> Backend:
    """Load a graph.

    Args:
        path: An ``.onnx`` file that salstream exported, or an ``.engine`` that it built.
        name: One of ``BACKENDS``; None picks one by the file's suffix.
        threads: Threads for one inference; None leaves it to the library.

    Raises:
        UsageError: The name or the suffix is not known.
        SalstreamError: The library is not installed, or the file is damaged or not ours.
    """
    if path.suffix.lower() == ".engine":
        if name not in (None, "tensorrt"):
            raise UsageError(f"{path.name} runs on tensorrt, not on {name}")
        return _tensorrt(path)
    if path.suffix.lower() != ".onnx":
        raise UsageError(
            f"cannot run {path}: expected an .onnx file made by `salstream export`, "
            "or an .engine file made by `salstream build`"
        )
    name = name or "onnxruntime"
    if name not in BACKENDS:
        raise UsageError(f"unknown backend {name!r}; known: {', '.join(BACKENDS)}")
    return BACKENDS[name](path, threads)
