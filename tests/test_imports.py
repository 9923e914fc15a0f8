"""Who may import whom, as the design has it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_parts_import_each_other_only_downwards() -> None:
    """The contracts are in pyproject.toml."""
    program = Path(sys.executable).with_name("lint-imports")
    linted = subprocess.run([program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout
    assert "3 kept, 0 broken" in linted.stdout


def test_no_part_hides_the_others() -> None:
    """`salstream` is a namespace: an __init__.py in one part would hide the other three."""
    assert not list(ROOT.glob("*/salstream/__init__.py"))
