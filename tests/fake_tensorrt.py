"""A GPU and a TensorRT whose memory is numpy's and whose engines are ONNX graphs.

The stream is as lazy as CUDA allows: nothing that is queued happens before somebody waits for
it. Host and device memory are told apart, memory that was freed holds rubbish and is handed out
again, and a recording keeps addresses. What would be a race or a stray pointer on a GPU is a wrong
map or an AssertionError here.
"""

from __future__ import annotations

import enum
import hashlib
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import DTypeLike, NDArray

from salstream.runtime.cuda import DeviceMemory, RecordingError
from salstream.runtime.sidecar import Sidecar, TensorFacts, sidecar_path

VERSION = "10.9.0.34"
RUBBISH = 0xCD


class FakeGpu:
    """As :class:`salstream.runtime.cuda.Gpu`."""

    stream = 4711

    def __init__(
        self, name: str = "Fake A4000", compute_capability: tuple[int, int] = (8, 6)
    ) -> None:
        self.name = name
        self.compute_capability = compute_capability
        self.lock = threading.RLock()
        self.replays = 0
        self.recordings = 0
        self.uploaded_bytes = 0
        self.most_contexts = 100
        self.contexts: weakref.WeakSet[_Context] = weakref.WeakSet()  # that have memory
        self._device: dict[int, NDArray[np.uint8]] = {}
        self._freed: dict[int, list[NDArray[np.uint8]]] = {}  # by size
        self._pinned: list[NDArray[np.uint8]] = []
        self._queue: list[Callable[[], None]] = []
        self._recording: list[Callable[[], None]] | None = None
        self._recorded: list[tuple[int, int]] = []  # addresses and sizes

    def allocate(self, size: int) -> DeviceMemory:
        freed = self._freed.get(size)
        memory = freed.pop() if freed else self._aligned(size)
        self._device[memory.ctypes.data] = memory
        return DeviceMemory(memory.ctypes.data, size, self._free)

    @staticmethod
    def _aligned(size: int) -> NDArray[np.uint8]:
        memory = np.full(size + 256, RUBBISH, np.uint8)
        return memory[-memory.ctypes.data % 256 :][:size]

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        array = np.zeros(shape, dtype)
        self._pinned.append(array.reshape(-1).view(np.uint8))
        return array

    def upload(self, target: int, source: NDArray[Any]) -> None:
        host = self._host(source)
        self.uploaded_bytes += host.size
        device = self.memory(target, host.size)
        self.enqueue(lambda: np.copyto(device, host))

    def download(self, target: NDArray[Any], source: int) -> None:
        host = self._host(target)
        device = self.memory(source, host.size)
        self.enqueue(lambda: np.copyto(host, device))

    def copy(self, target: int, source: int, size: int) -> None:
        there, here = self.memory(target, size), self.memory(source, size)
        self.enqueue(lambda: np.copyto(there, here))

    def clear(self, target: int, size: int) -> None:
        memory = self.memory(target, size)
        self.enqueue(lambda: memory.fill(0))

    def synchronize(self) -> None:
        assert self._recording is None, "a recording stream cannot be waited for"
        queue, self._queue = self._queue, []
        for step in queue:
            step()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        steps: list[Callable[[], None]] = []
        self._recording, self._recorded = steps, []
        try:
            work()
        finally:
            self._recording = None
        recorded = self._recorded
        self.recordings += 1

        def replay() -> None:
            for address, size in recorded:
                self.memory(address, size)  # is it still, or again, somebody's?
            self.replays += 1
            self._queue.extend(steps)

        return replay

    @property
    def recording(self) -> bool:
        return self._recording is not None

    def enqueue(self, step: Callable[[], None]) -> None:
        (self._queue if self._recording is None else self._recording).append(step)

    def memory(self, address: int, size: int) -> NDArray[np.uint8]:
        """Return bytes of the device by their address."""
        if self.recording:
            self._recorded.append((address, size))
        for start, memory in self._device.items():
            if start <= address and address + size <= start + memory.size:
                return memory[address - start : address - start + size]
        raise AssertionError("this is no memory of the device")

    def _host(self, array: NDArray[Any]) -> NDArray[np.uint8]:
        assert array.flags.c_contiguous
        assert any(np.shares_memory(array, pinned) for pinned in self._pinned), "not pinned"
        return array.reshape(-1).view(np.uint8)

    def _free(self, address: int) -> None:
        memory = self._device.pop(address)
        memory.fill(RUBBISH)
        self._freed.setdefault(memory.size, []).append(memory)


class _Mode(enum.Enum):
    INPUT = 0
    OUTPUT = 1


class _Capability(enum.Enum):
    NONE = 0
    CURRENT = 1
    SM75 = 2
    SM80 = 3
    SM86 = 4
    SM120 = 5


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._prepared = False
        self._shaped = 0  # times that shapes were set

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = shape
        self._shaped += 1
        self._prepared = False
        return shape[1:] == self._engine.get_tensor_shape(name)[1:]

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address % 256 == 0, "TensorRT takes no such address"
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        gpu = self._engine.gpu
        assert stream == gpu.stream
        assert self._prepared or not gpu.recording, "the first run of a shape cannot be recorded"
        self._prepared = True
        (batch,) = {shape[0] for shape in self._shapes.values()}
        memory = {
            facts.name: gpu.memory(
                self._addresses[facts.name],
                batch * int(np.prod(facts.shape)) * np.dtype(facts.dtype).itemsize,
            )
            for facts in self._engine.tensors
        }

        shaped = self._shaped if gpu.recording else None

        def step() -> None:
            assert shaped in (None, self._shaped), "the context's shapes were set since"
            inputs = {
                facts.name: memory[facts.name].view(facts.dtype).reshape(batch, *facts.shape).copy()
                for facts in self._engine.tensors
                if facts.is_input
            }
            names = [facts.name for facts in self._engine.tensors if not facts.is_input]
            for name, value in zip(names, self._engine.session.run(names, inputs), strict=True):
                np.copyto(memory[name], value.reshape(-1).view(np.uint8))

        gpu.enqueue(step)
        if self._engine.unrecordable and gpu.recording:  # half of it is in
            raise RecordingError("something waits")
        return True


class _Engine:
    def __init__(self, graph: bytes, gpu: FakeGpu, unrecordable: bool) -> None:
        self.session = session(graph)
        self.gpu = gpu
        self.unrecordable = unrecordable
        self.tensors = tensors(self.session)
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, number: int) -> str:
        return self.tensors[number].name

    def get_tensor_mode(self, name: str) -> _Mode:
        return _Mode.INPUT if self._facts(name).is_input else _Mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> str:
        return self._facts(name).dtype

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, *self._facts(name).shape)

    def create_execution_context(self) -> _Context | None:
        contexts = self.gpu.contexts
        if len(contexts) >= self.gpu.most_contexts:
            return None
        context = _Context(self)
        contexts.add(context)
        return context

    def _facts(self, name: str) -> TensorFacts:
        return next(facts for facts in self.tensors if facts.name == name)


def fake_tensorrt(gpu: FakeGpu, unrecordable: bool = False) -> ModuleType:
    """Return a module to put in the place of ``tensorrt``."""

    class Runtime:
        def __init__(self, log: Any) -> None:
            self._log = log

        def deserialize_cuda_engine(self, engine: bytes) -> _Engine | None:
            if engine.startswith(b"refused"):
                self._log.log("ERROR", engine.decode().removeprefix("refused: "))
                return None
            return _Engine(engine, gpu, unrecordable)

    module = ModuleType("tensorrt")
    module.__dict__.update(
        __version__=VERSION,
        ILogger=type("ILogger", (), {"ERROR": "ERROR", "INTERNAL_ERROR": "INTERNAL_ERROR"}),
        TensorIOMode=_Mode,
        ComputeCapability=_Capability,
        nptype=np.dtype,
        Runtime=Runtime,
    )
    return module


def session(graph: bytes | Path) -> Any:
    """Open a graph with one thread: sums keep their order."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def tensors(opened: Any) -> tuple[TensorFacts, ...]:
    """Return what a sidecar says of a graph's inputs and outputs."""
    dtypes = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
    return tuple(
        TensorFacts(
            name=item.name, is_input=is_input, dtype=dtypes[item.type], shape=tuple(item.shape[1:])
        )
        for is_input, items in ((True, opened.get_inputs()), (False, opened.get_outputs()))
        for item in items
    )


def fake_engine(path: Path, graph: bytes, content: bytes | None = None, **changes: Any) -> Path:
    """Write an engine for the fake library, whose content is the graph, and its sidecar."""
    opened = session(graph)
    content = graph if content is None else content
    facts: dict[str, Any] = {
        "engine_sha256": hashlib.sha256(content).hexdigest(),
        "graph_sha256": hashlib.sha256(graph).hexdigest(),
        "graph": "graph.onnx",
        "flavour": "tensorrt",
        "version": VERSION,
        "gpu": "Fake A4000",
        "compute_capabilities": ("8.6",),
        "precision": "fp32",
        "batch": (1, 1, 3),
        "options": {},
        "metadata": dict(opened.get_modelmeta().custom_metadata_map),
        "tensors": tensors(opened),
    }
    path.write_bytes(content)
    sidecar_path(path).write_text(Sidecar(**{**facts, **changes}).to_json())
    return path


def fake_cuda(**answers: Any) -> SimpleNamespace:
    """Return a module in the place of ``cuda.bindings.runtime``, on a machine with one GPU."""

    class Errors(enum.Enum):
        cudaSuccess = 0  # noqa: N815
        cudaErrorMemoryAllocation = 2  # noqa: N815
        cudaErrorInsufficientDriver = 35  # noqa: N815
        cudaErrorNoDevice = 100  # noqa: N815

    good = Errors.cudaSuccess
    properties = SimpleNamespace(name=b"Fake A4000", major=8, minor=6)
    calls: dict[str, tuple[Any, ...]] = {
        "cudaDriverGetVersion": (good, 13000),
        "cudaRuntimeGetVersion": (good, 13050),
        "cudaGetDeviceCount": (good, 1),
        "cudaGetDeviceProperties": (good, properties),
        "cudaStreamCreateWithFlags": (good, 7),
        "cudaMalloc": (good, 4096),
        "cudaMemGetInfo": (good, 100_000_000, 8_000_000_000),
    }
    for name, answer in answers.items():
        status, *values = answer if isinstance(answer, tuple) else (answer,)
        calls[name] = (Errors[status] if isinstance(status, str) else status, *values)
    functions = {name: (lambda *_, answer=answer: answer) for name, answer in calls.items()}
    return SimpleNamespace(
        cudaError_t=Errors,
        cudaStreamNonBlocking=1,
        cudaFree=lambda address: None,
        cudaStreamDestroy=lambda stream: None,
        **functions,
    )
