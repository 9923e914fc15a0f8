"""`salstream verify`: real clips, the published weights, artefacts that are right and wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from typer.testing import CliRunner, Result

from clips import clip, numbered_clip
from reference import data
from salstream.export.deployable import load
from salstream.export.graph import given_frames
from salstream.export.limits import fault
from salstream.export.precision import to_fp16
from salstream.export.verify import reference_maps
from salstream.runtime import SaliencyModel, SalstreamError, UsageError
from salstream.runtime.cli import load_commands
from salstream.runtime.model import find_model
from salstream.training.unisal import Unisal

BUNDLED = find_model("unisal-dhf1k")


def verify(*arguments: object) -> Result:
    return CliRunner().invoke(load_commands(), ["verify", *map(str, arguments)])


def written(graph: onnx.ModelProto, path: Path, precision: str = "fp32") -> Path:
    """Write a graph that says it is of a precision."""
    for entry in graph.metadata_props:
        if entry.key == "salstream.precision":
            entry.value = precision
    path.write_bytes(graph.SerializeToString())
    return path


def spoilt(path: Path) -> Path:
    """Write the bundled graph with one layer's weights a little off."""
    graph = onnx.load(BUNDLED)
    weight = next(t for t in graph.graph.initializer if t.name == "post_rnn.0.weight")
    values = numpy_helper.to_array(weight) * 1.01
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    return written(graph, path)


def test_good_artefacts_pass_and_say_so(unisal_checkpoint: Path, tmp_path: Path) -> None:
    """fp32 and fp16 over two clips: table, page, figures by frame, and the metadata."""
    graph = Path(shutil.copy(BUNDLED, tmp_path / "float.onnx"))
    half = written(to_fp16(onnx.load(BUNDLED)), tmp_path / "half.onnx", "fp16")
    report, page = tmp_path / "report.json", tmp_path / "page.html"
    clips = [clip("bikes.mp4"), clip("carphone_pristine.mp4")]
    done = verify(graph, half, "--checkpoint", unisal_checkpoint, "--clips", *clips, "--frames", 7,
                  "--json-file", report, "--html", page)  # fmt: skip
    assert done.exit_code == 0, (done.output, done.exception)
    assert done.output.count("passed") == 2
    content = json.loads(report.read_text())
    assert content["passed"]
    first, second = content["artefacts"]
    assert (first["frames"], first["clips"], first["precision"]) == (14, 2, "fp32")
    assert first["max_abs"] < 1e-4 < second["max_abs"]
    assert 0.9995 < second["min_cc"] <= second["mean_cc"] < 1
    rows = first["by_frame"]
    assert [(row["clip"], row["frame"]) for row in rows] == [
        (path.name, frame) for path in clips for frame in range(7)
    ]
    assert max(row["max_abs"] for row in rows) == pytest.approx(first["max_abs"], rel=0.01)
    html = page.read_text()
    assert html.count("<img") == 2 * 4 * 4
    assert "http" not in html
    shown = CliRunner().invoke(load_commands(), ["info", str(half), "--json"])
    told = json.loads(shown.output)["verification"]
    assert told["passed"]
    assert told["frames"] == 14
    assert told["min_cc"] == second["min_cc"]


def test_an_artefact_that_is_wrong_fails_and_the_others_are_still_told(
    unisal_checkpoint: Path, tmp_path: Path
) -> None:
    wrong = spoilt(tmp_path / "wrong.onnx")
    before = BUNDLED.read_bytes()
    options = ["--checkpoint", unisal_checkpoint, "--clips", clip("bikes.mp4"), "--frames", 6]
    done = verify(wrong, "unisal-dhf1k", *options, "--json")
    assert done.exit_code == 1
    content = json.loads(done.stdout)
    assert not content["passed"]
    assert [artefact["passed"] for artefact in content["artefacts"]] == [False, True]
    assert "the largest difference of a map is" in content["artefacts"][0]["fault"]
    assert not SaliencyModel.open(wrong).spec.verification["passed"]
    assert BUNDLED.read_bytes() == before  # the package's own files are not changed
    kept = wrong.read_bytes()
    assert verify(wrong, *options, "--no-record").exit_code == 1
    assert wrong.read_bytes() == kept


def test_an_artefact_without_finite_maps_fails_alone(
    unisal_checkpoint: Path, tmp_path: Path
) -> None:
    """As float16 may give where it is too small."""
    graph = onnx.load(BUNDLED)
    weight = next(t for t in graph.graph.initializer if t.name == "smoothing.weight")
    values = numpy_helper.to_array(weight) * np.float32(np.nan)
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    infinite = written(graph, tmp_path / "infinite.onnx")
    report, page = tmp_path / "r.json", tmp_path / "r.html"
    done = verify(infinite, "unisal-dhf1k", "--checkpoint", unisal_checkpoint,
                  "--clips", clip("bikes.mp4"), "--frames", 2, "--json-file", report,
                  "--html", page)  # fmt: skip
    assert done.exit_code == 1, (done.output, done.exception)
    first, second = json.loads(report.read_text())["artefacts"]
    assert (first["passed"], first["frames"]) == (False, 0)
    assert "not finite" in first["fault"]
    assert (second["passed"], second["frames"]) == (True, 2)
    assert "not finite" in page.read_text()


def test_fixations_tell_what_is_lost_of_the_agreement_with_people(
    unisal_checkpoint: Path, tmp_path: Path
) -> None:
    """remega's BlowingBubbles: PyTorch's maps agree with 32 people, and the graph's as well."""
    remega = data("remega")
    video = remega / "videos" / "BlowingBubbles.avi"
    graph = Path(shutil.copy(BUNDLED, tmp_path / "graph.onnx"))
    options = ["--checkpoint", unisal_checkpoint, "--clips", video,
               "--frames", 12, "--fixations", f"remega={remega}", "--json"]  # fmt: skip
    done = verify(graph, *options)
    assert done.exit_code == 0, (done.output, done.exception)
    figures = json.loads(done.stdout)["artefacts"][0]
    assert 0 < figures["fixated_frames"] <= 12
    assert figures["nss_reference"] > 0.5
    assert figures["auc_judd_reference"] > 0.7
    assert abs(figures["nss_change"]) < 1e-3
    refused = verify(graph, "--checkpoint", unisal_checkpoint, "--clips", clip("bikes.mp4"),
                     "--fixations", f"remega={remega}")  # fmt: skip
    assert isinstance(refused.exception, UsageError)
    assert "none of the clips has fixations" in str(refused.exception)


def test_phases_have_states_of_their_own(unisal_checkpoint: Path) -> None:
    """Read in two phases, the even frames are what they are alone."""
    deployable = load(unisal_checkpoint, "unisal", "dhf1k")
    frames, _ = given_frames(str(clip("bikes.mp4")), deployable.spec, 5)
    both = reference_maps(deployable, frames, 2).maps
    np.testing.assert_array_equal(both[::2], deployable.reference(frames[::2]).maps)
    np.testing.assert_array_equal(both[1::2], deployable.reference(frames[1::2]).maps)
    assert np.abs(both - reference_maps(deployable, frames, 1).maps).max() > 1e-3


def test_reports_are_not_written_over_what_is_read(unisal_checkpoint: Path, tmp_path: Path) -> None:
    graph = Path(shutil.copy(BUNDLED, tmp_path / "graph.onnx"))
    video = numbered_clip(tmp_path / "v.mp4", 3)
    before = graph.read_bytes(), video.read_bytes()
    options = ["--checkpoint", unisal_checkpoint, "--clips", video]
    for report in (["--html", graph], ["--json-file", video], ["--html", unisal_checkpoint],
                   ["--html", tmp_path / "r", "--json-file", tmp_path / "r"]):  # fmt: skip
        done = verify(graph, *options, *report)
        assert isinstance(done.exception, UsageError)
        assert "would be written over" in str(done.exception)
    assert (graph.read_bytes(), video.read_bytes()) == before


def test_refusals(unisal_checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    torch.save(Unisal().state_dict(), other)
    video = clip("bikes.mp4")
    cases: list[tuple[list[Any], str]] = [
        (["--checkpoint", other, "--clips", video], "was not made from"),
        (["--checkpoint", unisal_checkpoint, "--clips", tmp_path / "x.mp4"], "no video or folder"),
        (
            ["--checkpoint", unisal_checkpoint, "--clips", video, "--fixations", "remega"],
            "expected DATASET=PATH",
        ),
        (
            ["--checkpoint", unisal_checkpoint, "--clips", video, "--backend", "abacus"],
            "unknown backend 'abacus'",
        ),
    ]
    for arguments, sentence in cases:
        done = verify("unisal-dhf1k", *arguments)
        assert isinstance(done.exception, SalstreamError), done.output
        assert sentence in str(done.exception)


@pytest.mark.parametrize(
    ("precision", "figures", "passes"),
    [
        ("fp32", {"max_abs": 9e-5, "min_cc": 0.0, "mean_cc": 0.0}, True),
        ("fp32", {"max_abs": 1.1e-4, "min_cc": 1.0, "mean_cc": 1.0}, False),
        ("fp32", {"max_abs": float("nan"), "min_cc": 1.0, "mean_cc": 1.0}, False),
        ("fp32", {"max_abs": 0, "conspicuity_max_abs": 1e-3, "min_cc": 1, "mean_cc": 1}, False),
        ("fp16", {"max_abs": 0.1, "min_cc": 0.9995, "mean_cc": 1.0}, True),
        ("fp16", {"max_abs": 0.0, "min_cc": 0.9994, "mean_cc": 1.0}, False),
        ("int8", {"max_abs": 0.9, "min_cc": 0.5, "mean_cc": 0.98}, True),
        ("int8", {"max_abs": 0.0, "min_cc": 1.0, "mean_cc": 0.979}, False),
        ("int8", {"max_abs": 0.0, "min_cc": 1.0, "mean_cc": float("nan")}, False),
    ],
)
def test_limits_of_each_precision(precision: str, figures: dict[str, float], passes: bool) -> None:
    assert (fault(precision, figures) == "") == passes
