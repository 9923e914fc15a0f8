"""Checkpoints are read without running any code in them, and written as safetensors."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from salstream.runtime import files
from salstream.runtime.errors import SalstreamError, UsageError
from salstream.runtime.spec import GraphSpec
from salstream.training.weights import sha256_of

__all__ = [
    "AVERAGED", "AVERAGES", "PREFIXES", "TrainedOn", "at_clip_rate", "first_of",
    "load_state_dict", "metadata_of", "save_state_dict", "sha256_of", "trained_on",
]  # fmt: skip

_log = logging.getLogger("salstream")
_WRAPPERS: Final = ("state_dict", "model_state_dict", "model")
# Names under which training codes keep a running average of the weights, as a dict or a module.
AVERAGES: Final = (
    "state_dict_ema", "model_state_dict_ema", "ema_state_dict", "ema_model", "model_ema", "ema",
    "averaged_model", "shadow",
)  # fmt: skip
# Modules around a network: DataParallel's, AveragedModel's, Lightning's, torch-ema's.
PREFIXES: Final = ("module", "model", "net", "network", "online_model", *AVERAGES)
AVERAGED: Final = "; these weights are a running average (EMA)"
_COUNTER: Final = "n_averaged"  # beside the names of torch.optim.swa_utils.AveragedModel
_COMPILED: Final = "_orig_mod"  # torch.compile's, around a network or any part of it
_DEPTH: Final = 6  # a file can hold a dict that holds itself
# How the two formats of torch.save begin: a zip archive, and before torch 1.6 a pickled number.
_TORCH_BEGINNINGS: Final = (b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19")


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint's tensors, on the CPU.

    PyTorch and safetensors files are told apart by what they contain. A training checkpoint
    is unwrapped: the state dict may lie under ``state_dict``, ``model_state_dict`` or
    ``model``; a running average of it (EMA) is preferred. Prefixes that all names share, such as
    ``module.``, and ``_orig_mod.`` anywhere are taken off. Each is said in the log.

    Args:
        path: The file.

    Returns:
        Tensors by name, in the file's order.

    Raises:
        UsageError: There is no such file.
        SalstreamError: It is not a checkpoint, is damaged, holds more than tensors and plain
            values, or holds no tensors.
    """
    if not path.is_file():
        there = "a folder" if path.is_dir() else "nothing"
        raise UsageError(f"expected a checkpoint file at {path}, found {there}; check the path")
    try:
        with path.open("rb") as file:
            beginning = file.read(16)
        size = path.stat().st_size
    except OSError as error:
        raise SalstreamError(f"{path} cannot be read: {error.strerror}") from error
    if _is_safetensors(beginning, size):
        return _unwrap(_load_safetensors(path), path)
    return _unwrap(_load_torch(path, beginning), path)


def save_state_dict(state: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write tensors as safetensors; the file appears under its name only when it is whole.

    Args:
        state: Tensors by name.
        path: The ``.safetensors`` file.
        metadata: What to say about them in the file's header.

    Raises:
        SalstreamError: The file cannot be written.
    """
    files.write_bytes(path, serialised(state, metadata))


def serialised(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return tensors as the content of a safetensors file."""
    plain = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    return save(plain, dict(metadata))


def metadata_of(path: Path) -> dict[str, str]:
    """Return what a safetensors file says about itself; nothing for any other file."""
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError):
        return {}


class TrainedOn(NamedTuple):
    """The clips that `salstream train` wrote down; None each where the file does not say.

    Attributes:
        size: Height and width.
        clip_length: Frames of HD2S's window.
        clip_rate: Frames per second, where clips had another rate than their videos.
    """

    size: tuple[int, int] | None
    clip_length: int | None
    clip_rate: float | None


def trained_on(metadata: Mapping[str, str], model: str) -> TrainedOn:
    """Return the clips that a checkpoint was trained on.

    Args:
        metadata: What the checkpoint says about itself, see :func:`metadata_of`.
        model: The network's name. A clip is a window for HD2S and SalGradNet only.
    """
    family = model.partition("-")[0]
    size = re.fullmatch(r"(\d+)x(\d+)", metadata.get("size", ""))
    length = metadata.get("clip_length", "") if family in ("hd2s", "salgradnet") else ""
    rate = re.fullmatch(r"\d+(\.\d+)?", metadata.get("clip_rate", ""))
    return TrainedOn(
        (int(size[1]), int(size[2])) if size else None,
        int(length) if length.isdecimal() else None,
        float(rate[0]) or None if rate else None,
    )


def at_clip_rate(spec: GraphSpec, rate: float | None) -> GraphSpec:
    """Return the spec with states, or else windows, at the rate of the clips of training."""
    if rate is None:
        return spec
    if spec.state_fps is not None:
        return replace(spec, state_fps=rate)
    return spec if spec.window_fps is None else replace(spec, window_fps=rate)


def _is_safetensors(beginning: bytes, size: int) -> bool:
    """Tell by the header: its length in 8 bytes, then JSON."""
    return beginning[8:9] == b"{" and int.from_bytes(beginning[:8], "little") <= size


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:
        raise SalstreamError(
            f"{path} is a safetensors file that is damaged or cut short; fetch it again"
        ) from error


class _Inert:
    """Stands in for what NumPy saves: takes anything, keeps and does nothing.

    NumPy's own constructors would let a file describe memory that holds pointers.
    """

    def __new__(cls, *_: object) -> _Inert:
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None:
        """Take the state of an array or a dtype."""


def _dict(*_: object) -> dict[object, object]:
    """Return an empty dict in place of a defaultdict, whose factory is not needed."""
    return {}


# NumPy 2 calls numpy.core numpy._core. Types are factories of defaultdicts, or empty bytes.
_HARMLESS: Final = (
    (_dict, "collections.defaultdict"),
    *(
        (_Inert, f"builtins.{name}")
        for name in ("int", "float", "bool", "str", "bytes", "list", "dict")
    ),
    *((_Inert, f"numpy.{name}") for name in ("dtype", "ndarray", "bool_")),
    *((_Inert, f"numpy.{kind.__name__}") for kind in np.sctypeDict.values()),
    *((_Inert, f"numpy.dtypes.{name}") for name in dir(np.dtypes) if name.endswith("DType")),
    *(
        (_Inert, f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    ),
)


def _load_torch(path: Path, beginning: bytes) -> Any:
    try:
        # Given a path, PyTorch would go by its suffix, and not by what the file contains. It
        # also warns about formats that it is about to refuse.
        allowed = torch.serialization.safe_globals([*_HARMLESS])
        with path.open("rb") as file, warnings.catch_warnings(action="ignore"), allowed:
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch raises almost any type on bytes that are no checkpoint
        refused = re.search(r"\bGLOBAL (\w[\w.]*\w) ", str(error))
        if refused:
            reason = (
                f"{path} holds more than tensors and was not loaded, because loading it would "
                f"run {refused[1]}; save its state dict alone, with torch.save or safetensors"
            )
        elif beginning.startswith(_TORCH_BEGINNINGS):
            reason = (
                f"{path} begins like a PyTorch checkpoint but cannot be read as one; it is "
                "damaged, cut short or of another kind (TorchScript, for example): fetch or "
                "save it again"
            )
        else:
            reason = f"{path} is not a checkpoint; expected a PyTorch or a safetensors file"
        raise SalstreamError(reason) from error


def _unwrap(content: object, path: Path) -> dict[str, Tensor]:
    """Return the tensors of a state dict, or of the one inside a training checkpoint."""
    content = _innermost(content, path)
    if not isinstance(content, Mapping):
        raise SalstreamError(
            f"{path} holds a {type(content).__name__}, expected a dict of tensors by name"
        )
    state = _tensors(content)
    if not state:
        raise SalstreamError(
            f"{path} holds a dict without tensors (its keys: {first_of(content) or 'none'}); "
            f"expected tensors by name, on top or under {', '.join(_WRAPPERS)}"
        )
    if len(state) < len(content):
        others = [key for key in content if key not in state]
        _log.warning("%s: entries that are no tensors are left out: %s", path, first_of(others))
    state, prefixes = _without_prefixes(state)
    if prefixes:
        _log.info(
            "%s: the prefix %s is taken off its names%s",
            path,
            ", ".join(f"'{prefix}.'" for prefix in prefixes if prefix != _COUNTER),
            AVERAGED if {*prefixes} & {*AVERAGES, _COUNTER} else "",
        )
    return state


def _innermost(content: object, path: Path, depth: int = 0) -> object:
    """Return the state dict inside a training checkpoint; the average, where it has both."""
    if not isinstance(content, Mapping) or depth > _DEPTH:
        return content
    inside = {key: content[key] for key in content if isinstance(content[key], Mapping)}
    wrappers = _WRAPPERS if depth == 0 else (*_WRAPPERS, "module")
    trained = next((key for key in wrappers if key in inside), None)
    averaged = next((key for key in AVERAGES if key in inside), None)
    if averaged is not None:
        average = _innermost(inside[averaged], path, depth + 1)
        weights = content if trained is None else _innermost(inside[trained], path, depth + 1)
        mine, _ = _without_prefixes(_tensors(average))
        theirs, _ = _without_prefixes(_tensors(weights))
        # An average may lack what is not trained, such as the statistics of BatchNorm.
        if mine and (not theirs or mine.keys() <= theirs.keys()):
            _log.warning("%s is a training checkpoint; its %r is used%s", path, averaged, AVERAGED)
            return theirs | mine
        if theirs:
            _log.warning("%s: its %r is no average of the weights and is not used", path, averaged)
    if trained is None:
        return content
    _log.info("%s is a training checkpoint; its %r is used", path, trained)
    return _innermost(inside[trained], path, depth + 1)


def _tensors(content: object) -> dict[str, Tensor]:
    items = content.items() if isinstance(content, Mapping) else ()
    return {k: value for k, value in items if isinstance(k, str) and isinstance(value, Tensor)}


def _without_prefixes(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Take off what modules around a network put before all names; say what was taken off."""
    prefixes = []
    plain = {".".join(p for p in k.split(".") if p != _COMPILED): v for k, v in state.items()}
    if len(plain) == len(state) and plain.keys() != state.keys():
        prefixes, state = [_COMPILED], plain
    while True:
        named = {name: value for name, value in state.items() if name != _COUNTER}
        heads = {name.partition(".")[0] if "." in name else "" for name in named}
        if len(heads) != 1 or not heads <= {*PREFIXES}:
            return state, prefixes
        (head,) = heads
        prefixes += [head] if len(named) == len(state) else [head, _COUNTER]
        state = {name.removeprefix(f"{head}."): value for name, value in named.items()}


def first_of(names: Iterable[object]) -> str:
    """Return the first three names, and how many more there are."""
    shown = [str(name) for name in names]
    more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
    return ", ".join(shown[:3]) + more
