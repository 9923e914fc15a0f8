"""The little of CUDA that the backends need: memory, copies, one stream, recordings of it.

Through `cuda-bindings`, NVIDIA's own bindings: wheels for every platform, nothing to compile,
importable without a GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from salstream.runtime.errors import SalstreamError

# The first driver of each CUDA, by NVIDIA's compatibility table; on Linux.
_FIRST_DRIVERS: Final = {12: "525", 13: "580"}


class DeviceMemory:
    """Bytes on the GPU, given back when nobody holds this any more.

    Attributes:
        address: Where they start.
        size: How many there are.
    """

    def __init__(self, address: int, size: int, free: Callable[[int], Any]) -> None:
        self.address = address
        self.size = size
        # A program that ends gives everything back by itself.
        weakref.finalize(self, free, address).atexit = False


class RecordingError(SalstreamError):
    """Work that cannot be recorded."""


class Gpu:
    """The first of the GPUs that CUDA_VISIBLE_DEVICES shows, with a stream of its own.

    Copies only queue up in the stream: what they read and write must stay until
    :meth:`synchronize`. Threads that share a GPU hold its ``lock`` around what belongs together.

    Attributes:
        name: For example ``NVIDIA RTX A4000``.
        compute_capability: Major and minor.
        stream: The stream's handle, for libraries that queue work of their own.
        lock: Held by whoever uses the stream.

    Raises:
        SalstreamError: The bindings, the driver or the GPU is not there, or too old.
    """

    def __init__(self) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise SalstreamError(
                "the CUDA bindings are not installed; install them with: "
                "pip install 'cuda-bindings>=12.8'"
            ) from error
        self._cuda = runtime
        _check_driver(runtime)
        properties = self._call(runtime.cudaGetDeviceProperties(0))
        self.name = properties.name.decode().rstrip("\0")
        self.compute_capability = (int(properties.major), int(properties.minor))
        # Not the default stream: that one cannot be recorded.
        self._stream = self._call(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking))
        weakref.finalize(self, runtime.cudaStreamDestroy, self._stream).atexit = False
        self.stream = int(self._stream)
        self.lock = threading.RLock()

    def allocate(self, size: int) -> DeviceMemory:
        """Return ``size`` bytes of the GPU, with anything in them."""
        address = int(self._call(self._cuda.cudaMalloc(size), size))
        return DeviceMemory(address, size, self._cuda.cudaFree)

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return a host array of zeros that the GPU copies from and to without a detour."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        address = int(self._call(self._cuda.cudaMallocHost(size), size))
        memory = (ctypes.c_uint8 * size).from_address(address)
        weakref.finalize(memory, self._cuda.cudaFreeHost, address).atexit = False
        array: NDArray[Any] = np.frombuffer(memoryview(memory), dtype).reshape(shape)
        array[...] = 0
        return array

    def upload(self, target: int, source: NDArray[Any]) -> None:
        """Queue a copy of a contiguous, pinned array to an address of the GPU."""
        self._copy(target, source.ctypes.data, source.nbytes, "HostToDevice")

    def download(self, target: NDArray[Any], source: int) -> None:
        """Queue a copy from an address of the GPU that fills a contiguous, pinned array."""
        self._copy(target.ctypes.data, source, target.nbytes, "DeviceToHost")

    def copy(self, target: int, source: int, size: int) -> None:
        """Queue a copy of ``size`` bytes on the GPU."""
        self._copy(target, source, size, "DeviceToDevice")

    def clear(self, target: int, size: int) -> None:
        """Queue the zeroing of ``size`` bytes of the GPU."""
        self._call(self._cuda.cudaMemsetAsync(target, 0, size, self._stream))

    def synchronize(self) -> None:
        """Wait until everything in the stream is done."""
        self._call(self._cuda.cudaStreamSynchronize(self._stream))

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return a function that queues, in one launch, what ``work`` queues (a CUDA graph).

        Nothing of it runs now. Addresses are recorded, not what lies there.

        Raises:
            RecordingError: There is something in it that cannot be recorded.
        """
        cuda = self._cuda
        # Other threads may go on allocating while this one records.
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        with contextlib.ExitStack() as at_end:
            self._call(cuda.cudaStreamBeginCapture(self._stream, mode))
            failure: Exception | None = None
            try:
                work()
            except SalstreamError as error:
                failure = error
            finally:  # whatever happened: a stream that goes on recording runs nothing any more
                status, graph = cuda.cudaStreamEndCapture(self._stream)
                cuda.cudaGetLastError()  # or the next call would report it again
                if graph:
                    at_end.callback(cuda.cudaGraphDestroy, graph)
            if status != cuda.cudaError_t.cudaSuccess or failure is not None:
                raise RecordingError(f"the work cannot be recorded: {failure or status.name}")
            executable = self._call(cuda.cudaGraphInstantiate(graph, 0))

        def replay() -> None:
            self._call(cuda.cudaGraphLaunch(executable, self._stream))

        weakref.finalize(replay, cuda.cudaGraphExecDestroy, executable).atexit = False
        return replay

    def _copy(self, target: int, source: int, size: int, direction: str) -> None:
        kind = getattr(self._cuda.cudaMemcpyKind, f"cudaMemcpy{direction}")
        self._call(self._cuda.cudaMemcpyAsync(target, source, size, kind, self._stream))

    def _call(self, answer: tuple[Any, ...], size: int = 0) -> Any:
        """Return what a call gave beside its status.

        Raises:
            SalstreamError: The status is an error.
        """
        status, *values = answer
        errors = self._cuda.cudaError_t
        if status == errors.cudaErrorMemoryAllocation:
            free = self._cuda.cudaMemGetInfo()[1]
            raise SalstreamError(
                f"out of GPU memory: {size / 1e6:.0f} MB more are needed and {free / 1e6:.0f} MB "
                "are free; end other programs that use the GPU, or build the engine for smaller "
                "batches"
            )
        if status != errors.cudaSuccess:
            text = self._cuda.cudaGetErrorString(status)[1].decode()
            raise SalstreamError(f"the GPU failed: {text} ({status.name})")
        return values[0] if values else None


def _check_driver(cuda: Any) -> None:
    """Refuse a machine whose driver or GPU is not there or too old."""
    driver = cuda.cudaDriverGetVersion()[1]
    if not driver:
        raise SalstreamError(
            "CUDA is not there: no NVIDIA driver was found; install the driver of your GPU, or "
            "run the .onnx graph on the CPU"
        )
    status, count = cuda.cudaGetDeviceCount()
    if status == cuda.cudaError_t.cudaErrorInsufficientDriver:
        major = cuda.cudaRuntimeGetVersion()[1] // 1000
        needed = _FIRST_DRIVERS.get(major)
        raise SalstreamError(
            f"CUDA is too old: the NVIDIA driver supports CUDA {cuda_version(driver)}, and the "
            f"installed cuda-bindings need {major}.0"
            + (f" (driver {needed} or newer)" if needed else "")
            + f"; update the driver, or: pip install 'cuda-bindings<{major}'"
        )
    if status != cuda.cudaError_t.cudaSuccess or not count:
        raise SalstreamError(
            "no GPU was found, though an NVIDIA driver is there "
            f"({status.name}); look at nvidia-smi and at CUDA_VISIBLE_DEVICES"
        )


def cuda_version(number: int) -> str:
    """Return ``12.4`` for 12040."""
    return f"{number // 1000}.{number % 1000 // 10}"
