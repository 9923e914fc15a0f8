"""ONNX Runtime with CUDA: frames and states stay on the GPU, through I/O binding."""

from __future__ import annotations

import contextlib
import io
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.cuda import Gpu
from salstream.runtime.errors import SalstreamError
from salstream.runtime.ring import DeviceFrames, DeviceRing, FrameRing


class BoundSession:
    """Runs a session whose inputs and outputs are bound to memory.

    Frames come from a ring on the GPU, or from the host. A state is an ``OrtValue`` on the
    device, and no run changes it. Maps come back into pinned memory.

    Args:
        ort: The module.
        session: The graph, opened.
        gpu: Where its memory lies; None: on the CPU, where the tests can be.
    """

    def __init__(self, ort: Any, session: Any, gpu: Gpu | None) -> None:
        self._ort = ort
        self._session = session
        self._gpu = gpu
        self._device = "cpu" if gpu is None else "cuda"
        self._lock = threading.Lock() if gpu is None else gpu.lock
        self._inputs = {item.name: tuple(item.shape[1:]) for item in session.get_inputs()}
        outputs = {item.name: tuple(item.shape[1:]) for item in session.get_outputs()}
        self._states = [name for name in self._inputs if name.startswith("state_")]
        self._map_shapes = {
            name: outputs[name] for name in ("saliency", "conspicuity") if name in outputs
        }
        self._maps: dict[str, NDArray[np.float32]] = {}

    def new_ring(self) -> FrameRing:
        """Return a ring whose windows lie where the session reads them."""
        window, *shape = self._inputs["frames"]
        if self._gpu is None:
            return FrameRing(window, tuple(shape))
        return DeviceRing(self._gpu, window, tuple(shape))

    def run(
        self, frames: NDArray[np.uint8] | DeviceFrames, state: dict[str, Any] | None
    ) -> tuple[dict[str, NDArray[np.float32]], dict[str, Any]]:
        """Run the graph once; returns the maps by name, and the state after."""
        batch = len(frames)
        binding = self._session.io_binding()
        with self._lock:
            if isinstance(frames, DeviceFrames):
                # ONNX Runtime has a stream of its own, and the ring's copies are in another one.
                assert self._gpu is not None
                self._gpu.synchronize()
                binding.bind_input(
                    "frames", self._device, 0, np.uint8, frames.shape, frames.address
                )
            else:
                binding.bind_cpu_input("frames", np.ascontiguousarray(frames))
            for name, value in (state or self._zeros(batch)).items():
                binding.bind_ortvalue_input(name, value)
            for name, host in self._host_maps(batch).items():
                binding.bind_output(name, "cpu", 0, np.float32, host.shape, host.ctypes.data)
            for name in self._states:
                binding.bind_output(f"{name}_next", self._device, 0)
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            # Copies: the next run writes to the same memory.
            maps = {name: host.copy() for name, host in self._host_maps(batch).items()}
        states = binding.get_outputs()[len(maps) :]
        return maps, dict(zip(self._states, states, strict=True))

    def _zeros(self, batch: int) -> dict[str, Any]:
        return {
            name: self._ort.OrtValue.ortvalue_from_numpy(
                np.zeros((batch, *self._inputs[name]), np.float32), self._device, 0
            )
            for name in self._states
        }

    def _host_maps(self, batch: int) -> dict[str, NDArray[np.float32]]:
        """Return memory for a run's maps."""
        zeros: Any = np.zeros if self._gpu is None else self._gpu.pinned
        for name, shape in self._map_shapes.items():
            if name not in self._maps or len(self._maps[name]) < batch:
                self._maps[name] = zeros((batch, *shape), np.float32)
        return {name: maps[:batch] for name, maps in self._maps.items()}


def preload(ort: Any) -> None:
    """Load CUDA and cuDNN from pip's packages, where they were installed that way."""
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(OSError, RuntimeError):
            ort.preload_dlls()


def check_memory(error: Exception) -> None:
    """Say so where an error of ONNX Runtime's means that the GPU has no memory left.

    Raises:
        SalstreamError: It does.
    """
    text = str(error)
    if "out of memory" in text or "BFCArena" in text or "Failed to allocate memory" in text:
        raise SalstreamError(
            "out of GPU memory: end other programs that use the GPU, or run on the CPU with "
            f"--backend onnxruntime:cpu ({text.strip().partition(chr(10))[0][:200]})"
        ) from error


def why_not() -> str:
    """Say why ONNX Runtime, built for CUDA, runs without it."""
    try:
        Gpu()
    except SalstreamError as error:
        return str(error)
    return (
        "its CUDA or cuDNN libraries are not there or too old; install them with: "
        "pip install 'onnxruntime-gpu[cuda,cudnn]'"
    )
