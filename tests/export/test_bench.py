"""`salstream bench`: every library in one table; the figures themselves are nobody's promise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from clips import clip
from graphs import small_graph
from salstream.export.bench import Score, percentiles
from salstream.runtime import SalstreamError, UsageError
from salstream.runtime.cli import load_commands


def bench(*arguments: object) -> Result:
    options = ["--rounds", 1, "--frames", 5]
    return CliRunner().invoke(load_commands(), ["bench", *map(str, [*arguments, *options])])


def test_every_library_and_pytorch_in_one_run(unisal_checkpoint: Path) -> None:
    pytest.importorskip("openvino")
    done = bench("unisal-dhf1k", "--source", clip("bikes.mp4"), "--against", "torch",
                 "--checkpoint", unisal_checkpoint, "--json")  # fmt: skip
    assert done.exit_code == 0, (done.output, done.exception)
    content = json.loads(done.stdout)
    assert (content["source"], content["frame_size"]) == ("bikes.mp4", [272, 640])
    scores = content["scores"]
    assert scores[0]["library"].startswith("torch-")
    assert scores[0]["ratio"] == 1
    assert scores[0]["stream_fps"] is None
    assert {"onnxruntime-cpu", "openvino-cpu"} <= {score["library"] for score in scores}
    for score in scores:
        for figures in (score["graph_ms"], score["frame_to_map_ms"]):
            assert 0 < figures["p50"] <= figures["p95"] <= figures["p99"]
    assert all(score["stream_fps"] > 0 for score in scores[1:])


def test_ratios_are_medians_of_the_rounds_ratios() -> None:
    """A machine that was three times as slow for a round changes nothing."""
    first = Score(None, 0.0, [[10.0], [30.0], [10.0]], [[1.0]])  # type: ignore[arg-type]
    second = Score(None, 0.0, [[5.0], [15.0], [5.0]], [[1.0]])  # type: ignore[arg-type]
    assert (second.ratio_to(first), first.ratio_to(second)) == (2, 0.5)
    assert percentiles([[1, 2], [3]]) == {"p50": 2, "p95": 2.9, "p99": 2.98}


def test_what_does_not_open_is_left_out_and_named(tmp_path: Path) -> None:
    """A damaged engine beside a good graph; alone it is an error."""
    graph = small_graph(tmp_path / "small.onnx")
    engine = tmp_path / "damaged.engine"
    engine.write_bytes(b"nothing")
    done = bench(graph, engine, "--backend", "onnxruntime:cpu", "tensorrt")
    assert done.exit_code == 0, (done.output, done.exception)
    assert f"left out: {engine} on tensorrt: {engine}" in done.stderr
    assert "small.onnx" in done.stdout
    alone = bench(engine)
    assert isinstance(alone.exception, SalstreamError)
    assert "nothing could be measured" in str(alone.exception)


def test_files_of_the_same_name_are_two(tmp_path: Path) -> None:
    paths = [tmp_path / name / "m.onnx" for name in "ab"]
    for path in paths:
        path.parent.mkdir()
        small_graph(path)
    done = bench(*paths, "--backend", "onnxruntime:cpu", "--json")
    assert len(json.loads(done.stdout)["scores"]) == 2


def test_one_network_at_a_time_against_pytorch(unisal_checkpoint: Path, tmp_path: Path) -> None:
    other = small_graph(tmp_path / "small.onnx")
    done = bench("unisal-dhf1k", other, "--against", "torch", "--checkpoint", unisal_checkpoint)
    assert isinstance(done.exception, UsageError)
    assert "is another network than" in str(done.exception)


def test_ratios_to_pytorch_are_never_to_something_else(
    unisal_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise SalstreamError("out of memory")

    monkeypatch.setattr("salstream.export.bench.PyTorch.graph", fails)
    done = bench(
        "unisal-dhf1k", "--backend", "onnxruntime:cpu", "--rounds", "1",
        "--against", "torch", "--checkpoint", unisal_checkpoint,
    )  # fmt: skip
    assert isinstance(done.exception, SalstreamError)
    assert "the ratios are to PyTorch" in str(done.exception)


def test_refusals() -> None:
    cases: list[tuple[list[str], str]] = [
        (["nonesuch"], "unknown model"),
        (["unisal-dhf1k", "--backend", "abacus"], "unknown backend 'abacus'"),
        (["unisal-dhf1k", "--against", "tensorflow"], "expected torch"),
        (["unisal-dhf1k", "--against", "torch"], "belong together"),
    ]
    for arguments, sentence in cases:
        done = bench(*arguments)
        assert isinstance(done.exception, UsageError), done.output
        assert sentence in str(done.exception)
