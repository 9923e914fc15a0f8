"""`salstream calibrate`: what it writes, what the budget keeps in float, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner, Result

from clips import clip
from graphs import SENSITIVE, small_graph
from salstream.calibration.budget import cut_segments, fit, rank
from salstream.calibration.graphs import Graph
from salstream.calibration.ranges import METHODS, measure
from salstream.calibration.windows import Windows, draw
from salstream.runtime import SaliencyModel, SalstreamError, UsageError
from salstream.runtime.cli import load_commands


def calibrate(*arguments: object) -> Result:
    return CliRunner().invoke(load_commands(), ["calibrate", *map(str, arguments)])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return Graph(small_graph(tmp_path_factory.mktemp("graph") / "small.onnx"))


@pytest.fixture(scope="module")
def windows(small: Graph, tmp_path_factory: pytest.TempPathFactory) -> Windows:
    folder = tmp_path_factory.mktemp("windows") / "w"
    return draw(small, [clip("bikes.mp4")], 12, folder)


def test_the_ranking_finds_the_layer_that_suffers(small: Graph, windows: Windows) -> None:
    ranking = rank(small, measure(small, windows, "minmax"), windows)
    assert ranking[0][0].name == SENSITIVE
    falls = [fall for _, fall in ranking]
    assert falls[0] > 3 * falls[1] > 0


@pytest.mark.parametrize("method", METHODS)
def test_ranges_lie_within_what_occurs(small: Graph, windows: Windows, method: str) -> None:
    """The first layer reads frames: 255 is the largest value there, and frequent."""
    largest = measure(small, windows, "minmax")
    ranges = measure(small, windows, method)
    assert ranges.keys() == {"x0", "x1", "x2"}
    assert all(0 < ranges[name] <= largest[name] for name in ranges)
    assert largest["x0"] == 255
    assert method == "minmax" or ranges["x1"] < largest["x1"]


def test_a_budget_keeps_what_suffers_in_float_and_nothing_else(
    small: Graph, windows: Windows
) -> None:
    largest = measure(small, windows, "minmax")
    segments = cut_segments(small, [clip("bikes.mp4")], 20)
    everything = fit(small, largest, windows, segments, None)
    assert (len(everything.quantized), everything.kept, everything.frames) == (3, [], 20)
    best = 1 - everything.mean_cc
    within = fit(small, largest, windows, segments, best / 2)
    assert [layer.name for layer in within.kept] == [SENSITIVE]
    assert 1 - within.mean_cc <= best / 2
    assert fit(small, largest, windows, segments, best * 1.01).kept == []
    with pytest.raises(SalstreamError, match=r"budget of 0 cannot be met: CC still falls by 0\.0"):
        fit(small, largest, windows, segments, 0.0)


def test_the_command_writes_a_graph_that_says_how_it_was_made(small: Graph, tmp_path: Path) -> None:
    output = tmp_path / "new" / "small-int8.onnx"
    videos = [clip("bikes.mp4"), clip("carphone_pristine.mp4")]
    arguments = ["--clips", *videos, "-o", output, "--windows", 10, "--check", 12]
    done = calibrate(small.path, *arguments, "--keep", tmp_path / "windows")
    assert done.exit_code == 0, (done.output, done.exception)
    assert "3 of 3 convolutions in int8 (100.0% of the multiply-accumulates)" in done.output
    assert "is poor; --budget keeps the layers" in done.stderr
    spec = SaliencyModel.open(output).spec
    assert spec.precision == "int8"
    story = dict(spec.calibration)
    assert story["clips"] == ["bikes.mp4", "carphone_pristine.mp4"]
    assert (story["windows"], story["method"], story["frames"]) == (10, "minmax", 12)
    assert 0.5 < story["mean_cc"] < 1
    again = tmp_path / "again.onnx"
    arguments[arguments.index(output)] = again
    assert calibrate(small.path, *arguments).exit_code == 0
    assert again.read_bytes() == output.read_bytes()
    shown = CliRunner().invoke(load_commands(), ["info", str(output), "--json"])
    assert json.loads(shown.output)["calibration"]["float_layers"] == []
    refused = calibrate(output, "--clips", videos[0], "-o", tmp_path / "x.onnx")
    assert isinstance(refused.exception, UsageError)
    assert "quantized already" in str(refused.exception)


def test_the_command_prints_the_ranking_with_a_budget(small: Graph, tmp_path: Path) -> None:
    output = tmp_path / "x.onnx"
    options = ["--clips", clip("bikes.mp4"), "-o", output, "--windows", "8", "--check", "12"]
    done = calibrate(small.path, *options, "--budget", "0.001")
    assert done.exit_code == 0, (done.output, done.exception)
    lines = done.output.splitlines()
    assert lines[0].startswith("Each layer in int8 alone")
    assert lines[2].split()[0] == SENSITIVE
    assert lines[2].split()[-1] == "float"
    assert SaliencyModel.open(output).spec.calibration["float_layers"][0] == SENSITIVE
    operators = [node.op_type for node in onnx.load(output).graph.node]
    assert 0 < operators.count("QuantizeLinear") < 3


def test_refusals_leave_nothing_behind(small: Graph, tmp_path: Path) -> None:
    """One sentence each, and no file."""
    video = clip("bikes.mp4")
    output = tmp_path / "x.onnx"
    cases: list[tuple[list[str | Path], str]] = [
        ([small.path, "--clips", tmp_path / "none.mp4", "-o", output], "no video or folder"),
        ([small.path, "--clips", video, "-o", tmp_path / "x.engine"], "ending in .onnx"),
        ([small.path, "--clips", video, "-o", small.path], "written over"),
        ([small.path, "--clips", video, "-o", output, "--method", "guess"], "unknown method"),
        (["nonesuch", "--clips", video, "-o", output], "unknown model 'nonesuch'"),
        (
            [small.path, "--clips", video, "-o", output, "--budget", "0", "--windows", "4"],
            "cannot be met",
        ),
    ]
    for arguments, sentence in cases:
        done = calibrate(*arguments)
        assert isinstance(done.exception, SalstreamError), done.output
        assert sentence in str(done.exception)
        if "cannot" in sentence:  # the ranking is what one needs now
            assert SENSITIVE in done.output
    assert list(tmp_path.iterdir()) == []
    assert calibrate(small.path, "-o", output).exit_code == 2


def test_clips_that_are_too_short_for_a_window(tmp_path: Path) -> None:
    """A graph of five frames and a clip of three."""
    from clips import numbered_clip

    path = small_graph(tmp_path / "five.onnx", window=5)
    video = numbered_clip(tmp_path / "v.mp4", 3)
    done = calibrate(path, "--clips", video, "-o", tmp_path / "x.onnx")
    assert isinstance(done.exception, SalstreamError)
    assert "no clip is long enough: a window has 5 frames" in str(done.exception)
    assert not (tmp_path / "x.onnx").exists()
