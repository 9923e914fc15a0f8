"""What is installed here, what is missing, and the one command that mends it."""

from __future__ import annotations

import importlib
import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

# distribution, module, what it is for, extra that brings it
_PARTS: Final = (
    ("numpy", "numpy", "arrays", ""),
    ("opencv-python-headless", "cv2", "resizing and drawing", ""),
    ("av", "av", "video files and network cameras", ""),
    ("pillow", "PIL", "pictures that move, AVIF and GIF", ""),
    ("pillow-heif", "pillow_heif", "HEIC pictures", "heic"),
    ("onnxruntime", "onnxruntime", "inference on the CPU", "cpu"),
    ("onnxruntime-gpu", "onnxruntime", "inference on NVIDIA GPUs", "gpu"),
    ("openvino", "openvino", "faster inference on the CPU; Intel's GPUs and NPUs", "openvino"),
    ("tensorrt", "tensorrt", "engines on NVIDIA GPUs", "tensorrt"),
    ("tensorrt-rtx", "tensorrt_rtx", "engines on NVIDIA GPUs, built anywhere", "tensorrt-rtx"),
    ("cuda-bindings", "cuda.bindings", "memory of NVIDIA GPUs, for engines and CUDA", "gpu"),
    ("pygame-ce", "pygame", "the window of `run --show`", "window"),
    ("aiohttp", "aiohttp", "the page of `run --serve`", "serve"),
    ("torch", "torch", "training and export", "training"),
    ("onnx", "onnx", "export", "export"),
    ("onnxscript", "onnxscript", "export", "export"),
)
_TIMEOUT_S: Final = 10


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: A library, or what was looked at.
        status: ``ok``, ``missing`` or ``problem``.
        detail: Version or explanation.
        remedy: The command that mends it, if one is needed or possible.
    """

    name: str
    status: str
    detail: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at this machine; nothing is changed."""
    findings = [Finding("python", "ok", platform.python_version())]
    findings += [_library(*part) for part in _PARTS]
    findings += [_inference(), _video_writing(), _gpu()]
    if _installed("onnxruntime") and _installed("onnxruntime-gpu"):
        findings.append(
            Finding(
                "onnxruntime twice",
                "problem",
                "onnxruntime and onnxruntime-gpu overwrite each other's files",
                "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'salstream[gpu]'",
            )
        )
    if _installed("opencv-python") and _installed("opencv-python-headless"):
        findings.append(
            Finding(
                "opencv twice",
                "problem",
                "opencv-python and opencv-python-headless overwrite each other's files",
                "pip uninstall -y opencv-python && "
                "pip install --force-reinstall opencv-python-headless",
            )
        )
    return findings


def can_stream(findings: list[Finding]) -> bool:
    """Whether the bundled model ran."""
    return any(f.name == "bundled model" and f.status == "ok" for f in findings)


def as_json(findings: list[Finding]) -> dict[str, Any]:
    """Return the report for programs."""
    return {"ok": can_stream(findings), "findings": [asdict(finding) for finding in findings]}


def _library(distribution: str, module: str, purpose: str, extra: str) -> Finding:
    remedy = (
        f"pip install 'salstream[{extra}]'" if extra else "pip install --force-reinstall salstream"
    )
    installed = _installed(distribution)
    if installed is None and extra:
        return Finding(distribution, "missing", purpose, remedy)
    try:
        # torch takes seconds to import and pygame prints a greeting: being there says enough.
        seen = module in ("torch", "pygame")
        found = installed if seen else importlib.import_module(module).__version__
    except Exception as error:  # whatever a broken library raises
        return Finding(distribution, "problem", f"cannot be imported: {error}", remedy)
    return Finding(distribution, "ok", f"{installed or found} ({purpose})")


def _inference() -> Finding:
    """Run the bundled model once."""
    import numpy as np

    from salstream.runtime.errors import SalstreamError
    from salstream.runtime.model import SaliencyModel, bundled_models

    name = next(iter(bundled_models()), None)
    if name is None:
        return Finding("bundled model", "problem", "no model in the package", "reinstall salstream")
    try:
        model = SaliencyModel.open(name)
        model.predictor().push(np.zeros((48, 64, 3), np.uint8))
    except SalstreamError as error:
        return Finding("bundled model", "problem", str(error), "pip install 'salstream[cpu]'")
    return Finding("bundled model", "ok", f"{name} runs on {model.backend.name}")


def _video_writing() -> Finding:
    try:
        import av
    except ImportError as error:
        return Finding("H.264 encoder", "problem", f"PyAV cannot be imported: {error}")
    if "libx264" in av.codecs_available:
        return Finding("H.264 encoder", "ok", "overlay videos can be saved")
    return Finding(
        "H.264 encoder",
        "problem",
        "this PyAV was built without libx264: no --save",
        "pip install --force-reinstall --only-binary av av",
    )


def _gpu() -> Finding:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Finding("GPU", "missing", "no NVIDIA driver here; inference runs on the CPU")
    try:
        query = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
        answer = subprocess.run(
            query, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("GPU", "problem", f"nvidia-smi failed: {error}")
    return Finding("GPU", "ok", answer.stdout.strip().replace("\n", "; "))


def _installed(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
