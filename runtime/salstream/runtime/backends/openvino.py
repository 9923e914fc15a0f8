"""OpenVINO: Intel and AMD processors, Intel's GPUs and NPUs."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any, Final

import numpy as np
import platformdirs
from numpy.typing import NDArray

from salstream.runtime.backends import Backend, Output, check_finite, check_tensors
from salstream.runtime.errors import SalstreamError, UsageError
from salstream.runtime.spec import GraphSpec

States = dict[str, NDArray[np.float32]]
PRECISIONS: Final = ("f32", "f16", "bf16")


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry.

    That would write to the home folder, look up a host, and at the end fork a process, which may
    hang.

    Raises:
        ImportError: It is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


class OpenVinoBackend(Backend):
    """A graph in OpenVINO.

    Args:
        path: The ``.onnx`` file.
        device: ``CPU``, ``GPU``, ``GPU.1``, ``NPU``, …, in any case; a precision may follow, as in
            ``GPU:f16``. None: ``CPU``. Without a precision a graph is computed as it is
            written: left alone, OpenVINO would choose bfloat16 or float16 where a device has them.
        threads: Threads for one inference on the CPU; None: one per core.

    Raises:
        UsageError: The device or the precision is not known.
        SalstreamError: OpenVINO or the device is not there, or the file is damaged or not ours.
    """

    def __init__(self, path: Path, device: str | None = None, threads: int | None = None) -> None:
        try:
            openvino = import_openvino()
            from openvino.frontend import FrontEndManager
        except ImportError as error:
            raise SalstreamError(
                "OpenVINO is not installed; install it with: pip install 'salstream[openvino]'"
            ) from error
        self._openvino = openvino
        self._core = openvino.Core()
        self._device, _, precision = (device or "CPU").partition(":")
        self._device = self._device.upper()
        if precision and precision not in PRECISIONS:
            raise UsageError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
        available = self._core.available_devices
        if self._device.partition(".")[0] not in {name.partition(".")[0] for name in available}:
            raise UsageError(
                f"OpenVINO finds no device {self._device}; it finds: {', '.join(available)}"
            )
        try:
            path.open("rb").close()  # says more clearly than OpenVINO what is wrong
            # Asked for by name: or other readers would try a damaged file, and print.
            reader = FrontEndManager().load_by_framework("onnx")
            self._model = reader.convert(reader.load(str(path)))
        except OSError as error:
            raise SalstreamError(f"{path} cannot be read: {error.strerror}") from error
        except Exception as error:  # its readers have classes of their own
            raise SalstreamError(
                f"{path} cannot be loaded: it is damaged or no ONNX graph"
            ) from error
        try:
            self.spec = GraphSpec.from_metadata(_metadata(self._model))
        except SalstreamError as error:
            raise SalstreamError(f"{path} is not a graph for salstream: {error}") from error
        self._shapes = {port.any_name: _without_batch(port) for port in self._model.inputs}
        outputs = [port.any_name for port in self._model.outputs]
        check_tensors(path, self.spec, self._shapes, outputs)
        self._state_names = [name for name in self._shapes if name.startswith("state_")]
        self.recurrent = bool(self._state_names)
        self.conspicuity = "conspicuity" in outputs
        self.name = f"openvino-{self._device.lower()}"
        self._settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            **_cache(),
        }
        if precision:
            self.name += f"-{precision}"
        if precision or not self._device.startswith("NPU"):  # NPUs have no float32
            self._settings["INFERENCE_PRECISION_HINT"] = precision or "f32"
        if self._device == "CPU":
            # Decoding and encoding want a core now and then: threads may move out of the way.
            self._settings["ENABLE_CPU_PINNING"] = False
            if threads is not None:
                self._settings["INFERENCE_NUM_THREADS"] = threads
        self._lock = threading.Lock()
        self._requests: dict[int, Any] = {}
        self._request(1)

    def run(self, frames: NDArray[np.uint8], state: States | None) -> Output:
        """Run the graph once (see :class:`~salstream.runtime.backends.Backend`)."""
        if state is None:
            state = {
                name: np.zeros((len(frames), *self._shapes[name]), np.float32)
                for name in self._state_names
            }
        names = ["saliency", *(f"{name}_next" for name in self._state_names)]
        if self.conspicuity:
            names.append("conspicuity")
        # Streams in other threads use the same request, whose outputs lie in one place.
        with self._lock:
            request = self._request(len(frames))
            try:
                request.infer({"frames": frames, **state}, share_inputs=True)
            except RuntimeError as error:
                raise SalstreamError(f"the graph failed: {_last_line(error)}") from error
            outputs = {name: request.get_tensor(name).data.copy() for name in names}
        check_finite(outputs["saliency"])
        next_state = {name: outputs[f"{name}_next"] for name in self._state_names}
        return Output(outputs["saliency"], next_state, outputs.get("conspicuity"))

    def _request(self, batch: int) -> Any:
        """Return what runs batches of one size: fixed sizes are faster, and NPUs want them."""
        if batch not in self._requests:
            model = self._model.clone()
            try:
                model.reshape({name: [batch, *shape] for name, shape in self._shapes.items()})
                compiled = self._core.compile_model(model, self._device, self._settings)
            except RuntimeError as error:
                raise SalstreamError(
                    f"OpenVINO cannot run the graph on {self._device}: {_last_line(error)}"
                ) from error
            self._requests[batch] = compiled.create_infer_request()
        return self._requests[batch]


def _without_batch(port: Any) -> list[int]:
    return [
        length.get_length() if length.is_static else -1 for length in list(port.partial_shape)[1:]
    ]


def _metadata(model: Any) -> dict[str, str]:
    """Return the ``metadata_props`` of the ONNX file."""
    if not model.has_rt_info("framework"):
        return {}
    entries = model.get_rt_info("framework").value
    return {name: str(getattr(value, "value", value)) for name, value in entries.items()}


def _cache() -> dict[str, str]:
    """Return where compiled graphs are kept; nowhere if that cannot be written."""
    folder = platformdirs.user_cache_path("salstream") / "openvino"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return {}
    return {"CACHE_DIR": str(folder)} if os.access(folder, os.W_OK) else {}


def _last_line(error: Exception) -> str:
    """Return what went wrong; the lines before say where in OpenVINO."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else type(error).__name__
