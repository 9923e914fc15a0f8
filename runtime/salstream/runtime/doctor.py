"""What is installed here, what is missing, and the one command that mends it."""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Final

from salstream.runtime.faults import reason

# distribution, module, a name in it, what it is for, extra that brings it
_PARTS: Final = (
    ("numpy", "numpy", "ndarray", "arrays", ""),
    ("opencv-python-headless", "cv2", "VideoCapture", "resizing and drawing", ""),
    ("av", "av", "open", "video files and network cameras", ""),
    ("pillow", "PIL.Image", "open", "pictures that move, AVIF and GIF", ""),
    ("pi-heif", "pi_heif", "open_heif", "HEIC pictures", "heic"),
    ("onnxruntime", "onnxruntime", "InferenceSession", "inference on the CPU", "cpu"),
    ("onnxruntime-gpu", "onnxruntime", "InferenceSession", "inference on NVIDIA GPUs", "gpu"),
    (
        "openvino",
        "openvino",
        "Core",
        "faster inference on the CPU; Intel's GPUs and NPUs",
        "openvino",
    ),
    ("tensorrt", "tensorrt", "Runtime", "engines on NVIDIA GPUs", "tensorrt"),
    (
        "tensorrt-rtx",
        "tensorrt_rtx",
        "Runtime",
        "engines on NVIDIA GPUs, built anywhere",
        "tensorrt-rtx",
    ),
    (
        "cuda-bindings",
        "cuda.bindings",
        "__version__",
        "memory of NVIDIA GPUs, for engines and CUDA",
        "gpu",
    ),
    ("pygame-ce", "pygame", "display", "the window of `run --show`", "window"),
    ("aiohttp", "aiohttp", "ClientSession", "the page of `run --serve`", "serve"),
    ("torch", "torch", "Tensor", "training and export", "training"),
    ("onnx", "onnx", "ModelProto", "export", "export"),
    ("onnxscript", "onnxscript", "script", "export", "export"),
)
_OPENCVS: Final = ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless")
_TIMEOUT_S: Final = 10
_IMPORT_S: Final = 60


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
    with ThreadPoolExecutor() as threads:
        libraries = [threads.submit(_library, *part) for part in _PARTS]
        inference, encoder = threads.submit(_inference), threads.submit(_video_writing)
        findings = [Finding("python", "ok", platform.python_version())]
        findings += [library.result() for library in libraries]
        findings += [inference.result(), encoder.result(), _gpu()]
    if _installed("onnxruntime") and _installed("onnxruntime-gpu"):
        findings.append(
            Finding(
                "onnxruntime twice",
                "problem",
                "onnxruntime and onnxruntime-gpu overwrite each other's files",
                "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'salstream[gpu]'",
            )
        )
    others = [name for name in _OPENCVS if _installed(name)]
    if others and _installed("opencv-python-headless"):
        findings.append(
            Finding(
                "opencv twice",
                "problem",
                f"{', '.join(others)} and opencv-python-headless overwrite each other's files",
                _opencv_remedy(),
            )
        )
    return findings


def can_stream(findings: list[Finding]) -> bool:
    """Whether the bundled model ran."""
    return any(f.name == "bundled model" and f.status == "ok" for f in findings)


def as_json(findings: list[Finding]) -> dict[str, Any]:
    """Return the report for programs."""
    return {"ok": can_stream(findings), "findings": [asdict(finding) for finding in findings]}


def _library(distribution: str, module: str, name: str, purpose: str, extra: str) -> Finding:
    installed = _installed(distribution)
    if installed is None and extra:
        return Finding(distribution, "missing", purpose, f"pip install 'salstream[{extra}]'")
    # torch takes seconds to import: being there says enough
    good, said = (True, "") if module == "torch" else _ask("library", module, name)
    if not good:
        remedy = f"pip install --force-reinstall {distribution}"
        return Finding(
            distribution,
            "problem",
            f"cannot be imported: {said}",
            _opencv_remedy() if module == "cv2" else remedy,
        )
    return Finding(distribution, "ok", f"{installed or said} ({purpose})")


def _opencv_remedy() -> str:
    others = " ".join(name for name in _OPENCVS if _installed(name))
    mend = "pip install --force-reinstall opencv-python-headless"
    return f"pip uninstall -y {others} && {mend}" if others else mend


def _inference() -> Finding:
    """Run the bundled model once."""
    good, said = _ask("model")
    if good:
        return Finding("bundled model", "ok", said)
    return Finding("bundled model", "problem", said, "pip install 'salstream[cpu]'")


def _video_writing() -> Finding:
    good, said = _ask("encoder")
    if good and said:
        return Finding("H.264 encoder", "ok", said)
    return Finding(
        "H.264 encoder",
        "problem",
        "this PyAV was built without libx264: no --save" if good else said,
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
    except Exception:  # also what is left of a distribution that was not removed wholly
        return None


# A broken library may print, end Python or crash it, so each is looked at in a process of its own


def _ask(question: str, *details: str) -> tuple[bool, str]:
    """Let another process answer a question: whether all is well, and what there is to say."""
    command = [sys.executable, "-P", "-c", f"from {__name__} import answer; answer()"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            [*command, question, *details],
            capture_output=True,
            env=environment,
            stdin=subprocess.DEVNULL,
            timeout=_IMPORT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return False, reason(error)
    try:
        good, said = json.loads(done.stdout)
    except ValueError:
        if done.returncode < 0:
            return False, f"it crashes Python ({signal.Signals(-done.returncode).name})"
        return False, f"it ends Python (exit code {done.returncode})"
    return bool(good), str(said)


def answer() -> None:
    """Answer the question on the command line, in JSON; for :func:`examine`."""
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # for whatever a library prints
    question, *details = sys.argv[1:]
    try:
        said = [True, _QUESTIONS[question](*details)]
    except BaseException as error:  # a broken library raises anything, SystemExit too
        said = [False, reason(error)]
    with output:
        json.dump(said, output)


def _try_library(module: str, name: str) -> str:
    """Return the version of a library."""
    found = importlib.import_module(module)
    if not hasattr(found, name):
        raise ImportError(f"only a part of it is there, without {name!r}")
    return str(getattr(found, "__version__", "version not known"))


def _try_model() -> str:
    import numpy as np

    from salstream.runtime.errors import SalstreamError
    from salstream.runtime.model import SaliencyModel, bundled_models

    name = next(iter(bundled_models()), None)
    if name is None:
        raise SalstreamError("no model in the package: reinstall salstream")
    model = SaliencyModel.open(name)
    model.predictor().push(np.zeros((48, 64, 3), np.uint8))
    return f"{name} runs on {model.backend.name}"


def _try_encoder() -> str:
    import av

    return "overlay videos can be saved" if "libx264" in av.codecs_available else ""


_QUESTIONS: Final[dict[str, Callable[..., str]]] = {
    "library": _try_library,
    "model": _try_model,
    "encoder": _try_encoder,
}
