"""The wheel in a clean environment, with the `cpu` extra and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from clips import numbered_clip

ROOT = Path(__file__).resolve().parents[2]
MEMORY_LIMIT_MB = 400

pytestmark = pytest.mark.slow


def run(*command: str | Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


def environment(folder: Path, requirement: str) -> Path:
    """Make a virtual environment and return its Python."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", requirement)
    return python


@pytest.fixture(scope="module")
def bare_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("bare"), str(wheel))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("cpu"), f"{wheel}[cpu]")


def test_the_wheel_carries_the_model_its_notice_and_the_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    models = "salstream/runtime/models/"
    assert {f"{models}unisal-dhf1k.onnx", f"{models}NOTICE", f"{models}LICENSE"} <= set(names)
    for part in ("runtime", "training", "calibration", "export"):
        assert f"salstream/{part}/__init__.py" in names
    assert "salstream/__init__.py" not in names
    for name in ("page.html", "page.css", "page.js", "camera.js", "chart.js", "token.html"):
        assert f"salstream/runtime/serve/page/{name}" in names
    assert any(name.endswith(".dist-info/licenses/NOTICE") for name in names)


_IMPORT_EVERYTHING = """
import importlib, importlib.util, json, pkgutil, sys
import salstream.runtime
lazy = [name for name in ("onnxruntime", "pygame", "rich") if name in sys.modules]
for module in pkgutil.walk_packages(salstream.runtime.__path__, "salstream.runtime."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:  # the page, which says so when it is asked for
        assert module.name.startswith("salstream.runtime.serve."), module.name
        assert error.name in ("aiohttp", "prometheus_client"), error
torch = [name for name in sys.modules if name.partition(".")[0] in ("torch", "onnx")]
print(json.dumps([lazy, torch, importlib.util.find_spec("torch") is None]))
"""


@pytest.mark.parametrize("extras", ["bare_python", "python"])
def test_every_module_of_the_runtime_imports_without_torch(
    extras: str, request: pytest.FixtureRequest
) -> None:
    interpreter = request.getfixturevalue(extras)
    lazy, torch, no_torch = json.loads(run(interpreter, "-c", _IMPORT_EVERYTHING))
    assert no_torch
    assert torch == []
    assert lazy == [], "loaded before they are needed"


def test_without_an_inference_library_it_says_so(bare_python: Path, tmp_path: Path) -> None:
    program = bare_python.with_name("salstream")
    video = numbered_clip(tmp_path / "v.mp4", 2)
    done = subprocess.run([program, "run", video], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'salstream[cpu]'" in done.stderr
    assert "Traceback" not in done.stderr


_PEAK_MEMORY = """
import json, resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource usage")
def test_memory_stays_small_however_long_the_clip(python: Path, tmp_path: Path) -> None:
    program = python.with_name("salstream")
    peaks = []
    for frames in (100, 400):
        video = numbered_clip(tmp_path / f"{frames}.mp4", frames, size=(720, 1280))
        command: list[str | Path] = [program, "run", video, "--save", tmp_path / "o.mp4"]
        peaks.append(float(run(python, "-c", _PEAK_MEMORY, *command)))
    assert max(peaks) < MEMORY_LIMIT_MB
    assert peaks[1] < 1.1 * peaks[0] + 10


def test_what_needs_torch_says_so(python: Path, tmp_path: Path) -> None:
    program = python.with_name("salstream")
    command = [str(program), "export", "x.pth", "--domain", "dhf1k", "-o", "x.onnx"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "pip install 'salstream[cpu,export]'" in done.stderr
    assert "Traceback" not in done.stderr
    listed = subprocess.run(
        [program, "weights", "list"], capture_output=True, text=True, check=False
    )
    assert "Apache-2.0" in listed.stdout + listed.stderr
