"""Checkpoints are read without running any code in them, and compared with their model."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from salstream.runtime.errors import SalstreamError, UsageError
from salstream.training.weights import sha256_of

__all__ = ["check_layout", "load_state_dict", "sha256_of"]

_log = logging.getLogger("salstream")
_WRAPPERS: Final = ("state_dict", "model_state_dict", "model")
_DATA_PARALLEL: Final = "module."
# How the two formats of torch.save begin: a zip archive, and before torch 1.6 a pickled number.
_TORCH_BEGINNINGS: Final = (b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19")


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint's tensors, on the CPU.

    PyTorch and safetensors files are told apart by what they contain. A training checkpoint
    is unwrapped: the state dict may lie under ``state_dict``, ``model_state_dict`` or
    ``model``, and its names may begin with ``module.``.

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


def check_layout(state: Mapping[str, Tensor], model: torch.nn.Module, name: str) -> None:
    """Refuse a state dict that does not fit ``model`` exactly.

    Args:
        state: Tensors by name.
        model: The network that they are meant for.
        name: What the message calls the network.

    Raises:
        SalstreamError: Entries are missing, left over or of another shape; the message names
            the first three of each.
    """
    expected: dict[str, Tensor] = model.state_dict()
    faults = [
        ("missing", [key for key in expected if key not in state]),
        ("left over", [key for key in state if key not in expected]),
        (
            "of another shape",
            [
                f"{key} {tuple(state[key].shape)} instead of {tuple(tensor.shape)}"
                for key, tensor in expected.items()
                if key in state and state[key].shape != tensor.shape
            ],
        ),
    ]
    said = [f"{len(found)} {what} ({_first(found)})" for what, found in faults if found]
    if said:
        raise SalstreamError(
            f"the checkpoint does not fit {name}, which has {len(expected)} entries: "
            f"{', '.join(said)}; check that it belongs to this model"
        )


def _is_safetensors(beginning: bytes, size: int) -> bool:
    """Tell by the header: its length in 8 bytes, then JSON."""
    return beginning[8:9] == b"{" and int.from_bytes(beginning[:8], "little") <= size


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise SalstreamError(
            f"reading {path} needs safetensors, which is not installed; "
            "run `pip install safetensors`"
        ) from error
    try:
        return load_file(path)
    except Exception as error:
        raise SalstreamError(
            f"{path} is a safetensors file that is damaged or cut short; fetch it again"
        ) from error


def _load_torch(path: Path, beginning: bytes) -> Any:  # noqa: ANN401 - whatever was saved
    try:
        # Given a path, PyTorch would go by its suffix, and not by what the file contains. It
        # also warns about formats that it is about to refuse.
        with path.open("rb") as file, warnings.catch_warnings(action="ignore"):
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
    for _ in range(len(_WRAPPERS)):  # bounded, since a file can hold a dict that holds itself
        if not isinstance(content, Mapping):
            break
        inner = next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        _log.info("%s is a training checkpoint; its %r is used", path, inner)
        content = content[inner]
    if not isinstance(content, Mapping):
        raise SalstreamError(
            f"{path} holds a {type(content).__name__}, expected a dict of tensors by name"
        )
    state = {
        key: value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    if not state:
        raise SalstreamError(
            f"{path} holds a dict without tensors (its keys: {_first(content) or 'none'}); "
            f"expected tensors by name, on top or under {', '.join(_WRAPPERS)}"
        )
    if len(state) < len(content):
        others = [key for key in content if key not in state]
        _log.warning("%s: entries that are no tensors are left out: %s", path, _first(others))
    if all(key.startswith(_DATA_PARALLEL) for key in state):
        _log.info("%s: the prefix %r is taken off its names", path, _DATA_PARALLEL)
        state = {key.removeprefix(_DATA_PARALLEL): value for key, value in state.items()}
    return state


def _first(names: Iterable[object]) -> str:
    """Return the first three names, and how many more there are."""
    shown = [str(name) for name in names]
    more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
    return ", ".join(shown[:3]) + more
