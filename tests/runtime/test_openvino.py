"""OpenVINO: which graphs, devices and precisions, and when it is the default."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest

from clips import clip
from graphs import SIZE, small_graph
from salstream.runtime import SaliencyModel, SalstreamError, UsageError, backends

pytest.importorskip("openvino")

BUNDLED = "unisal-dhf1k"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_clip_gives_the_maps_that_onnxruntime_gives() -> None:
    """The recurrent state goes on from run to run, in four phases."""
    maps = [
        np.stack([r.map for r in SaliencyModel.open(BUNDLED, backend=b).stream(video, limit=12)])
        for b in ("openvino", "onnxruntime:cpu")
        for video in [clip("bikes.mp4")]
    ]
    np.testing.assert_allclose(maps[0], maps[1], rtol=0, atol=1e-4)


def test_a_batch_is_as_its_parts() -> None:
    backend = SaliencyModel.open(BUNDLED, backend="openvino").backend
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 1, 224, 384, 3), dtype=np.uint8)
    together = backend.run(frames, None)
    for number in range(3):
        alone = backend.run(frames[number : number + 1], None)
        np.testing.assert_allclose(together.saliency[number], alone.saliency[0], atol=1e-5)
        np.testing.assert_allclose(
            together.state["state_gru"][number], alone.state["state_gru"][0], atol=1e-5
        )


def test_outputs_stay_when_the_graph_runs_again() -> None:
    backend = SaliencyModel.open(BUNDLED, backend="openvino").backend
    first = backend.run(np.zeros((1, 1, 224, 384, 3), np.uint8), None)
    kept = first.saliency.copy(), first.state["state_gru"].copy()
    backend.run(np.full((1, 1, 224, 384, 3), 255, np.uint8), first.state)
    np.testing.assert_array_equal(first.saliency, kept[0])
    np.testing.assert_array_equal(first.state["state_gru"], kept[1])


def test_threads_share_a_graph(tmp_path: Path) -> None:
    """Four threads, each with frames of its own: nobody gets another's map."""
    backend = SaliencyModel.open(small_graph(tmp_path / "x.onnx"), backend="openvino").backend
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (4, 1, 1, *SIZE, 3), dtype=np.uint8)
    expected = [backend.run(one, None).saliency for one in frames]

    def work(number: int) -> bool:
        return all(
            np.array_equal(backend.run(frames[number], None).saliency, expected[number])
            for _ in range(200)
        )

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, range(4)))


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    path = small_graph(tmp_path / "small.onnx")
    output = SaliencyModel.open(path, backend="openvino").backend.run(
        np.zeros((1, 1, *SIZE, 3), np.uint8), None
    )
    assert output.saliency.max() == 1


def test_devices_and_precisions() -> None:
    assert SaliencyModel.open(BUNDLED, backend="openvino:cpu").backend.name == "openvino-cpu"
    named = SaliencyModel.open(BUNDLED, backend="openvino:CPU:bf16", threads=1).backend
    assert named.name == "openvino-cpu-bf16"
    with pytest.raises(UsageError, match=r"no device ABACUS; it finds: .*CPU"):
        SaliencyModel.open(BUNDLED, backend="openvino:ABACUS")
    with pytest.raises(UsageError, match="unknown precision 'f8'; known: f32, f16, bf16"):
        SaliencyModel.open(BUNDLED, backend="openvino:CPU:f8")


def test_files_that_are_no_graph_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(b"nothing")
    with pytest.raises(SalstreamError, match="damaged or no ONNX graph"):
        SaliencyModel.open(path, backend="openvino")
    graph = onnx.load(small_graph(path))
    for entry in graph.metadata_props:
        if entry.key == "salstream.height":
            entry.value = "64"
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(SalstreamError, match="not those of its metadata"):
        SaliencyModel.open(path, backend="openvino")
    del graph.metadata_props[:]
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(SalstreamError, match="no salstream metadata"):
        SaliencyModel.open(path, backend="openvino")


def test_which_library_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA first, then OpenVINO, then what is left."""
    path = small_graph(tmp_path / "small.onnx")
    assert SaliencyModel.open(path).backend.name == "openvino-cpu"
    monkeypatch.setattr(backends, "_has_cuda", lambda: True)
    assert SaliencyModel.open(path).backend.name == "onnxruntime-cpu"
    monkeypatch.setattr(backends, "_has_cuda", lambda: False)
    monkeypatch.setattr(backends, "find_spec", lambda _: None)
    assert SaliencyModel.open(path).backend.name == "onnxruntime-cpu"


_GUARDED = """
import os, sys

seen = []
events = ("socket.getaddrinfo", "socket.connect", "socket.gethostbyname", "os.fork")
sys.addaudithook(lambda event, _: event in events and seen.append(event))
import numpy as np
from salstream.runtime import SaliencyModel

model = SaliencyModel.open("unisal-dhf1k", backend="openvino")
model.predictor().push(np.zeros((48, 64, 3), np.uint8))
import atexit

atexit._run_exitfuncs()
print(seen, os.listdir(os.environ["HOME"]))
"""


def test_openvino_contacts_nobody(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", _GUARDED],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.strip() in ("[] []", "[] ['cache']")
