"""Builds of libsalstream for the tests: each once per session, skipped where a tool is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

import onnxruntime
import pytest

SOURCE: Final = Path(__file__).resolve().parents[2] / "runtime" / "cpp"
_CACHE: Final = Path(__file__).resolve().parents[2] / ".cache" / "onnxruntime-headers"
_KEYS: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_HEADER: Final = "onnxruntime_c_api.h"
_CXX: Final = {"gcc": "g++", "clang": "clang++"}
# Where a program is not in the Debian package of its own name.
_PACKAGES: Final = {"clang++": "clang", "ctest": "cmake"} | dict.fromkeys(
    ("nm", "readelf", "strip"), "binutils"
)


def run(
    *command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command; fail the test with its output if it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done


def tool(name: str) -> str:
    """Return the path of a program; skip the test where there is none."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (Debian: {_PACKAGES.get(name, name)})")
    return path


def onnxruntime_library() -> Path:
    """Return the inference library that comes with the Python package."""
    folder = Path(onnxruntime.__file__).parent / "capi"
    libraries = sorted(folder.glob("libonnxruntime.so*"))
    if not libraries:
        pytest.skip(f"the installed onnxruntime has no library of its own in {folder}")
    return libraries[0]


@cache
def onnxruntime_headers() -> Path | None:
    """Return the folder of ONNX Runtime's C header, fetched at need; None if it cannot be had.

    The Python package has none. Debian has a package of it since release 13; on 12 its archive
    is fetched, checked by apt, and unpacked, not installed.
    """
    chosen = os.environ.get("SALSTREAM_ONNXRUNTIME_INCLUDE")
    for folder in (
        *([Path(chosen)] if chosen else []),
        Path("/usr/include/onnxruntime"),
        Path("/usr/local/include/onnxruntime"),
        _CACHE / "usr/include/onnxruntime",
    ):
        if (folder / _HEADER).is_file():
            return folder
    try:
        _fetch_headers(_CACHE)
    except (OSError, subprocess.CalledProcessError):
        return None
    return _CACHE / "usr/include/onnxruntime"


def _fetch_headers(target: Path) -> None:
    """Unpack Debian 13's package of the headers, from this machine's own Debian mirror."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(COMPONENT)", "Created-By: Packages"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    mirrors = [
        line.split()[0]
        for line in listed.stdout.splitlines()
        if line.removesuffix(" main").rstrip("/").endswith("/debian") and line.endswith(" main")
    ]
    if not mirrors or not _KEYS.is_file():
        raise FileNotFoundError("no Debian mirror is configured")
    lists = target / "lists"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    sources = target / "sources.list"
    sources.write_text(f"deb [signed-by={_KEYS}] {mirrors[0]} trixie main\n")
    apt = [
        "apt-get", "-q", f"-oDir::Etc::SourceList={sources}", "-oDir::Etc::SourceParts=-",
        f"-oDir::State::Lists={lists}", f"-oDir::Cache={target}", "-oAPT::Sandbox::User=root",
    ]  # fmt: skip
    subprocess.run([*apt, "update"], cwd=target, capture_output=True, check=True)
    subprocess.run(
        [*apt, "download", "libonnxruntime-dev"], cwd=target, capture_output=True, check=True
    )
    archive = next(target.glob("libonnxruntime-dev*.deb"))
    subprocess.run(["dpkg-deb", "-x", archive, target], capture_output=True, check=True)
    shutil.rmtree(lists)


# CUDA's headers are data files of these wheels, which are fetched for them and never imported.
_CUDA_WHEELS: Final = ("nvidia-cuda-runtime==13.5.37", "nvidia-cuda-crt==13.5.37")


@cache
def cuda_headers() -> Path | None:
    """Return the folder of CUDA's headers, fetched at the first call; None if they cannot be."""
    folder = _CACHE.parent / "cuda-headers"
    include = folder / "nvidia" / "cu13" / "include"
    if not (include / "crt" / "host_defines.h").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            command += ["--only-binary=:all:", "--disable-pip-version-check", "--dest", scratch]
            try:
                subprocess.run([*command, *_CUDA_WHEELS], check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError):
                return None
            for wheel in sorted(Path(scratch).glob("*.whl"), reverse=True):
                with zipfile.ZipFile(wheel) as archive:
                    headers = [name for name in archive.namelist() if "/include/" in name]
                    archive.extractall(folder, headers)
    return include


@cache
def _build(folder: Path, compiler: str, options: tuple[str, ...], targets: tuple[str, ...]) -> Path:
    run(
        "cmake", "-S", SOURCE, "-B", folder, "-DCMAKE_C_FLAGS=-Werror", "-DCMAKE_CXX_FLAGS=-Werror",
        f"-DCMAKE_C_COMPILER={compiler}", f"-DCMAKE_CXX_COMPILER={_CXX[compiler]}",
        f"-DONNXRUNTIME_INCLUDE_DIR={onnxruntime_headers()}", *options,
        *(["-G", "Ninja"] if shutil.which("ninja") else []),
    )  # fmt: skip
    run("cmake", "--build", folder, "--target", *targets, "--parallel", str(os.cpu_count() or 1))
    return folder


class Builds:
    """The builds of one test session.

    Args:
        folder: Where they go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._is_installed = False

    def __call__(
        self,
        name: str,
        compiler: str = "gcc",
        options: Sequence[str] = (),
        targets: Sequence[str] = ("all",),
    ) -> Path:
        """Return the folder of a build, made at the first call; warnings are errors."""
        for needed in ("cmake", compiler, _CXX[compiler]):
            tool(needed)
        if onnxruntime_headers() is None:
            pytest.skip(
                f"{_HEADER} is not there and could not be fetched; install ONNX Runtime's headers "
                "(Debian 13: libonnxruntime-dev) or set SALSTREAM_ONNXRUNTIME_INCLUDE"
            )
        return _build(self._folder / name, compiler, tuple(options), tuple(targets))

    def release(self) -> Path:
        """The one that most tests share: gcc, everything that can be built."""
        return self(
            "release",
            options=("-DSALSTREAM_TESTS=ON", "-DSALSTREAM_EXAMPLES=ON"),
        )

    def installed(self) -> Path:
        """Return the prefix that the shared build is installed in, which is chosen late."""
        prefix = self._folder / "installed"
        if not self._is_installed:
            run("cmake", "--install", self.release(), "--prefix", prefix)
            self._is_installed = True
        return prefix
