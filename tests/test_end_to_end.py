"""From data to maps with the commands alone: what one hands to the next is never touched."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from clips import clip, numbered_clip
from packs import pack
from salstream.runtime.cli import load_commands

pytestmark = pytest.mark.slow


def salstream(*arguments: object) -> Result:
    done = CliRunner().invoke(load_commands(), [str(argument) for argument in arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done


def test_a_trained_checkpoint_becomes_an_engine_and_maps(tmp_path: Path) -> None:
    """HD2S with layers of its own for three domains, six steps; the size is that of training."""
    packed = {
        "dhf1k": pack(tmp_path / "videos"),
        "hollywood": pack(tmp_path / "images", fps=None, videos=8, seed=1),
        "ucfsports": pack(tmp_path / "more", seed=2),
    }
    run = tmp_path / "run"
    data = [f"--data={name}={folder}" for name, folder in packed.items()]
    salstream("train", "hd2s-dsl-tiny", *data, "-o", run)
    checkpoint = run / "best.safetensors"

    graph = tmp_path / "trained.onnx"
    salstream("export", checkpoint, "--model", "hd2s-dsl", "--domain", "dhf1k", "-o", graph,
              "--frames", clip("bikes.mp4"))  # fmt: skip
    facts = json.loads(salstream("info", graph, "--json").stdout)
    assert (facts["height"], facts["width"], facts["window"]) == (64, 64, 8)

    int8 = tmp_path / "trained-int8.onnx"
    other = numbered_clip(tmp_path / "other.mp4", 20)
    salstream("calibrate", graph, "--clips", clip("bikes.mp4"), "-o", int8,
              "--windows", 6, "--check", 10)  # fmt: skip
    report = tmp_path / "report.json"
    salstream("verify", graph, int8, "--checkpoint", checkpoint, "--clips", other,
              "--frames", 12, "--json-file", report)  # fmt: skip
    assert json.loads(report.read_text())["passed"]
    assert json.loads(salstream("info", int8, "--json").stdout)["verification"]["passed"]

    maps = tmp_path / "maps"
    salstream("run", other, "--model", int8, "--maps", maps, "--format", "npy")
    written = [np.load(path) for path in sorted(maps.iterdir())]
    assert len(written) == 20
    assert all(saliency.max() <= 1 and saliency.std() > 0 for saliency in written)

    pytest.importorskip("tensorrt_rtx")
    engine = tmp_path / "trained.engine"
    salstream("build", int8, "--target", "tensorrt-rtx", "-o", engine, "--no-cache")
    built = json.loads(salstream("info", engine, "--json").stdout)
    assert (built["precision"], built["checkpoint_sha256"]) == ("int8", facts["checkpoint_sha256"])
