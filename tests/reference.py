"""What the tests compare with: measured outputs of published code, and real eye tracking.

Both lie outside the repository, in folders `reference` and `data` beside it (`../shared`)
or where SALSTREAM_REFERENCE and SALSTREAM_DATA say. Tests skip where they are not there.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

_SHARED: Final = Path(__file__).resolve().parents[2] / "shared"


def reference(name: str) -> Path:
    """Return a file of measured reference values; skip the test where there is none."""
    return _find("SALSTREAM_REFERENCE", _SHARED / "reference", name)


def data(name: str) -> Path:
    """Return a file or folder of real eye-tracking data; skip the test where there is none."""
    return _find("SALSTREAM_DATA", _SHARED / "data", name)


def fill_module() -> ModuleType:
    """Return the module that makes the inputs of the reference: ``fill`` and ``clip``."""
    spec = importlib.util.spec_from_file_location("reference_fill", reference("fill.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _find(variable: str, default: Path, name: str) -> Path:
    path = Path(os.environ.get(variable, default)) / name
    if not path.exists():
        pytest.skip(f"{path} is not there; {variable} can say where it is")
    return path
