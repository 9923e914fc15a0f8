"""The TensorRT backend against ONNX Runtime on the CPU: same frames, same maps.

Without a GPU, memory, stream and library are those of `fake_tensorrt`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from clips import clip
from fake_tensorrt import FakeGpu, fake_cuda, fake_engine, fake_tensorrt, session
from salstream.runtime import Predictor, SaliencyModel, SalstreamError, UsageError
from salstream.runtime.backends import Backend, Request, open_backend, tensorrt
from salstream.runtime.backends.onnxruntime import OnnxRuntimeBackend
from salstream.runtime.backends.onnxruntime_cuda import BoundSession
from salstream.runtime.cuda import Gpu, RecordingError
from salstream.runtime.model import find_model
from salstream.runtime.ring import DeviceFrames, DeviceRing
from salstream.runtime.spec import GraphSpec

Open = Callable[..., tuple[Backend, FakeGpu]]


@pytest.fixture
def open_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Return a function that makes an engine of a graph and opens it on a fake GPU."""

    def opened(graph: bytes, gpu: FakeGpu | None = None, **changes: Any) -> tuple[Backend, FakeGpu]:
        gpu = gpu or FakeGpu()
        unrecordable = changes.pop("unrecordable", False)
        module = fake_tensorrt(gpu, unrecordable)
        module.__dict__.update(changes.pop("library", {}))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", module)
        monkeypatch.setattr(tensorrt, "Gpu", lambda: gpu)
        path = fake_engine(tmp_path / "graph.engine", graph, **changes)
        return open_backend(path), gpu

    return opened


# A frame of the toy graphs has 768 bytes: TensorRT takes windows at any place in a ring of them.
SIZE: Final = (16, 16)


def toy_graph(window: int, map_frame: int, recurrent: bool, size: tuple[int, int] = SIZE) -> bytes:
    """Return a graph whose maps depend on the order of the frames, and on all before them.

    saliency = Σ wₜ·frameₜ / 255 (+ state); the state after it is half of that.
    """
    height, width = size
    facts: dict[str, Any] = {"height": height, "width": width, "map_frame": map_frame}
    spec = GraphSpec(model="toy", domain="", window=window, **facts)
    weights = np.linspace(0.1, 1, window * 3, dtype=np.float32).reshape(1, window, 1, 1, 3)
    constants = {
        "weights": weights / 255 / weights.sum(),
        "half": np.float32(0.5),
        "axes": np.array([1, 4], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["frames"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "weights"], ["weighted"]),
        helper.make_node(
            "ReduceSum", ["weighted", "axes"], ["sum" if recurrent else "saliency"], keepdims=0
        ),
    ]
    map_shape: list[str | int] = ["batch", *size]
    inputs = [
        helper.make_tensor_value_info("frames", TensorProto.UINT8, ["batch", window, *size, 3])
    ]
    outputs = [helper.make_tensor_value_info("saliency", TensorProto.FLOAT, map_shape)]
    if recurrent:
        nodes += [
            helper.make_node("Add", ["sum", "state_a"], ["saliency"]),
            helper.make_node("Mul", ["saliency", "half"], ["state_a_next"]),
        ]
        inputs.append(helper.make_tensor_value_info("state_a", TensorProto.FLOAT, map_shape))
        outputs.append(helper.make_tensor_value_info("state_a_next", TensorProto.FLOAT, map_shape))
    initializers = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "toy", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, spec.to_metadata())
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def on_cpu(graph: bytes, folder: Path) -> Backend:
    path = folder / "graph.onnx"
    path.write_bytes(graph)
    return OnnxRuntimeBackend(path, threads=1)


def noise(count: int, seed: int = 0, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def streamed(backend: Backend, frames: NDArray[np.uint8], **options: Any) -> list[NDArray[Any]]:
    predictor = Predictor(backend, **options)
    results = [result for frame in frames for result in predictor.push(frame)]
    return [result.map for result in results + predictor.flush()]


def test_a_real_clip_gives_the_maps_of_the_cpu(open_engine: Open) -> None:
    """UNISAL: four phases at 24 frames per second, each with a state that stays on the GPU."""
    graph = find_model("unisal-dhf1k")
    backend, gpu = open_engine(graph.read_bytes())
    assert (backend.name, backend.recurrent) == ("tensorrt-cuda", True)
    expected = SaliencyModel(graph, OnnxRuntimeBackend(graph, threads=1))
    maps = [
        [result.map for result in model.stream(clip("bikes.mp4"), limit=24)]
        for model in (SaliencyModel(graph, backend), expected)
    ]
    np.testing.assert_allclose(maps[0], maps[1], rtol=0, atol=1e-6)
    # Each frame travels once; each phase has two places for its state: eight recordings.
    assert gpu.uploaded_bytes == 24 * 224 * 384 * 3
    assert (gpu.recordings, gpu.replays) == (8, 16)


@st.composite
def cases(draw: st.DrawFn) -> tuple[bytes, NDArray[np.uint8], dict[str, Any]]:
    window = draw(st.sampled_from([1, 2, 5, 16]))
    map_frame = draw(st.sampled_from(sorted({window - 1, window // 2})))
    recurrent = draw(st.booleans())
    starts = ["repeat", "skip"]
    if map_frame == window - 1 and not recurrent:
        starts.append("reverse")
    options = {
        "start": draw(st.sampled_from(starts)),
        "phases": draw(st.integers(1, 3)),
        "stride": draw(st.integers(1, 3)),
    }
    # Of the others, 72 bytes a frame, each window is copied to an address that TensorRT takes.
    size = draw(st.sampled_from([SIZE, (4, 6)]))
    graph = toy_graph(window, map_frame, recurrent, size)
    return graph, noise(2 * draw(st.integers(1, 60)), 7, size), options


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cases())
def test_every_window_and_state_is_that_of_the_cpu(
    open_engine: Open, tmp_path: Path, case: tuple[bytes, NDArray[np.uint8], dict[str, Any]]
) -> None:
    """Also the reversed windows at the start, short videos and the end."""
    graph, both, options = case
    backend, _ = open_engine(graph)
    for frames in np.split(both, 2):  # a second stream finds memory that the first one used
        actual = streamed(backend, frames, **options)
        expected = streamed(on_cpu(graph, tmp_path), frames, **options)
        assert len(actual) == len(expected)
        if expected:
            np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)


def test_a_frame_is_one_small_copy_and_a_window_none(open_engine: Open) -> None:
    backend, gpu = open_engine(toy_graph(16, 15, recurrent=False))
    streamed(backend, noise(100), start="repeat")
    assert gpu.uploaded_bytes == (100 + 15) * 16 * 16 * 3
    assert gpu.recordings == 16  # one for each place of the window in the ring
    assert gpu.replays == 100 - 16


@given(st.integers(1, 5), st.integers(1, 20), st.sampled_from([SIZE, (4, 6), (1, 1)]))
def test_the_ring_on_the_gpu_is_that_of_the_host(
    capacity: int, count: int, size: tuple[int, int]
) -> None:
    """Also when frames come faster than the copies are made, and where none is aligned."""
    gpu = FakeGpu()
    ring = DeviceRing(gpu, capacity, (*size, 3))  # type: ignore[arg-type]
    frames = noise(count, size=size)
    for frame in frames:
        ring.push(frame)
    batch = ring.batch()
    gpu.synchronize()
    assert batch.shape == (1, min(count, capacity), *size, 3)
    assert batch.address % 256 == 0
    on_gpu = gpu.memory(batch.address, int(np.prod(batch.shape))).reshape(batch.shape[1:])
    np.testing.assert_array_equal(on_gpu, frames[-capacity:])
    np.testing.assert_array_equal(ring.window(), frames[-capacity:])


@pytest.mark.parametrize(
    ("window", "recurrent", "phases", "of_one"), [(16, False, 1, 16), (1, True, 5, 10)]
)
def test_streams_at_once_keep_their_recordings(
    open_engine: Open, tmp_path: Path, window: int, recurrent: bool, phases: int, of_one: int
) -> None:
    """Nine cameras in turns: each run is recorded once, and from then on replayed."""
    graph = toy_graph(window, window - 1, recurrent)
    backend, gpu = open_engine(graph)
    predictors = [Predictor(backend, start="repeat", phases=phases) for _ in range(9)]
    frames = [noise(40, seed) for seed in range(9)]
    maps: list[list[NDArray[Any]]] = [[] for _ in predictors]
    for number in range(40):
        for predictor, own, its_maps in zip(predictors, frames, maps, strict=True):
            its_maps += [result.map for result in predictor.push(own[number])]
    assert (gpu.recordings, gpu.replays) == (9 * of_one, 9 * (40 - of_one))
    for own, its_maps in zip(frames, maps, strict=True):
        expected = streamed(on_cpu(graph, tmp_path), own, start="repeat", phases=phases)
        np.testing.assert_allclose(its_maps, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("recurrent", [False, True])
def test_recordings_of_streams_that_are_gone_do_not_pile_up(
    open_engine: Open, recurrent: bool
) -> None:
    backend, gpu = open_engine(toy_graph(1, 0, recurrent))
    assert isinstance(backend, tensorrt.TensorRTBackend)
    others = []
    for _ in range(20):
        ring, state = backend.new_ring(), None
        for frame in noise(3):
            ring.push(frame)
            state = backend.run(ring.batch(), state).state
        del ring, state
        # So that no stream finds the addresses of another.
        others += [gpu.allocate(size) for size in (1024, 1024, 2 * 768)]
    assert gpu.recordings >= 20
    assert 0 < len(backend._recordings) <= 5


def test_a_stream_takes_over_the_recordings_of_one_that_is_gone(
    open_engine: Open, tmp_path: Path
) -> None:
    """The same addresses in the same roles are the same work, whosever memory it is now."""
    graph = toy_graph(2, 1, recurrent=True)
    backend, gpu = open_engine(graph)
    for seed in range(4):
        frames = noise(20, seed)
        expected = streamed(on_cpu(graph, tmp_path), frames)
        np.testing.assert_allclose(streamed(backend, frames), expected, rtol=0, atol=1e-6)
    assert gpu.replays > 60
    assert gpu.recordings <= 8  # two places in the ring, two pairs of a state's; freed in any order


def test_a_cut_keeps_the_memory_and_the_recordings(open_engine: Open, tmp_path: Path) -> None:
    graph = toy_graph(16, 15, recurrent=False)
    backend, gpu = open_engine(graph)
    predictor = Predictor(backend, start="repeat")
    for seed in range(3):
        frames = noise(40, seed)
        maps = [result.map for frame in frames for result in predictor.push(frame)]
        expected = streamed(on_cpu(graph, tmp_path), frames, start="repeat")
        np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-6)
        predictor.reset()
    assert (gpu.recordings, gpu.replays) == (16, 3 * 40 - 16)


def test_an_engine_that_cannot_be_recorded_runs_all_the_same(
    open_engine: Open, tmp_path: Path
) -> None:
    graph = toy_graph(2, 1, recurrent=True)
    backend, gpu = open_engine(graph, unrecordable=True)
    expected = streamed(on_cpu(graph, tmp_path), noise(9))
    np.testing.assert_allclose(streamed(backend, noise(9)), expected, rtol=0, atol=1e-6)
    assert gpu.recordings == 0


@pytest.mark.parametrize("recurrent", [False, True])
def test_streams_share_a_run_on_the_gpu(open_engine: Open, tmp_path: Path, recurrent: bool) -> None:
    """Some streams begin later, and not all of them have a frame each time."""
    graph = toy_graph(2, 1, recurrent)
    backend, gpu = open_engine(graph)
    assert backend.batch == 3
    reference = on_cpu(graph, tmp_path)
    streams = [noise(12, seed) for seed in range(5)]
    rings = [backend.new_ring() for _ in streams]
    states: list[Any] = [None] * 5
    expected_states: list[Any] = [None] * 5
    for step in range(1, 12):
        taking = [n for n in range(5) if n <= step and (n + step) % 4]
        requests = []
        for n in taking:
            for frame in streams[n][step - 1 : step + 1]:
                rings[n].push(frame)
            requests.append(Request(rings[n].batch(), states[n]))
        for n, output in zip(taking, backend.run_batch(requests), strict=True):
            states[n] = output.state
            window = streams[n][None, step - 1 : step + 1]
            expected = reference.run(window, expected_states[n])
            expected_states[n] = expected.state
            np.testing.assert_allclose(output.saliency, expected.saliency, atol=1e-6)
    uploaded = gpu.uploaded_bytes
    backend.run_batch(
        [Request(ring.batch(), state) for ring, state in zip(rings, states, strict=False)][:2]
    )
    assert gpu.uploaded_bytes == uploaded  # what lies on the GPU stays there


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("most_contexts", [100, 2, 1])
def test_batches_of_changing_size_keep_their_recordings(
    open_engine: Open, tmp_path: Path, recurrent: bool, most_contexts: int
) -> None:
    """Three cameras of which one, two or all have a frame, where memory allows so."""
    graph = toy_graph(2, 1, recurrent)
    backend, gpu = open_engine(graph)
    gpu.most_contexts = most_contexts
    reference = on_cpu(graph, tmp_path)
    streams = [noise(61, seed) for seed in range(3)]
    rings = [backend.new_ring() for _ in streams]
    states: list[Any] = [None] * 3
    expected_states: list[Any] = [None] * 3
    sizes = [3, 2, 1, 3, 2] * 12
    for step, size in enumerate(sizes):
        requests = []
        for n in range(size):
            for frame in streams[n][step : step + 2]:
                rings[n].push(frame)
            requests.append(Request(rings[n].batch(), states[n]))
        for n, output in enumerate(backend.run_batch(requests)):
            expected = reference.run(streams[n][None, step : step + 2], expected_states[n])
            states[n], expected_states[n] = output.state, expected.state
            np.testing.assert_allclose(output.saliency, expected.saliency, atol=1e-6)
    assert len(gpu.contexts) <= most_contexts
    if most_contexts == 100:
        # one each for three and two; a single one at each place of its ring and of its state
        assert gpu.recordings <= 2 + 2 * 2
        assert gpu.replays == len(sizes) - gpu.recordings


@pytest.mark.parametrize("recurrent", [False, True])
def test_batches_from_the_host(open_engine: Open, tmp_path: Path, recurrent: bool) -> None:
    """Several cameras in one call, more of them and fewer, between windows of a ring."""
    graph = toy_graph(2, 1, recurrent)
    backend, _ = open_engine(graph)
    cpu = on_cpu(graph, tmp_path)
    for seed, batch in enumerate((2, 2, 3, 1, 3)):
        state = expected_state = None
        for step in range(3):
            frames = noise(batch * 2, 10 * seed + step).reshape(batch, 2, *SIZE, 3)
            actual, expected = backend.run(frames, state), cpu.run(frames, expected_state)
            state, expected_state = actual.state, expected.state
            np.testing.assert_allclose(actual.saliency, expected.saliency, rtol=0, atol=1e-6)
        streamed(backend, noise(3))
    for wrong in (np.zeros((4, 2, *SIZE, 3), np.uint8), np.zeros((0, 2, *SIZE, 3), np.uint8)):
        with pytest.raises(UsageError, match="batches of 1 to 3, got"):
            backend.run(wrong, None)
    with pytest.raises(UsageError, match=r"uint8 of shape \(batch, 2, 16, 16, 3\)"):
        backend.run(np.zeros((1, 2, 4, 5, 3), np.uint8), None)
    if recurrent:
        with pytest.raises(UsageError, match="state is of 3 streams, the frames of 1"):
            backend.run(np.zeros((1, 2, *SIZE, 3), np.uint8), state)


def test_maps_are_the_callers_own_and_a_state_serves_once(open_engine: Open) -> None:
    backend, _ = open_engine(toy_graph(1, 0, recurrent=True))
    frames = noise(2)[:, None]
    first = backend.run(frames[:1], None)
    kept = first.saliency.copy()
    second = backend.run(frames[1:], first.state)
    np.testing.assert_array_equal(first.saliency, kept)
    assert not np.array_equal(second.saliency, kept)
    with pytest.raises(UsageError, match="a state serves one run"):
        backend.run(frames[1:], first.state)


def test_streams_share_an_engine(open_engine: Open, tmp_path: Path) -> None:
    graph = toy_graph(5, 2, recurrent=True)
    backend, _ = open_engine(graph)
    cpu = on_cpu(graph, tmp_path)
    with ThreadPoolExecutor(4) as pool:
        maps = list(pool.map(lambda seed: streamed(backend, noise(40, seed)), range(8)))
    for seed in range(8):
        expected = streamed(cpu, noise(40, seed))
        np.testing.assert_allclose(maps[seed], expected, rtol=0, atol=1e-6)


def test_a_damaged_map_is_noticed(open_engine: Open) -> None:
    backend, _ = open_engine(toy_graph(1, 0, recurrent=True))
    output = backend.run(noise(1)[None], None)
    assert isinstance(backend, tensorrt.TensorRTBackend)
    (memory,) = output.state.current.values()
    backend._gpu.memory(memory.address, memory.size).fill(0xFF)  # type: ignore[attr-defined]
    with pytest.raises(SalstreamError, match="not finite"):
        backend.run(noise(1)[None], output.state)


GRAPH = toy_graph(1, 0, recurrent=False)


def test_an_engine_of_another_version_says_what_to_run(open_engine: Open) -> None:
    with pytest.raises(
        SalstreamError,
        match=r"built by TensorRT 10\.1\.0 and runs with no other version; here is 10\.9\.0\.34; "
        r"build it again: salstream build graph\.onnx --target tensorrt --batch 1:1:3 -o \S+engine",
    ):
        open_engine(GRAPH, version="10.1.0")


def test_an_engine_for_another_gpu_says_what_to_run(open_engine: Open) -> None:
    with pytest.raises(
        SalstreamError,
        match=r"built on Fake A4000 for compute capability 8\.6; this GPU, Fake H200, has 9\.0; "
        r"build it for this one: salstream build",
    ):
        open_engine(GRAPH, FakeGpu("Fake H200", (9, 0)))
    with pytest.raises(SalstreamError, match=r"8\.0, 8\.9; this GPU, .* --compute-capability 8\.6"):
        open_engine(GRAPH, flavour="tensorrt-rtx", compute_capabilities=("8.0", "8.9"))
    with pytest.raises(SalstreamError, match=r"8\.0 and later; this GPU, Old, has 7\.5"):
        open_engine(GRAPH, FakeGpu("Old", (7, 5)), flavour="tensorrt-rtx", compute_capabilities=())
    with pytest.raises(
        SalstreamError,
        match=r"does not run on this GPU, Fake H200 of .*9\.0; .* --target tensorrt ",
    ):
        open_engine(
            GRAPH, FakeGpu("Fake H200", (9, 0)), flavour="tensorrt-rtx", compute_capabilities=()
        )


def test_a_gpu_of_the_same_kind_is_only_slower(
    open_engine: Open, caplog: pytest.LogCaptureFixture
) -> None:
    open_engine(GRAPH, FakeGpu("Fake A5000"))
    assert "was built on Fake A4000 and runs on Fake A5000" in caplog.text


def test_what_the_library_refuses_is_one_sentence(open_engine: Open) -> None:
    refused = b"refused: Error Code 6: the magic tag does not match\nsecond line"
    with pytest.raises(
        SalstreamError,
        match=r"cannot be loaded: TensorRT 10\.9\.0\.34 says: .*tag does not match; ",
    ):
        open_engine(GRAPH, content=refused)
    with pytest.raises(SalstreamError, match=r"out of GPU memory: .*; end other programs"):
        open_engine(GRAPH, content=b"refused: Error Code 2: OutOfMemory (Requested 14 bytes)")


def test_an_engine_with_other_tensors_is_refused(open_engine: Open) -> None:
    with pytest.raises(SalstreamError, match="its tensors are others"):
        open_engine(GRAPH, content=toy_graph(2, 1, recurrent=False))


def test_validity_is_put_into_words(open_engine: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {"VERSION_MISMATCH": 1, "OLD_CUDA_DRIVER": 4}
    library = {
        "EngineValidity": SimpleNamespace(INVALID=2),
        "EngineInvalidityDiagnostics": SimpleNamespace(__members__=members),
    }
    gpu = FakeGpu()
    runtime = fake_tensorrt(gpu).Runtime
    runtime.get_engine_validity = lambda self, engine: (2, 4)
    with pytest.raises(SalstreamError, match=r"RTX 10\.9\.0\.34 says old cuda driver; update the"):
        open_engine(GRAPH, gpu, flavour="tensorrt-rtx", library={**library, "Runtime": runtime})


def test_the_real_library_without_a_gpu_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT-RTX says nothing about why; the sentence does not invent it."""
    trt = pytest.importorskip("tensorrt_rtx")
    _skip_with_gpu()
    monkeypatch.setattr(tensorrt, "Gpu", FakeGpu)
    facts = {"flavour": "tensorrt-rtx", "version": trt.__version__, "compute_capabilities": ()}
    path = fake_engine(tmp_path / "x.engine", GRAPH, **facts)
    with pytest.raises(SalstreamError, match=r"does not run here, on Fake A4000: TensorRT-RTX"):
        open_backend(path)


def test_a_machine_without_cuda_says_so(tmp_path: Path) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    pytest.importorskip("cuda.bindings.runtime")
    _skip_with_gpu()
    facts = {"flavour": "tensorrt-rtx", "version": trt.__version__, "compute_capabilities": ()}
    path = fake_engine(tmp_path / "x.engine", GRAPH, **facts)
    with pytest.raises(SalstreamError, match="CUDA is not there: no NVIDIA driver was found"):
        SaliencyModel.open(path)


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
def test_a_library_that_is_not_installed(
    flavour: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, flavour.replace("-", "_"), None)
    path = fake_engine(tmp_path / "x.engine", GRAPH, flavour=flavour)
    with pytest.raises(SalstreamError, match=rf"pip install 'salstream\[{flavour}\]'"):
        SaliencyModel.open(path)


def test_an_engine_runs_on_tensorrt_alone(tmp_path: Path) -> None:
    path = fake_engine(tmp_path / "x.engine", GRAPH)
    with pytest.raises(UsageError, match=r"unknown backend 'onnxruntime' for x\.engine"):
        SaliencyModel.open(path, backend="onnxruntime")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that puts a machine's CUDA in the place of the real one."""

    def install(**answers: Any) -> None:
        module = ModuleType("cuda.bindings")
        module.__dict__["runtime"] = fake_cuda(**answers)
        monkeypatch.setitem(sys.modules, "cuda.bindings", module)

    return install


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        ({"cudaDriverGetVersion": ("cudaSuccess", 0)}, "no NVIDIA driver was found"),
        (
            {
                "cudaDriverGetVersion": ("cudaSuccess", 12040),
                "cudaGetDeviceCount": ("cudaErrorInsufficientDriver", None),
            },
            r"the NVIDIA driver supports CUDA 12\.4, .* need 13\.0 \(driver 580 or newer\); "
            r".*pip install 'cuda-bindings<13'",
        ),
        ({"cudaGetDeviceCount": ("cudaErrorNoDevice", None)}, "no GPU was found, .*nvidia-smi"),
    ],
)
def test_cuda_that_is_missing_or_too_old(
    cuda: Callable[..., None], answers: dict[str, Any], sentence: str
) -> None:
    cuda(**answers)
    with pytest.raises(SalstreamError, match=sentence):
        Gpu()


def test_out_of_gpu_memory(cuda: Callable[..., None]) -> None:
    cuda(cudaMalloc=("cudaErrorMemoryAllocation", None))
    with pytest.raises(SalstreamError, match=r"out of GPU memory: 512 MB more .* and 100 MB are"):
        Gpu().allocate(512_000_000)


@pytest.mark.parametrize("failure", [None, SalstreamError("no"), ZeroDivisionError("a bug")])
@pytest.mark.parametrize("instantiated", ["cudaSuccess", "cudaErrorMemoryAllocation"])
def test_a_recording_always_ends_and_leaves_no_graph(
    failure: Exception | None, instantiated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong: a stream that goes on recording runs nothing any more."""
    runtime = fake_cuda(
        cudaStreamBeginCapture="cudaSuccess",
        cudaGetLastError="cudaSuccess",
        cudaGraphInstantiate=(instantiated, 23),
    )
    good = runtime.cudaError_t.cudaSuccess
    calls: list[Any] = []

    def end(stream: Any) -> tuple[Any, int]:
        calls.append("end")
        return good, 42

    def destroy(graph: Any) -> tuple[Any]:
        calls.append(graph)
        return (good,)

    runtime.cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    runtime.cudaGraphExecDestroy = lambda executable: None
    runtime.cudaStreamEndCapture = end
    runtime.cudaGraphDestroy = destroy
    module = ModuleType("cuda.bindings")
    module.__dict__["runtime"] = runtime
    monkeypatch.setitem(sys.modules, "cuda.bindings", module)

    def work() -> None:
        if failure is not None:
            raise failure

    expected = {
        SalstreamError: pytest.raises(RecordingError, match="cannot be recorded: no"),
        ZeroDivisionError: pytest.raises(ZeroDivisionError),
        type(None): contextlib.nullcontext()
        if instantiated == "cudaSuccess"
        else pytest.raises(SalstreamError, match="out of GPU memory"),
    }
    with expected[type(failure)]:
        Gpu().record(work)
    assert calls == ["end", 42]


def test_the_bindings_take_every_call() -> None:
    """Without a driver each call fails, but with CUDA's error and not for its arguments."""
    runtime = pytest.importorskip("cuda.bindings.runtime")
    _skip_with_gpu()
    gpu = Gpu.__new__(Gpu)
    gpu._cuda, gpu._stream = runtime, runtime.cudaStream_t(0)
    array = np.zeros(4, np.uint8)
    for call in (
        lambda: gpu.allocate(16),
        lambda: gpu.pinned((2, 2), np.float32),
        lambda: gpu.upload(4096, array),
        lambda: gpu.download(array, 4096),
        lambda: gpu.copy(4096, 8192, 16),
        lambda: gpu.clear(4096, 16),
        gpu.synchronize,
        lambda: gpu.record(lambda: None),
        lambda: gpu._call(runtime.cudaGetDeviceProperties(0)),
        lambda: gpu._call(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking)),
        lambda: gpu._call(runtime.cudaGraphInstantiate(runtime.cudaGraph_t(0), 0)),
        lambda: gpu._call(runtime.cudaGraphDestroy(runtime.cudaGraph_t(0))),
        lambda: gpu._call(runtime.cudaGraphLaunch(runtime.cudaGraphExec_t(0), gpu._stream)),
    ):
        with pytest.raises(SalstreamError, match=r"the GPU failed: .*cudaErrorInsufficientDriver"):
            call()
    for free in (runtime.cudaFree, runtime.cudaFreeHost):
        assert free(4096)[0] == runtime.cudaError_t.cudaErrorInsufficientDriver
    assert runtime.cudaGraphExecDestroy(runtime.cudaGraphExec_t(0))
    assert runtime.cudaGetLastError()
    assert len(runtime.cudaMemGetInfo()) == 3


@pytest.mark.parametrize("on_gpu", [False, True])
def test_onnxruntime_with_bound_memory_gives_the_same_maps(on_gpu: bool) -> None:
    """States as OrtValues; frames from the host, or from a ring in (here: fake) device memory."""
    import onnxruntime

    graph = find_model("unisal-dhf1k")
    cpu = OnnxRuntimeBackend(graph, threads=1)
    gpu = FakeGpu() if on_gpu else None
    bound = BoundSession(onnxruntime, session(graph), gpu)  # type: ignore[arg-type]
    bound._device = "cpu"  # where the fake GPU has its memory
    ring = bound.new_ring()
    rng = np.random.default_rng(0)
    state = expected_state = None
    for _ in range(4):
        frame = rng.integers(0, 256, (224, 384, 3), dtype=np.uint8)
        ring.push(frame)
        batch = ring.batch()
        assert isinstance(batch, DeviceFrames) == on_gpu
        maps, state = bound.run(batch, state)
        expected = cpu.run(frame[None, None], expected_state)
        expected_state = expected.state
        np.testing.assert_allclose(maps["saliency"], expected.saliency, rtol=0, atol=1e-6)
    pair = rng.integers(0, 256, (2, 1, 224, 384, 3), dtype=np.uint8)
    maps, state = bound.run(pair, None)
    again, _ = bound.run(pair, state)
    expected = cpu.run(pair, cpu.run(pair, None).state)
    np.testing.assert_allclose(again["saliency"], expected.saliency, rtol=0, atol=1e-6)
    assert not np.array_equal(maps["saliency"], again["saliency"])


@pytest.mark.parametrize("at", ["load", "run"])
@pytest.mark.parametrize(
    "text",
    [
        "CUDA failure 2: out of memory ; GPU=0 ; hostname=here ; file=cuda_allocator.cc",
        "bfc_arena.cc:359 onnxruntime::BFCArena::AllocateRawInternal Failed to allocate memory",
    ],
)
def test_onnxruntime_out_of_gpu_memory(
    at: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    backend = on_cpu(GRAPH, tmp_path)

    def fails(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError(text)

    def load_or_run() -> None:
        if at == "load":
            OnnxRuntimeBackend(tmp_path / "graph.onnx", "cuda")
        else:
            backend.run(noise(1)[None], None)

    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(onnxruntime, "InferenceSession", fails)
    monkeypatch.setattr(backend, "_bound", SimpleNamespace(run=fails))
    with pytest.raises(SalstreamError, match=r"out of GPU memory: .* --backend onnxruntime:cpu"):
        load_or_run()


@pytest.fixture
def gpu() -> Gpu:
    """The real one."""
    try:
        return Gpu()
    except SalstreamError as error:
        pytest.skip(str(error))


@pytest.mark.gpu
def test_memory_copies_and_recordings_of_a_real_gpu(gpu: Gpu) -> None:
    source, target = gpu.pinned((2, 3), np.float32), gpu.pinned((2, 3), np.float32)
    first, second = gpu.allocate(24), gpu.allocate(24)

    def work() -> None:
        gpu.upload(first.address, source)
        gpu.clear(second.address, 24)
        gpu.copy(second.address, first.address + 12, 12)
        gpu.download(target, second.address)

    for replay in (work, gpu.record(work)):
        source[:] = np.random.default_rng(0).random((2, 3))
        replay()
        gpu.synchronize()
        np.testing.assert_array_equal(target, [source[1], [0, 0, 0]])
        target[:] = -1

    def waits() -> None:
        gpu.synchronize()

    def stumbles() -> None:
        work()
        raise ZeroDivisionError

    with pytest.raises(RecordingError, match="cannot be recorded"):
        gpu.record(waits)
    with pytest.raises(ZeroDivisionError):
        gpu.record(stumbles)
    work()  # and the stream is as good as before
    gpu.synchronize()
    np.testing.assert_array_equal(target, [source[1], [0, 0, 0]])
    with pytest.raises(SalstreamError, match="out of GPU memory"):
        gpu.allocate(1 << 50)


@pytest.mark.gpu
def test_a_ring_on_a_real_gpu(gpu: Gpu) -> None:
    ring = DeviceRing(gpu, 5, (4, 6, 3))
    frames = noise(23, size=(4, 6))
    for number, frame in enumerate(frames):
        ring.push(frame)
        batch = ring.batch()
        back = gpu.pinned(batch.shape, np.uint8)
        gpu.download(back, batch.address)
        gpu.synchronize()
        np.testing.assert_array_equal(back[0], frames[max(0, number - 4) : number + 1])


@pytest.mark.gpu
def test_onnxruntime_on_a_real_gpu_gives_the_maps_of_the_cpu(gpu: Gpu) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime was built without CUDA")
    maps = [
        [
            result.map
            for result in SaliencyModel.open("unisal-dhf1k", backend=backend).stream(
                clip("bikes.mp4"), limit=40
            )
        ]
        for backend in ("onnxruntime:cuda", "onnxruntime:cpu")
    ]
    np.testing.assert_allclose(maps[0], maps[1], rtol=0, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
def test_a_real_engine_gives_the_maps_of_the_cpu(flavour: str, tmp_path: Path, gpu: Gpu) -> None:
    library = pytest.importorskip(flavour.replace("-", "_"))
    engines = pytest.importorskip("salstream.export.engines")
    capability = "SM{}{}".format(*gpu.compute_capability)
    if flavour == "tensorrt-rtx" and not hasattr(library.ComputeCapability, capability):
        pytest.skip(f"TensorRT-RTX does not run on {gpu.name}")
    path = tmp_path / "unisal.engine"
    options = engines.EngineOptions(target=flavour)
    engines.build_engine("unisal-dhf1k", path, options, cache=False)
    maps = [
        [result.map for result in SaliencyModel.open(model).stream(clip("bikes.mp4"), limit=40)]
        for model in (path, "unisal-dhf1k")
    ]
    np.testing.assert_allclose(maps[0], maps[1], rtol=0, atol=1e-4)


def _skip_with_gpu() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    if runtime.cudaDriverGetVersion()[1]:
        pytest.skip("this machine has an NVIDIA driver")
