"""TensorRT and TensorRT-RTX: engines made by `salstream build`, on an NVIDIA GPU.

What a stream carries from frame to frame stays on the GPU. A new frame is one small copy into
its ring; the engine reads the window where it lies in the ring, and reads the recurrent state
where the run before wrote it. Only maps come back, into pinned memory.

One stream, and its work for every set of addresses recorded once as a CUDA graph. (TensorRT-RTX
can record by itself, but does so again whenever an address changes, and here it changes with
every frame.) There is room for the recordings of every ring and state that is alive, so streams
do not push out each other's; those of streams that are gone make way.

A recording holds as long as its execution context keeps its shapes, so there is a context for
each batch size that comes.
"""

from __future__ import annotations

import importlib
import logging
import math
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.backends import Backend, Output, Request, check_finite
from salstream.runtime.cuda import DeviceMemory, Gpu, RecordingError
from salstream.runtime.errors import SalstreamError, UsageError
from salstream.runtime.ring import DeviceFrames, DeviceRing
from salstream.runtime.sidecar import FLAVOURS, PRODUCTS, Sidecar, TensorFacts, read_engine
from salstream.runtime.spec import GraphSpec

logger = logging.getLogger("salstream")


@dataclass
class DeviceState:
    """A recurrent state on the GPU, between two runs.

    Attributes:
        batch: Streams in it.
        current: Where it lies, by the name of its input.
        other: Where the next run writes.
        spent: Whether a run has read it; the run after that one writes over it.
    """

    batch: int
    current: dict[str, DeviceMemory]
    other: dict[str, DeviceMemory]
    spent: bool = False


class TensorRTBackend(Backend):
    """An engine in TensorRT or TensorRT-RTX.

    Args:
        path: The ``.engine`` file; ``NAME.engine.json`` lies beside it.

    Raises:
        SalstreamError: The library, the driver or the GPU is not there or too old, the engine
            was changed or does not fit this machine, or there is too little memory on the GPU.
    """

    def __init__(self, path: Path) -> None:
        engine, sidecar = read_engine(path)
        try:
            self.spec = GraphSpec.from_metadata(sidecar.metadata)
        except SalstreamError as error:
            raise SalstreamError(f"{path} is not an engine for salstream: {error}") from error
        trt = _import(sidecar)
        self._gpu = gpu = Gpu()
        _check_fit(path, sidecar, trt, gpu)
        log = _log(trt)
        self._runtime = trt.Runtime(log)
        _check_validity(path, sidecar, trt, self._runtime, engine, gpu)
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise SalstreamError(_refusal(f"{path} cannot be loaded", sidecar, path, log))
        self._make_context = partial(_context, trt, self._engine)
        self._unused_context = self._make_context()
        if self._unused_context is None:
            raise SalstreamError(_refusal(f"{path} cannot be run", sidecar, path, log))
        self._trt_log = log
        _check_tensors(path, sidecar, trt, self._engine)
        facts = {tensor.name: tensor for tensor in sidecar.tensors}
        self._frames = facts["frames"]
        self._states = [
            tensor
            for tensor in sidecar.tensors
            if tensor.name.startswith("state_") and tensor.is_input
        ]
        self._maps = [facts[name] for name in ("saliency", "conspicuity") if name in facts]
        self._min_batch, _, self._max_batch = sidecar.batch
        self.batch = self._max_batch
        self.name = f"{sidecar.flavour}-cuda"
        self.recurrent = bool(self._states)
        self.conspicuity = "conspicuity" in facts
        # For frames that come from the host, and for maps that go there.
        self._staging: tuple[NDArray[np.uint8], DeviceMemory] | None = None
        self._device_maps = {
            tensor.name: gpu.allocate(_size(tensor, self._max_batch)) for tensor in self._maps
        }
        self._host_maps = {
            tensor.name: gpu.pinned((self._max_batch, *tensor.shape), tensor.dtype)
            for tensor in self._maps
        }
        # Where the windows and states of several streams are gathered for one run.
        self._gathered: tuple[DeviceMemory, DeviceState] | None = None
        self._contexts: dict[int, Any] = {}  # by batch size
        self._unrecordable: set[int] = set()  # batch sizes
        # By batch size and every address that a run uses, in the order of their names. Memory that
        # was freed may come back with the same addresses: in the same roles and for the same batch
        # that is the same work, whosever memory it is now. With others it is another key.
        self._recordings: OrderedDict[tuple[int, ...], Callable[[], None]] = OrderedDict()
        # What the recordings are of: rings, or the places of a recurrent network's states.
        self._alive: weakref.WeakSet[DeviceRing | DeviceMemory] = weakref.WeakSet()

    def new_ring(self) -> DeviceRing:
        """Return a ring whose windows lie on the GPU."""
        ring = DeviceRing(self._gpu, self.spec.window, (*self.spec.size, 3))
        if not self.recurrent:
            with self._gpu.lock:
                self._alive.add(ring)
        return ring

    def run(self, frames: NDArray[np.uint8] | DeviceFrames, state: DeviceState | None) -> Output:
        """Run the engine once (see :class:`~salstream.runtime.backends.Backend`)."""
        batch = len(frames)
        if not self._min_batch <= batch <= self._max_batch:
            raise UsageError(
                f"the engine takes batches of {self._min_batch} to {self._max_batch}, got {batch}; "
                "build one with another --batch"
            )
        with self._gpu.lock:
            state = state or self._new_state(batch)
            if state.batch != batch:
                raise UsageError(f"the state is of {state.batch} streams, the frames of {batch}")
            if state.spent:
                raise UsageError("a state serves one run; use the one that the last run gave")
            maps = self._run_at(batch, self._address(frames), state)
            state.spent = True
        following = DeviceState(batch, state.other, state.current) if self.recurrent else None
        return Output(maps["saliency"], following, maps.get("conspicuity"))

    def run_batch(self, requests: Sequence[Request]) -> list[Output]:
        """Run the engine for several streams at once, gathered by copies on the GPU."""
        outputs: list[Output] = []
        for begin in range(0, len(requests), self._max_batch):
            some = requests[begin : begin + self._max_batch]
            on_gpu = all(isinstance(request.frames, DeviceFrames) for request in some)
            joined = on_gpu and len(some) >= max(2, self._min_batch)
            outputs += self._run_gathered(some) if joined else super().run_batch(some)
        return outputs

    def _run_gathered(self, requests: Sequence[Request]) -> list[Output]:
        with self._gpu.lock:
            if self._gathered is None:
                memory = self._gpu.allocate(_size(self._frames, self._max_batch))
                self._gathered = memory, self._new_state(self._max_batch)
            frames, gathered = self._gathered
            states = [request.state or self._new_state(1) for request in requests]
            if any(state.spent or state.batch != 1 for state in states):
                raise UsageError("a state serves one run; use the one that the last run gave")
            for row, (request, state) in enumerate(zip(requests, states, strict=True)):
                size = _size(self._frames, 1)
                self._gpu.copy(frames.address + row * size, request.frames.address, size)
                for tensor in self._states:
                    self._copy_row(tensor, row, state.current, gathered.current, to_row=True)
            maps = self._run_at(len(requests), frames.address, gathered)
            for row, state in enumerate(states):
                for tensor in self._states:
                    self._copy_row(tensor, row, state.other, gathered.other, to_row=False)
                state.spent = True
        return [
            Output(
                maps["saliency"][row : row + 1],
                DeviceState(1, state.other, state.current) if self.recurrent else None,
                maps["conspicuity"][row : row + 1] if "conspicuity" in maps else None,
            )
            for row, state in enumerate(states)
        ]

    def _copy_row(
        self,
        tensor: TensorFacts,
        row: int,
        own: dict[str, DeviceMemory],
        gathered: dict[str, DeviceMemory],
        *,
        to_row: bool,
    ) -> None:
        """Queue a copy between one stream's state and its row in the gathered one."""
        size = _size(tensor, 1)
        there, here = gathered[tensor.name].address + row * size, own[tensor.name].address
        self._gpu.copy(*((there, here) if to_row else (here, there)), size)

    def _run_at(
        self, batch: int, frames: int, state: DeviceState
    ) -> dict[str, NDArray[np.float32]]:
        """Run on frames at an address and on a state; returns the maps when they are there."""
        self._execute(
            batch,
            {
                "frames": frames,
                **{name: memory.address for name, memory in state.current.items()},
                **{f"{name}_next": memory.address for name, memory in state.other.items()},
                **{name: memory.address for name, memory in self._device_maps.items()},
            },
        )
        self._gpu.synchronize()
        # Copies: the next run writes to the same pinned memory.
        maps = {name: host[:batch].copy() for name, host in self._host_maps.items()}
        check_finite(maps["saliency"])
        return maps

    def _execute(self, batch: int, addresses: dict[str, int]) -> None:
        """Queue a run and the copies of its maps."""
        key = (batch, *addresses.values())
        if key in self._recordings:
            self._recordings.move_to_end(key)
            self._recordings[key]()
            return
        context = self._contexts.get(batch) or self._new_context(batch)
        for name, address in addresses.items():
            context.set_tensor_address(name, address)

        def work() -> None:
            if not context.execute_async_v3(self._gpu.stream):
                raise SalstreamError(
                    f"the engine failed: {self._trt_log.last or 'TensorRT does not say why'}"
                )
            for name, host in self._host_maps.items():
                self._gpu.download(host[:batch], addresses[name])

        # The first run with a new shape prepares things that cannot be recorded, so a run is
        # recorded after it, for the next time.
        work()
        if batch not in self._unrecordable:
            try:
                self._recordings[key] = self._gpu.record(work)
            except RecordingError as error:
                logger.debug("no CUDA graph for this engine: %s", error)
                self._unrecordable.add(batch)
            # Each of them meets each place in a ring, and frames from the host; those come
            # without a ring too, as do gathered ones, in batches of every size.
            room = (self.spec.window + 1) * len(self._alive) + len(self._contexts)
            if len(self._recordings) > room:
                self._gpu.synchronize()  # the oldest may be running
            while len(self._recordings) > room:
                self._recordings.popitem(last=False)

    def _new_context(self, batch: int) -> Any:
        """Return an execution context for a batch size, and keep it."""
        context, self._unused_context = self._unused_context or self._make_context(), None
        if context is None and self._contexts:  # no memory for one more: those there make way
            self._gpu.synchronize()
            self._recordings.clear()
            self._contexts.clear()
            context = self._make_context()
        if context is None:
            raise SalstreamError(
                f"the engine cannot be run with a batch of {batch}: {self._trt_log.last}"
            )
        for tensor in (self._frames, *self._states):
            if not context.set_input_shape(tensor.name, (batch, *tensor.shape)):
                raise SalstreamError(f"the engine refuses a batch of {batch}: {self._trt_log.last}")
        capturable = getattr(context, "is_stream_capturable", None)  # TensorRT-RTX asks
        if capturable is not None and not capturable(self._gpu.stream):
            self._unrecordable.add(batch)
        self._contexts[batch] = context
        return context

    def _address(self, frames: NDArray[np.uint8] | DeviceFrames) -> int:
        """Return where frames lie; if that is on the host, queue their copy first."""
        if isinstance(frames, DeviceFrames):
            return frames.address
        if frames.dtype != np.uint8 or frames.shape[1:] != self._frames.shape:
            raise UsageError(
                f"frames must be uint8 of shape (batch, {', '.join(map(str, self._frames.shape))})"
            )
        if self._staging is None:
            self._staging = (
                self._gpu.pinned((self._max_batch, *self._frames.shape), np.uint8),
                self._gpu.allocate(_size(self._frames, self._max_batch)),
            )
        pinned, memory = self._staging
        pinned[: len(frames)] = frames  # free: every run waits for its end
        self._gpu.upload(memory.address, pinned[: len(frames)])
        return memory.address

    def _new_state(self, batch: int) -> DeviceState:
        """Return zeros, and room for what comes after them."""
        current, other = (
            {tensor.name: self._gpu.allocate(_size(tensor, batch)) for tensor in self._states}
            for _ in range(2)
        )
        for memory in current.values():
            self._gpu.clear(memory.address, memory.size)
        if self.recurrent:
            first = self._states[0].name  # stands for the others
            self._alive.update((current[first], other[first]))
        return DeviceState(batch, current, other)


def _import(sidecar: Sidecar) -> Any:
    """Return the library that the engine was built with."""
    try:
        return importlib.import_module(FLAVOURS[sidecar.flavour])
    except ImportError as error:
        raise SalstreamError(
            f"{PRODUCTS[sidecar.flavour]} is not installed ({error}); install it with: "
            f"pip install 'salstream[{sidecar.flavour}]'"
        ) from error


def _check_fit(path: Path, sidecar: Sidecar, trt: Any, gpu: Gpu) -> None:
    """Refuse an engine of another version or for another GPU."""
    product = PRODUCTS[sidecar.flavour]
    if trt.__version__ != sidecar.version:
        raise SalstreamError(
            f"{path} was built by {sidecar.product} and runs with no other version; here is "
            f"{trt.__version__}; build it again: {sidecar.rebuild(path)}"
        )
    here = "{}.{}".format(*gpu.compute_capability)
    built_for = sidecar.compute_capabilities
    if sidecar.flavour == "tensorrt-rtx":
        known = sorted(
            (int(name[2:-1]), int(name[-1]))
            for name in trt.ComputeCapability.__members__
            if name.startswith("SM")
        )
        if gpu.compute_capability not in known and gpu.compute_capability <= known[-1]:
            raise SalstreamError(
                f"TensorRT-RTX {trt.__version__} does not run on this GPU, {gpu.name} of compute "
                f"capability {here}; it knows {', '.join('{}.{}'.format(*one) for one in known)}; "
                f"use TensorRT: {sidecar.rebuild(path, 'tensorrt')}"
            )
        # By itself it builds for Ampere and later.
        fits = here in built_for if built_for else gpu.compute_capability >= (8, 0)
        again = sidecar.rebuild(path, capabilities=(here,))
    else:
        fits = here in built_for
        again = sidecar.rebuild(path)
    if not fits:
        where = f" on {sidecar.gpu}" if sidecar.gpu and sidecar.flavour == "tensorrt" else ""
        raise SalstreamError(
            f"{path} was built{where} for compute capability "
            f"{', '.join(built_for) or '8.0 and later'}; this GPU, {gpu.name}, has {here}; build "
            f"it for this one: {again}"
        )
    if sidecar.flavour == "tensorrt" and sidecar.gpu != gpu.name:
        logger.warning(
            "%s was built on %s and runs on %s: %s may be slower than an engine built here: %s",
            *(path, sidecar.gpu, gpu.name, product, sidecar.rebuild(path)),
        )


def _check_validity(
    path: Path, sidecar: Sidecar, trt: Any, runtime: Any, engine: bytes, gpu: Gpu
) -> None:
    """Ask TensorRT-RTX what it thinks of the engine on this machine."""
    if not hasattr(runtime, "get_engine_validity"):
        return
    validity, diagnostics = runtime.get_engine_validity(engine)
    if validity == trt.EngineValidity.INVALID:
        reasons = [
            name.replace("_", " ").lower()
            for name, flag in trt.EngineInvalidityDiagnostics.__members__.items()
            if int(flag) & int(diagnostics)
        ]
        raise SalstreamError(
            f"{path} does not run here, on {gpu.name}: {sidecar.product} says "
            f"{' and '.join(reasons) or 'no more than that'}; update the driver, or build the "
            f"engine again: {sidecar.rebuild(path)}"
        )


def _context(trt: Any, engine: Any) -> Any:
    """Return what runs an engine."""
    strategies = getattr(trt, "DynamicShapesKernelSpecializationStrategy", None)
    if strategies is None:
        return engine.create_execution_context()
    # TensorRT-RTX makes its kernels here. Those for a batch size shall be there when it first
    # comes, not some time later: they are what is recorded.
    config = engine.create_runtime_config()
    config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
    return engine.create_execution_context(config)


def _check_tensors(path: Path, sidecar: Sidecar, trt: Any, engine: Any) -> None:
    """Refuse an engine whose tensors are not those of its sidecar."""
    names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
    found = {
        TensorFacts(
            name=name,
            is_input=engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
            dtype=np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name,
            shape=tuple(engine.get_tensor_shape(name))[1:],
        )
        for name in names
    }
    if found != set(sidecar.tensors):
        raise SalstreamError(
            f"{path} is not the engine that its sidecar describes: its tensors are others; build "
            f"it again: {sidecar.rebuild(path)}"
        )


def _refusal(what: str, sidecar: Sidecar, path: Path, log: Any) -> str:
    """Return a sentence with the library's own last error."""
    if "OutOfMemory" in log.last or "out of memory" in log.last.lower():
        return (
            f"out of GPU memory: {what} ({log.last}); end other programs that use the GPU, or "
            "build the engine for smaller batches"
        )
    return f"{what}: {sidecar.product} says: {log.last}; build it again: {sidecar.rebuild(path)}"


def _log(trt: Any) -> Any:
    """Return a logger that keeps the last error and shows nothing."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.last = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.last = message.strip().partition("\n")[0][:300]
            logger.debug("TensorRT: %s", message)

    return Log()


def _size(tensor: TensorFacts, batch: int) -> int:
    return batch * math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize
