"""libsalstream through ctypes, for the tests alone: the same calls as Python's predictor.

The structs and numbers are those of ``runtime/cpp/include/salstream/salstream.h``.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_char_p, c_double, c_int32, c_int64, c_size_t, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# Python's name of the inference library that C++ runs: only there are the maps the same to 1e-6.
SAME_LIBRARY: Final = "onnxruntime:cpu"

STATUSES: Final = [
    "ok",
    "none",
    "invalid_argument",
    "invalid_state",
    "in_use",
    "model_closed",
    "file_unreadable",
    "model_damaged",
    "schema_unknown",
    "library_missing",
    "inference_failed",
    "no_memory",
    "internal",
]
FORMATS: Final = {"bgr": 0, "rgb": 1, "bgra": 2, "nv12": 3, "gray": 4}
STARTS: Final = {None: 0, "reverse": 1, "repeat": 2, "skip": 3}


class Sized(ctypes.Structure):
    """A struct that starts with its size."""

    def __init__(self, **values: Any) -> None:
        super().__init__(struct_size=ctypes.sizeof(self), **values)


class ModelOptions(Sized):
    _fields_ = [
        ("struct_size", c_size_t),
        ("library", c_char_p),
        ("provider", c_int32),
        ("device", c_int32),
        ("threads", c_int32),
    ]


class ModelInfo(Sized):
    _fields_ = [
        ("struct_size", c_size_t),
        ("model", c_char_p),
        ("domain", c_char_p),
        ("precision", c_char_p),
        ("license", c_char_p),
        ("attribution", c_char_p),
        ("backend", c_char_p),
        ("height", c_int32),
        ("width", c_int32),
        ("map_height", c_int32),
        ("map_width", c_int32),
        ("window", c_int32),
        ("map_frame", c_int32),
        ("phases", c_int32),
        ("state_fps", c_double),
        ("recurrent", c_int32),
        ("conspicuity_levels", c_int32),
        ("window_fps", c_double),
    ]


class StreamOptions(Sized):
    _fields_ = [
        ("struct_size", c_size_t),
        ("start", c_int32),
        ("phases", c_int32),
        ("stride", c_int32),
        ("fps", c_double),
        ("map_type", c_int32),
        ("map_size", c_int32),
    ]


class Frame(Sized):
    _fields_ = [
        ("struct_size", c_size_t),
        ("format", c_int32),
        ("height", c_int32),
        ("width", c_int32),
        ("data", c_void_p),
        ("pitch", c_size_t),
        ("chroma", c_void_p),
        ("chroma_pitch", c_size_t),
        ("has_index", c_int32),
        ("has_time", c_int32),
        ("index", c_int64),
        ("time_s", c_double),
    ]


class RawResult(Sized):
    _fields_ = [
        ("struct_size", c_size_t),
        ("index", c_int64),
        ("has_time", c_int32),
        ("type", c_int32),
        ("time_s", c_double),
        ("height", c_int32),
        ("width", c_int32),
        ("map", c_void_p),
        ("conspicuity", POINTER(ctypes.c_float)),
    ]


class StreamInfo(Sized):
    _fields_ = [
        ("struct_size", c_size_t),
        ("start", c_int32),
        ("phases", c_int32),
        ("stride", c_int32),
        ("ready", c_int32),
        ("waiting", c_int32),
        ("skipped", c_int64),
    ]


class NativeError(Exception):
    """A call that failed: its status, and the library's sentence about it."""

    def __init__(self, status: str, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status
        self.text = text


@dataclass(frozen=True)
class NativeResult:
    """A result, copied out of the library."""

    index: int
    time: float | None
    map: NDArray[Any]
    conspicuity: NDArray[np.float32] | None


class Native:
    """The loaded library.

    Args:
        path: The shared library.
        onnxruntime: The inference library.
    """

    def __init__(self, path: Path, onnxruntime: Path) -> None:
        self.onnxruntime = onnxruntime
        self.lib = ctypes.CDLL(str(path))
        for name in ("version", "revision", "last_error", "status_text"):
            getattr(self.lib, f"sal_{name}").restype = c_char_p
        for name in ("model_open", "model_info_get"):
            getattr(self.lib, f"sal_{name}").argtypes = [c_void_p] * (2 + (name == "model_open"))
        for name in ("push", "next", "info_get"):
            getattr(self.lib, f"sal_stream_{name}").argtypes = [c_void_p, c_void_p]
        for name in ("flush", "reset", "free"):
            getattr(self.lib, f"sal_stream_{name}").argtypes = [c_void_p]
        self.lib.sal_stream_new.argtypes = [c_void_p] * 3
        self.lib.sal_model_close.argtypes = [c_void_p]
        self.lib.sal_model_close.restype = self.lib.sal_stream_free.restype = None

    def check(self, status: int) -> str:
        """Return ``ok`` or ``none``; raise what else a call says."""
        name = STATUSES[status]
        if name not in ("ok", "none"):
            text = self.lib.sal_last_error().decode()
            assert text, f"{name} without a text"
            raise NativeError(name, text)
        return name

    def open(self, path: Path | str, threads: int = 0, **options: Any) -> NativeModel:
        """Open a model."""
        chosen = ModelOptions(library=str(self.onnxruntime).encode(), threads=threads)
        for key, value in options.items():
            setattr(chosen, key, value)
        handle = c_void_p()
        self.check(self.lib.sal_model_open(str(path).encode(), byref(chosen), byref(handle)))
        return NativeModel(self, handle)


class NativeModel:
    def __init__(self, native: Native, handle: c_void_p) -> None:
        self.native = native
        self.handle = handle

    @property
    def info(self) -> ModelInfo:
        filled = ModelInfo()
        self.native.check(self.native.lib.sal_model_info_get(self.handle, byref(filled)))
        return filled

    def close(self) -> None:
        self.native.lib.sal_model_close(self.handle)
        self.handle = c_void_p()

    def predictor(
        self,
        *,
        start: str | None = None,
        phases: int | None = None,
        stride: int | None = None,
        fps: float | None = None,
        map_type: int = 0,
        map_size: int = 1,
    ) -> NativePredictor:
        """Return a stream with the calls of Python's predictor."""
        options = StreamOptions(
            start=STARTS[start],
            phases=phases or 0,
            stride=stride or 0,
            fps=fps or 0,
            map_type=map_type,
            map_size=map_size,
        )
        handle = c_void_p()
        self.native.check(
            self.native.lib.sal_stream_new(self.handle, byref(options), byref(handle))
        )
        return NativePredictor(self.native, handle, self.info)


class NativePredictor:
    def __init__(self, native: Native, handle: c_void_p, model: ModelInfo) -> None:
        self.native = native
        self.handle = handle
        self._model = model

    def push(self, image: NDArray[np.uint8], form: str = "bgr", **facts: Any) -> list[NativeResult]:
        """Push a frame and return the results that became ready."""
        frame = Frame(
            format=FORMATS[form],
            height=image.shape[0] * 2 // 3 if form == "nv12" else image.shape[0],
            width=image.shape[1],
            data=image.ctypes.data,
            pitch=image.strides[0],
        )
        for key, value in facts.items():
            setattr(frame, key, value)
        self.native.check(self.native.lib.sal_stream_push(self.handle, byref(frame)))
        return self.take()

    def flush(self) -> list[NativeResult]:
        """End the stream as Python's does, ready for the next one."""
        self.native.check(self.native.lib.sal_stream_flush(self.handle))
        results = self.take()
        self.reset()
        return results

    def take(self) -> list[NativeResult]:
        results = []
        raw = RawResult()
        while self.native.check(self.native.lib.sal_stream_next(self.handle, byref(raw))) == "ok":
            kind = ctypes.c_uint8 if raw.type else ctypes.c_float
            pointer = ctypes.cast(raw.map, POINTER(kind))
            shape = raw.height, raw.width
            conspicuity = None
            if raw.conspicuity:
                levels = (
                    self._model.conspicuity_levels,
                    self._model.map_height,
                    self._model.map_width,
                )
                conspicuity = np.ctypeslib.as_array(raw.conspicuity, levels).copy()
            results.append(
                NativeResult(
                    raw.index,
                    raw.time_s if raw.has_time else None,
                    np.ctypeslib.as_array(pointer, shape).copy(),
                    conspicuity,
                )
            )
        return results

    @property
    def info(self) -> StreamInfo:
        filled = StreamInfo()
        self.native.check(self.native.lib.sal_stream_info_get(self.handle, byref(filled)))
        return filled

    @property
    def skipped(self) -> int:
        return int(self.info.skipped)

    def reset(self) -> None:
        self.native.check(self.native.lib.sal_stream_reset(self.handle))

    def free(self) -> None:
        self.native.lib.sal_stream_free(self.handle)
        self.handle = c_void_p()
