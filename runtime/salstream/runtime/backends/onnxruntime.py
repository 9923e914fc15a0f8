"""ONNX Runtime: CUDA where the installed build and the machine have it, else the CPU."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.backends import (
    Backend,
    Output,
    check_finite,
    check_tensors,
    first_line,
)
from salstream.runtime.backends.onnxruntime_cuda import (
    BoundSession,
    check_memory,
    preload,
    why_not,
)
from salstream.runtime.cuda import Gpu
from salstream.runtime.errors import SalstreamError, UsageError
from salstream.runtime.ring import FrameRing
from salstream.runtime.spec import GraphSpec

States = dict[str, NDArray[np.float32]]

_CUDA: Final = "CUDAExecutionProvider"

logger = logging.getLogger("salstream")


class OnnxRuntimeBackend(Backend):
    """A graph in ONNX Runtime.

    Args:
        path: The ``.onnx`` file.
        device: ``cuda`` or ``cpu``; None: CUDA where it is.
        threads: Threads for one inference; None: one per core.

    Raises:
        UsageError: There is no such device.
        SalstreamError: ONNX Runtime is not installed, or the file is damaged or not ours.
    """

    def __init__(self, path: Path, device: str | None = None, threads: int | None = None) -> None:
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise SalstreamError(
                "ONNX Runtime is not installed; install it with: pip install 'salstream[cpu]' "
                "(or 'salstream[gpu]' for CUDA)"
            ) from error
        options = ort.SessionOptions()
        options.log_severity_level = 4
        if threads is not None:
            options.intra_op_num_threads = threads
        # Small shares of work: a thread that lost its core to decoding or encoding for a
        # moment keeps the others waiting for less.
        options.add_session_config_entry("session.dynamic_block_base", "4")
        providers = _providers(device, ort.get_available_providers())
        wants_cuda = any(_CUDA in provider for provider in providers)
        if wants_cuda:
            preload(ort)
        try:
            path.open("rb").close()  # says more clearly than ONNX Runtime what is wrong
        except OSError as error:
            raise SalstreamError(f"{path} cannot be read: {error.strerror}") from error
        try:
            self._session = ort.InferenceSession(path, options, providers=providers)
        except Exception as error:  # ONNX Runtime raises classes of its own, one per status
            if wants_cuda:
                check_memory(error)
            raise SalstreamError(
                f"{path} cannot be loaded: it is damaged or no ONNX graph ({first_line(error)})"
            ) from error
        try:
            self.spec = GraphSpec.from_metadata(self._session.get_modelmeta().custom_metadata_map)
        except SalstreamError as error:
            raise SalstreamError(f"{path} is not a graph for salstream: {error}") from error
        inputs = {item.name: item.shape[1:] for item in self._session.get_inputs()}
        outputs = [item.name for item in self._session.get_outputs()]
        check_tensors(path, self.spec, inputs, outputs)
        provider = self._session.get_providers()[0].removesuffix("ExecutionProvider")
        if wants_cuda and provider != "CUDA":
            if device == "cuda":
                raise SalstreamError(f"ONNX Runtime cannot use CUDA: {why_not()}")
            logger.warning("ONNX Runtime runs on the CPU: %s", why_not())
        self.name = f"onnxruntime-{provider.lower()}"
        self._bound = BoundSession(ort, self._session, Gpu()) if provider == "CUDA" else None
        self._state_shapes = {
            name: tuple(shape) for name, shape in inputs.items() if name.startswith("state_")
        }
        self.recurrent = bool(self._state_shapes)
        self.conspicuity = "conspicuity" in outputs
        self._names = [
            "saliency",
            *(["conspicuity"] if self.conspicuity else []),
            *(f"{name}_next" for name in self._state_shapes),
        ]

    def new_ring(self) -> FrameRing:
        """Return a ring for one stream's windows: with CUDA, on the GPU."""
        return super().new_ring() if self._bound is None else self._bound.new_ring()

    def run(self, frames: Any, state: Any) -> Output:
        """Run the graph once (see :class:`~salstream.runtime.backends.Backend`)."""
        try:
            if self._bound is None:
                maps, state = self._run(frames, state)
            else:
                maps, state = self._bound.run(frames, state)
        except SalstreamError:
            raise
        except Exception as error:  # ONNX Runtime raises classes of its own, one per status
            if self._bound is not None:
                check_memory(error)
            raise SalstreamError(f"the graph failed: {first_line(error)}") from error
        check_finite(maps["saliency"])
        return Output(maps["saliency"], state, maps.get("conspicuity"))

    def _run(
        self, frames: NDArray[np.uint8], state: States | None
    ) -> tuple[dict[str, NDArray[np.float32]], States]:
        """Run on the CPU: plain arrays in, plain arrays out."""
        if state is None:
            state = {
                name: np.zeros((len(frames), *shape), np.float32)
                for name, shape in self._state_shapes.items()
            }
        outputs = self._session.run(self._names, {"frames": frames, **state})
        named = dict(zip(self._names, outputs, strict=True))
        return named, {name: named[f"{name}_next"] for name in state}


def _providers(device: str | None, available: list[str]) -> list[str | tuple[str, Any]]:
    """Return the execution providers to ask for, best first, with their options."""
    known = {"cuda": _CUDA, "cpu": "CPUExecutionProvider"}
    if device is not None and device not in known:
        raise UsageError(f"unknown device {device!r} for ONNX Runtime; known: {', '.join(known)}")
    wanted = [known[device]] if device else list(known.values())
    found = [name for name in wanted if name in available]
    if not found:
        raise SalstreamError(
            "the installed ONNX Runtime has no CUDA; install one that has: "
            "pip uninstall -y onnxruntime && pip install 'salstream[gpu]'"
        )
    # TF32 would be up to 1e-3 off where the graph says float32.
    return [(name, {"use_tf32": "0"}) if name == _CUDA else name for name in found]
