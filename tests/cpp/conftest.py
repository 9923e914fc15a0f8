"""The builds and the loaded library, once per session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cpp.native import Native
from cpp.toolchain import Builds, onnxruntime_library


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Builds:
    """The builds, from nothing; or in a folder that stays, for whoever works on them."""
    kept = os.environ.get("SALSTREAM_CPP_BUILDS")
    return Builds(Path(kept) if kept else tmp_path_factory.mktemp("libsalstream"))


@pytest.fixture(scope="session")
def native(builds: Builds) -> Native:
    """The shared library of the release build, on the Python package's ONNX Runtime."""
    return Native(Path(builds.release() / "libsalstream.so"), onnxruntime_library())
