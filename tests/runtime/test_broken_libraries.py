"""Libraries that are broken: `doctor` finds them, and every other command says that it would.

Stand-ins come first on the path, as what is left there after a failed installation would.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clips import numbered_clip
from salstream.runtime import faults

Command = Callable[..., subprocess.CompletedProcess[str]]
PROGRAM = "import sys; from salstream.runtime.cli import main; sys.argv[0] = 'salstream'; main()"

HALF = ""
LIBGL = 'raise ImportError("libGL.so.1: cannot open shared object file")'
ABI = """
try:
    raise ImportError("libopenblas.so: undefined symbol: dgemm_")
except ImportError as error:
    raise ImportError("\\n\\nIMPORTANT: PLEASE READ THIS\\n\\nIt failed\\n") from error
"""
INSIDE = "import os\nos.no_such_name"
NO_FILE = 'import ctypes\nctypes.CDLL("libnothing.so.9")'
ENDS = "import sys\nsys.exit(0)"
CRASHES = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"
LEAVES = "import os\nos._exit(0)"
PRINTS = 'print("Hello from the library")\nraise RuntimeError("no good\\nsecond line")'
WRONG_PYTHON = "print 'Python 2'"


@pytest.fixture
def broken(tmp_path: Path) -> Command:
    """Run a command where modules are replaced by stand-ins."""

    def call(*words: str, **modules: str) -> subprocess.CompletedProcess[str]:
        for name, text in modules.items():
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "__init__.py").write_text(text)
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        )
        assert "Traceback" not in done.stdout + done.stderr
        return done

    return call


def findings(done: subprocess.CompletedProcess[str]) -> dict[str, tuple[str, str, str]]:
    report = json.loads(done.stdout)
    assert report["ok"] is False
    assert done.returncode == 1
    return {f["name"]: (f["status"], f["detail"], f["remedy"]) for f in report["findings"]}


@pytest.mark.slow
def test_doctor_finds_a_broken_opencv(broken: Command) -> None:
    found = findings(broken("doctor", "--json", cv2=HALF))
    status, detail, remedy = found["opencv-python-headless"]
    assert status == "problem"
    assert detail.startswith("cannot be imported: ")
    assert "only a part of it is there" in detail
    assert remedy.endswith("pip install --force-reinstall opencv-python-headless")
    assert found["av"][0] == found["numpy"][0] == "ok"  # it goes on
    assert found["bundled model"][0] == "problem"


@pytest.mark.slow
def test_doctor_shows_people_what_is_broken(broken: Command) -> None:
    shown = broken("doctor", cv2=LIBGL)
    assert shown.returncode == 1
    assert "✗ opencv-python-headless   cannot be imported: libGL.so.1" in shown.stdout
    assert "pip install --force-reinstall opencv-python-headless" in shown.stdout
    assert "✓ numpy" in shown.stdout


@pytest.mark.slow
def test_doctor_finds_whatever_is_broken(broken: Command) -> None:
    parts = {
        "numpy": (ABI, "undefined symbol: dgemm_"),
        "av": (INSIDE, "no attribute 'no_such_name'"),
        "onnxruntime": (HALF, "without 'InferenceSession'"),
        "openvino": (NO_FILE, "libnothing.so.9"),
        "aiohttp": (ENDS, "SystemExit: 0"),
        "pygame": (CRASHES, "it crashes Python (SIGSEGV)"),
        "onnx": (PRINTS, "RuntimeError: no good"),
        "onnxscript": (WRONG_PYTHON, "SyntaxError"),
        "tensorrt_rtx": (LEAVES, "it ends Python (exit code 0)"),
    }
    modules = {name: text for name, (text, _) in parts.items()}
    found = findings(broken("doctor", "--json", **modules))
    names = {"pygame": "pygame-ce", "tensorrt_rtx": "tensorrt-rtx"}
    for module, (_, expected) in parts.items():
        name = names.get(module, module)
        status, detail, remedy = found[name]
        if status == "missing":  # not installed here
            continue
        assert (status, remedy) == ("problem", f"pip install --force-reinstall {name}")
        assert expected in detail
        assert "\n" not in detail
    assert found["bundled model"][0] == found["H.264 encoder"][0] == "problem"


def pointed_to_doctor(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert "'salstream doctor'" in line
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("command", "module", "text", "expected"),
    [
        ("run clip.mp4", "cv2", HALF, "cv2 is broken (AttributeError: "),
        ("info unisal-dhf1k", "cv2", LIBGL, "cv2 is broken (libGL.so.1: cannot open"),
        ("run clip.mp4", "cv2", LIBGL, "cv2 is broken"),
        ("run clip.mp4", "numpy", ABI, "numpy is broken (libopenblas.so: undefined symbol"),
        ("demo clip.mp4", "numpy", ENDS, "numpy is broken (SystemExit: 0)"),
        ("run clip.mp4", "cv2", NO_FILE, "cv2 is broken (OSError: libnothing.so.9"),
        ("run clip.mp4 --backend onnxruntime", "onnxruntime", HALF, "onnxruntime is broken"),
        ("run clip.mp4 --backend onnxruntime", "onnxruntime", LIBGL, "onnxruntime is broken"),
        ("run clip.mp4 --backend openvino", "openvino", INSIDE, "openvino is broken"),
        pytest.param(
            *("train hd2s --data source=x -o y", "cv2", LIBGL, "cv2 is broken"),
            marks=pytest.mark.slow,
        ),
        ("bench unisal-dhf1k", "numpy", LIBGL, "numpy is broken"),
        ("evaluate x --data remega=y", "cv2", LIBGL, "cv2 is broken"),
    ],
)
def test_commands_point_to_doctor(
    broken: Command, tmp_path: Path, command: str, module: str, text: str, expected: str
) -> None:
    numbered_clip(tmp_path / "clip.mp4", 4)
    done = broken(*command.split(), **{module: text})
    pointed_to_doctor(done, expected)


def test_help_needs_no_library(broken: Command) -> None:
    done = broken("--help", cv2=LIBGL, numpy=ENDS, av=CRASHES)
    assert done.returncode == 0
    assert "doctor" in done.stdout


def test_a_library_that_is_missing(broken: Command) -> None:
    text = "raise ModuleNotFoundError(\"No module named 'av'\", name='av')"
    done = broken("run", "clip.mp4", "--save", "x.mp4", av=text)
    pointed_to_doctor(done, "av is ")
    assert faults.explain(ModuleNotFoundError("…", name="no_such_library.part")) == (
        "no_such_library is not installed: 'salstream doctor' shows how to fix it"
    )


def test_an_error_that_nobody_expected() -> None:
    code = """
from salstream.runtime import cli, model
def fail(path): raise RuntimeError("at rtsp://me:geheim@host/1\\nmore")
model.find_model = fail
cli.main()
"""
    command = [sys.executable, "-c", code, "info", "unisal-dhf1k"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    pointed_to_doctor(done, "RuntimeError: at rtsp://me:***@host/1", "SALSTREAM_TRACEBACK=1")
    environment = {**os.environ, "SALSTREAM_TRACEBACK": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert "Traceback" in done.stderr
