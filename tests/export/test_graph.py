"""Exported graphs against PyTorch, streamed as users stream them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from clips import clip
from reference import data
from salstream.export.deployable import Deployable, Expected, Options, load
from salstream.export.graph import export_graph, given_frames, made_frames
from salstream.runtime import SaliencyModel, SalstreamError
from salstream.runtime.preprocess import prepare
from salstream.runtime.sources import open_source
from salstream.training.unisal import DOMAINS


@pytest.fixture(scope="module")
def dhf1k(unisal_checkpoint: Path) -> Deployable:
    return load(unisal_checkpoint, "unisal", "dhf1k")


@pytest.mark.slow
@pytest.mark.parametrize("domain", DOMAINS)
def test_every_domain_equals_pytorch_on_a_real_clip(
    unisal_checkpoint: Path, domain: str, tmp_path: Path
) -> None:
    deployable = load(unisal_checkpoint, "unisal", domain)
    frames, _ = given_frames(str(clip("bikes.mp4")), deployable.spec)
    path = tmp_path / "graph.onnx"
    spec = export_graph(deployable, path, frames, "bikes.mp4")
    assert spec.verification["max_abs"] < 1e-4
    assert spec.verification["frames"] == len(frames) == 12
    assert [p.name for p in tmp_path.iterdir()] == ["graph.onnx"]

    model = SaliencyModel.open(path)
    assert model.spec == spec
    assert model.spec.size == DOMAINS[domain].size
    assert model.backend.recurrent != DOMAINS[domain].static
    (result,) = model.predictor().push(np.zeros((90, 120, 3), np.uint8))
    assert result.map.shape == spec.size
    assert result.map.max() == 1
    assert result.map.min() >= 0


@pytest.mark.slow
def test_another_size(unisal_checkpoint: Path, tmp_path: Path) -> None:
    deployable = load(unisal_checkpoint, "unisal", "ucfsports", Options(size=(96, 160)))
    spec = export_graph(deployable, tmp_path / "g.onnx", made_frames(deployable.spec), "made up")
    assert spec.size == (96, 160)


def test_a_batch_is_its_streams_side_by_side() -> None:
    """Three streams in one call, states of their own, equal three calls."""
    backend = SaliencyModel.open("unisal-dhf1k").backend
    frames = made_frames(backend.spec, 6).reshape(2, 3, 1, *backend.spec.size, 3)
    states = [backend.run(frames[0, n : n + 1], None).state for n in range(3)]
    together = backend.run(frames[0], None)
    together = backend.run(frames[1], together.state)
    for n in range(3):
        alone = backend.run(frames[1, n : n + 1], states[n])
        np.testing.assert_allclose(together.saliency[n], alone.saliency[0], rtol=0, atol=1e-5)


def test_a_graph_says_nothing_of_the_machine_that_made_it() -> None:
    path = SaliencyModel.open("unisal-dhf1k").path
    assert str(Path.home()).encode() not in path.read_bytes()
    assert b".py" not in path.read_bytes()
    graph = onnx.load(path)
    onnx.checker.check_model(graph)
    assert graph.opset_import[0].version == 18
    batch = graph.graph.input[0].type.tensor_type.shape.dim[0]
    assert batch.dim_param


def test_a_graph_that_is_off_is_not_written(dhf1k: Deployable, tmp_path: Path) -> None:
    wrong = dataclasses.replace(
        dhf1k, reference=lambda frames: Expected(dhf1k.reference(frames).maps + 0.001)
    )
    with pytest.raises(SalstreamError, match=r"differs from PyTorch.*1\.0e-03"):
        export_graph(wrong, tmp_path / "g.onnx", made_frames(dhf1k.spec, 2), "made up")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_refused(unisal_checkpoint: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (("hal9000", "dhf1k"), "unknown model 'hal9000'; known: unisal, hd2s"),
        (("unisal", "youtube"), "no domain 'youtube'; known: dhf1k, hollywood"),
        (("unisal", "dhf1k", Options(size=(100, 384))), "cannot take 100x384.*multiples of 32"),
        (("unisal", None), "unisal needs a domain: dhf1k, hollywood"),
        (("unisal", "dhf1k", Options(smoothing=7)), "unisal has no options for smoothing"),
        (("s3d",), "s3d gives no saliency maps"),
        (("hd2s", "dhf1k"), "hd2s has no domain 'dhf1k'; leave it out"),
        (("hd2s",), "does not fit hd2s: .* missing .*; it is a checkpoint of unisal"),
    ):
        with pytest.raises(SalstreamError, match=message):
            load(unisal_checkpoint, *arguments)
    other = tmp_path / "other.pth"
    torch.save({"layer.weight": torch.zeros(2, 2)}, other)
    with pytest.raises(SalstreamError):
        load(other, "unisal", "dhf1k")


def test_the_bundled_model_is_what_the_export_command_makes(
    dhf1k: Deployable, tmp_path: Path
) -> None:
    bundled = SaliencyModel.open("unisal-dhf1k")
    assert bundled.path.stat().st_size <= 16_000_000
    frames, _ = given_frames(str(clip("bikes.mp4")), dhf1k.spec)
    again = tmp_path / "again.onnx"
    export_graph(dhf1k, again, frames, "bikes.mp4")
    assert again.stat().st_size == pytest.approx(bundled.path.stat().st_size, rel=0.01)

    def maps(model: SaliencyModel) -> np.ndarray:
        predictor = model.predictor(phases=1)
        return np.stack([r.map for f in frames for r in predictor.push(f, prepared=f)])

    remade = SaliencyModel.open(again)
    np.testing.assert_allclose(maps(remade), maps(bundled), rtol=0, atol=1e-5)
    measured = ("verification",)  # rounding differs between processors
    ours, theirs = dataclasses.asdict(remade.spec), dataclasses.asdict(bundled.spec)
    assert {k: v for k, v in ours.items() if k not in measured} == {
        k: v for k, v in theirs.items() if k not in measured
    }
    assert theirs["license"] == "Apache-2.0"
    assert theirs["verification"]["max_abs"] < 1e-4


def test_twenty_frames_streamed_equal_pytorch(dhf1k: Deployable) -> None:
    """A real video through the whole runtime, stride 1, one phase."""
    video = data("remega/videos/BlowingBubbles.avi")
    model = SaliencyModel.open("unisal-dhf1k")
    stream = model.stream(video, stride=1, phases=1, limit=20)
    actual = np.stack([result.map for result in stream])
    with open_source(video) as source:
        frames = np.stack(
            [prepare(frame, model.spec) for frame, _ in zip(source, range(20), strict=False)]
        )
    np.testing.assert_allclose(actual, dhf1k.reference(frames).maps, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_resizing_costs_no_accuracy() -> None:
    """1920×1080 clips: our resizing against the published one (Lanczos with antialiasing)."""
    image_module = pytest.importorskip("PIL.Image")
    model = SaliencyModel.open("unisal-dhf1k")
    height, width = model.spec.size
    means = {}
    for name in ("ParkScene", "BQTerrace", "BasketballDrive", "Yan", "Male", "Lee"):
        ours, published = model.predictor(), model.predictor()
        correlations = []
        with open_source(data(f"remega/videos/{name}.avi")) as source:
            for frame, _ in zip(source, range(30), strict=False):
                (actual,) = ours.push(frame)
                rgb = np.ascontiguousarray(frame.image[..., ::-1])
                lanczos = image_module.fromarray(rgb).resize((width, height), image_module.LANCZOS)
                (expected,) = published.push(frame, prepared=np.asarray(lanczos))
                correlations.append(np.corrcoef(actual.map.ravel(), expected.map.ravel())[0, 1])
        means[name] = float(np.mean(correlations))
    assert np.mean(list(means.values())) >= 0.995, means
    assert min(means.values()) >= 0.99, means
