"""`salstream evaluate`: scores that can be worked out by hand, and whole runs."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

import trees
from reference import data
from salstream.runtime import SaliencyModel, SalstreamError, UsageError
from salstream.runtime.cli import load_commands
from salstream.training.data.prepare import Options, prepare_dataset
from salstream.training.data.recordings import gaussian_density
from salstream.training.evaluation.checkpoint import open_checkpoint
from salstream.training.evaluation.entrants import CentreBias, Chance, Entry, Model, Observers
from salstream.training.evaluation.evaluate import METRICS, Evaluation, Result, evaluate
from salstream.training.evaluation.evaluate import SceneScores as Scores
from salstream.training.evaluation.report import write_html
from salstream.training.evaluation.scenes import Scene, open_scenes
from salstream.training.metrics import auc_judd, cc, kld, nss, s_auc, sim


class Oracle:
    """Knows the truth."""

    name = "oracle"
    about = "the density map itself"
    model = True

    def enter(self, scene: Scene, indices: Sequence[int] | None, every: int) -> Iterator[Entry]:
        for index, frame in enumerate(scene.frames()):
            if index % every == 0:
                truth = scene.truth(index)
                yield Entry(index, truth.density, truth, frame)


def result_of(evaluation: Evaluation, name: str) -> Result:
    return next(result for result in evaluation.results if result.name == name)


def test_an_oracle_is_perfect_and_chance_is_chance(tmp_path: Path) -> None:
    trees.remega(tmp_path, videos=5, frames=6)
    scenes = open_scenes("remega", tmp_path, "all")
    evaluation = evaluate(scenes, "all", [Oracle(), Chance(), CentreBias(scenes.training)])
    oracle = dict(zip(METRICS, result_of(evaluation, "oracle").per_video()[:, 0], strict=True))
    assert oracle["cc"] == pytest.approx(1)
    assert oracle["sim"] == pytest.approx(1)
    assert oracle["kld"] == pytest.approx(0, abs=1e-6)
    assert oracle["auc_judd"] > 0.999
    chance = dict(zip(METRICS, result_of(evaluation, "chance").per_video()[:, 0], strict=True))
    assert (chance["nss"], chance["cc"], chance["auc_judd"], chance["s_auc"]) == (0, 0, 0.5, 0.5)
    # everybody looks at the same places in all videos, so the other videos know where
    centre = result_of(evaluation, "centre bias").per_video()[:, 0]
    assert 0.5 < centre[0] < oracle["nss"]


def test_the_frames_scored_are_every_nth_of_those_with_fixations(tmp_path: Path) -> None:
    trees.remega(tmp_path, videos=2, frames=10)
    rows = list(csv.reader((tmp_path / "fixations.csv").open()))
    late = [row for row in rows[1:] if row[0] == "a" and float(row[2]) > 130]
    trees.table(tmp_path / "fixations.csv", rows[0], [r for r in rows[1:] if r not in late])
    scenes = open_scenes("remega", tmp_path, "all")
    evaluation = evaluate(scenes, "all", [Oracle(), Chance()], every=3)
    for result in evaluation.results:
        a, b = result.scenes
        assert (a.frames, a.nobody) == ([0, 3], 2)
        assert (b.frames, b.nobody) == ([0, 3, 6, 9], 0)


def test_a_streamed_model_scores_what_its_maps_score(tmp_path: Path) -> None:
    """The loop against the runtime's own stream and the metrics, frame by frame, by hand."""
    real = data("remega")
    (tmp_path / "videos").mkdir()
    video = tmp_path / "videos" / "RaceHorsesD.avi"
    video.symlink_to(real / "videos" / video.name)
    kept = [
        line
        for line in (real / "fixations.csv").read_text().splitlines()
        if line.split(",")[0] in ("video", "RaceHorsesD")
    ]
    (tmp_path / "fixations.csv").write_text("\n".join(kept))
    scenes = open_scenes("remega", tmp_path, "all")
    model = SaliencyModel.open("unisal-dhf1k", threads=1)
    evaluation = evaluate(scenes, "all", [Model("unisal", model)], every=60)
    (scores,) = evaluation.results[0].scenes
    assert scores.scene == "RaceHorsesD"
    assert scores.frames == list(range(0, 300, 60))
    shown = 60
    table = np.array([line.split(",")[1:] for line in kept[1:]], float)
    now = shown * 1000 / 30
    looking = table[(table[:, 1] <= now) & (now < table[:, 1] + table[:, 2])]
    # one point for each person, whose fixations may overlap: the one that began last
    latest = {row[0]: row for row in looking[np.argsort(looking[:, 1])]}
    assert len(latest) < len(looking)
    points = np.floor([row[[4, 3]] for row in latest.values()]).astype(int)
    density = gaussian_density(points, (240, 416), (240, 416), 0.035)
    with model.stream(video) as stream:
        saliency = next(result.saliency for result in stream if result.index == shown)
    by_hand = [nss(saliency, points), cc(saliency, density), sim(saliency, density)]
    by_hand += [kld(saliency, density), auc_judd(saliency, points)]
    got = scores.values[scores.frames.index(shown)]
    assert got[:5] == pytest.approx(by_hand, abs=1e-6)
    assert np.isnan(got[5])  # there is no other video to shuffle with


def test_s_auc_shuffles_with_the_other_recordings(tmp_path: Path) -> None:
    trees.osie(tmp_path, images=3)
    scenes = open_scenes("osie", tmp_path, "all")
    evaluation = evaluate(scenes, "all", [Oracle()])
    for number, scores in enumerate(evaluation.results[0].scenes):
        scene = scenes.scored[number]
        others = np.array([trees.place(other) for other in range(3) if other != number])
        wanted = s_auc(scene.truth(0).density, scene.points(0)[:, 1:], others)
        assert scores.values[0, 5] == pytest.approx(wanted)


def test_observers_are_scored_against_the_others(tmp_path: Path) -> None:
    """Two agree, one looks elsewhere: what can be left out decides the score."""
    trees.image(tmp_path / "images/1.png", 1)
    trees.image(tmp_path / "images/2.png", 2)
    rows = [("1.png", 1, 20, 20), ("1.png", 2, 20, 20), ("2.png", 1, 20, 20), ("2.png", 2, 99, 80)]
    trees.table(tmp_path / "fixations.csv", ("image", "subject", "x", "y"), rows)
    scenes = open_scenes("osie", tmp_path, "all")
    for one in (False, True):
        entrant = Observers(one=one, sigma=0.035)
        agree, disagree = (list(entrant.enter(scene, [0], 1)) for scene in scenes.scored)
        assert nss(agree[0].saliency, agree[0].truth.points[:, 1:]) > 5
        assert nss(disagree[0].saliency, disagree[0].truth.points[:, 1:]) < 0
        assert agree[0].densities != one


def test_the_centre_bias_never_sees_the_scored_recording(tmp_path: Path) -> None:
    trees.osie(tmp_path, images=4)
    scenes = open_scenes("osie", tmp_path, "all")
    bias = CentreBias(scenes.training)
    for scene in scenes.training:
        others = [other for other in scenes.training if other is not scene]
        (entry,) = bias.enter(scene, [0], 1)
        (alone,) = CentreBias(others).enter(scene, [0], 1)
        assert entry.saliency == pytest.approx(alone.saliency, abs=1e-5)


def test_a_prepared_dataset_is_scored_at_the_native_resolution(tmp_path: Path) -> None:
    trees.remega(tmp_path / "raw", videos=5)
    trees.dhf1k_unisal(tmp_path / "raw2")
    prepare_dataset("remega", tmp_path / "raw", tmp_path / "packed", Options(size=(48, 64)))
    prepare_dataset("dhf1k", tmp_path / "raw2", tmp_path / "packed2", Options(size=(48, 64)))
    raw, packed = (open_scenes("remega", tmp_path / name, "all") for name in ("raw", "packed"))
    for a, b in zip(raw.scored, packed.scored, strict=True):
        assert (a.name, a.split, a.fps, a.count, a.size) == (
            b.name,
            b.split,
            b.fps,
            b.count,
            b.size,
        )
        assert np.array_equal(a.truth(2).density, b.truth(2).density)
        assert np.array_equal(a.points(2), b.points(2))
        assert a.observers
        assert b.observers
    given = open_scenes("dhf1k", tmp_path / "packed2", "val").scored[0]
    original = open_scenes("dhf1k", tmp_path / "raw2", "val").scored[0]
    assert cc(given.truth(1).density, original.truth(1).density) > 0.97
    assert not given.observers


def test_frames_and_annotation_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    trees.dhf1k_unisal(tmp_path)
    for number in (5, 6):
        (tmp_path / f"annotation/0601/maps/{number:04d}.png").unlink()
    scenes = open_scenes("dhf1k", tmp_path, "val")
    model = Model("m", SaliencyModel.open("unisal-dhf1k", threads=1))
    with pytest.raises(SalstreamError, match="0601 has 6 frames, but 4 maps"):
        evaluate(scenes, "val", [model])


def test_means_over_recordings_and_over_frames() -> None:
    values = [np.array([[1.0] * 6, [3.0] * 6]), np.array([[8.0] * 6] * 8), np.full((1, 6), np.nan)]
    scenes = [Scores(name, "test", [], value) for name, value in zip("abc", values, strict=True)]
    result = Result("m", "", True, scenes)
    assert result.per_video()[:, 0] == pytest.approx([5] * 6)
    assert result.per_frame()[:, 0] == pytest.approx([6.8] * 6)
    low, high = result.per_video()[0, 1:]
    assert (low, high) == (2, 8)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        scenes = [
            Scores(str(n), "test", [], np.full((3, 6), value))
            for n, value in enumerate(rng.normal(2, 1, 30))
        ]
        _, low, high = Result("m", "", True, scenes).per_video()[0]
        inside += low <= 2 <= high
    assert 178 <= inside <= 199  # 95 % of 200, and what chance and 30 recordings allow


def test_a_checkpoint_scores_as_its_graph_does(unisal_checkpoint: Path, tmp_path: Path) -> None:
    """PyTorch behind the runtime's predictor, and the exported graph: the same maps."""
    trees.remega(tmp_path, videos=2, frames=6)
    scenes = open_scenes("remega", tmp_path, "all")
    models = [
        Model("graph", SaliencyModel.open("unisal-dhf1k", threads=1)),
        Model("checkpoint", open_checkpoint(unisal_checkpoint)),
    ]
    evaluation = evaluate(scenes, "all", models, every=2)
    graph, checkpoint = evaluation.results
    for a, b in zip(graph.scenes, checkpoint.scenes, strict=True):
        assert a.values == pytest.approx(b.values, abs=2e-3, nan_ok=True)
    with pytest.raises(UsageError, match="no domain 'salcon'; known: dhf1k"):
        open_checkpoint(unisal_checkpoint, network="unisal", domain="salcon")
    assert (
        open_checkpoint(unisal_checkpoint, network="unisal", static=True).spec.domain == "salicon"
    )


def test_the_command_line(tmp_path: Path) -> None:
    trees.osie(tmp_path / "raw", images=8)
    app, runner = load_commands(), CliRunner()
    source = ["--data", f"osie={tmp_path / 'raw'}", "--threads", "1"]
    outputs = [tmp_path / "out" / name for name in ("a.json", "a.csv", "a.html")]
    options = [f"--{path.suffix[1:]}={path}" for path in outputs]
    done = runner.invoke(app, ["evaluate", "unisal-dhf1k", *source, "--split", "all", *options])
    assert done.exit_code == 0, done.output
    assert "observers" in done.output
    numbers = json.loads(outputs[0].read_text())
    names = ["unisal-dhf1k", "centre bias", "chance", "observers, half", "observers, one"]
    assert [entrant["name"] for entrant in numbers["entrants"]] == names
    model = numbers["entrants"][0]
    rows = [row for row in csv.DictReader(outputs[1].open()) if row["entrant"] == "unisal-dhf1k"]
    assert len(rows) == 8
    mean = np.mean([float(row["nss"]) for row in rows])
    assert model["per_video"]["nss"]["mean"] == pytest.approx(mean, abs=1e-4)
    assert model["per_video"]["nss"]["low"] <= mean <= model["per_video"]["nss"]["high"]
    page = outputs[2].read_text()
    assert page.count("<img") == 3 * 8
    assert "http" not in page
    again = runner.invoke(
        app, ["evaluate", "unisal-dhf1k", *source, "--split", "all", "--json", "-"]
    )
    assert json.loads(again.stdout) == numbers

    for arguments, said in (
        (["--data", "osie"], "NAME=PATH"),
        (["--data", f"dhf1k={tmp_path / 'raw'}"], "nothing of dhf1k"),
        ([*source, "--split", "valid"], "known: train, val, test, all"),
        ([*source, "--domain", "foo"], "are for checkpoints"),
    ):
        failed = runner.invoke(app, ["evaluate", "unisal-dhf1k", *arguments])
        assert isinstance(failed.exception, UsageError)
        assert said in str(failed.exception)


def test_a_dataset_without_annotation_cannot_be_scored(tmp_path: Path) -> None:
    trees.dhf1k_downloaded(tmp_path)
    with pytest.raises(UsageError, match="no annotated recordings in the split test"):
        open_scenes("dhf1k", tmp_path, "test")


def test_the_page_shows_the_map_beside_the_truth(tmp_path: Path) -> None:
    trees.osie(tmp_path / "raw", images=2)
    scenes = open_scenes("osie", tmp_path / "raw", "all")
    evaluation = evaluate(scenes, "all", [Oracle()])
    frame, truth = evaluation.truths["1001.jpg"]
    assert np.array_equal(evaluation.results[0].pictures["1001.jpg"], truth)
    coloured = np.abs(truth.astype(int) - frame).sum(2)
    peak = np.unravel_index(cv2.blur(coloured.astype(np.float32), (9, 9)).argmax(), coloured.shape)
    y, x = (coordinate * 320 / 128 for coordinate in trees.place(0))
    assert abs(peak[0] - y) < 12
    assert abs(peak[1] - x) < 12
    shutil.rmtree(tmp_path / "raw")
    write_html(evaluation, tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size > 10_000
