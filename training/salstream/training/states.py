"""Saved states of a run: the weights under published names, and what it takes to go on.

    RUN/checkpoints/000100/weights.safetensors   the network
    RUN/checkpoints/000100/training.safetensors  the optimizer, the running average, counters
    RUN/best.safetensors                         the network that validated best

A state is a folder that gets its name when it is whole and on the disk, so a run that is
killed at any moment leaves the one before. Random numbers need no saving: they depend on the
seed and the iteration alone.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from salstream.runtime.errors import SalstreamError
from salstream.training.checkpoints import load_state_dict, metadata_of, serialised

BEST = "best.safetensors"


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        iteration: Iterations that are done.
        best: The best value of the metric that selects, so far.
        best_iteration: When that was; 0: not yet.
    """

    iteration: int = 0
    best: float = float("nan")
    best_iteration: int = 0


def save_state(
    run: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Mapping[str, Tensor],
    progress: Progress,
    metadata: Mapping[str, str],
) -> None:
    """Save a state, then remove the one before.

    Raises:
        SalstreamError: The disk is full or cannot be written; the state before is intact.
    """
    folder = run / "checkpoints" / f"{progress.iteration:06d}"
    part = folder.with_name(f"{folder.name}.part")
    before = latest(run)
    tensors = {"iteration": torch.tensor(progress.iteration)}
    tensors |= {f"average.{name}": value for name, value in average.items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{key}.{name}"] = value
    facts = {"progress": json.dumps(asdict(progress))}
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        _write(part / "weights.safetensors", model.state_dict(), metadata)
        _write(part / "training.safetensors", tensors, facts)
        _sync(part)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
        _sync(folder.parent)
    except KeyboardInterrupt:
        shutil.rmtree(part, ignore_errors=True)
        raise
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        intact = f"the state of iteration {int(before.name)} is intact" if before else ""
        raise SalstreamError(_cannot(folder, error, intact)) from error
    for old in folder.parent.iterdir():
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)


def load_state(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: dict[str, Tensor]
) -> Progress:
    """Bring network, optimizer and running average to a saved state.

    Raises:
        SalstreamError: The state is damaged.
    """
    training = folder / "training.safetensors"
    try:
        model.load_state_dict(load_state_dict(folder / "weights.safetensors"))
        tensors = load_state_dict(training)
        progress = Progress(**json.loads(metadata_of(training)["progress"]))
        named = dict(model.named_parameters())
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "iteration":
                continue  # there so that a state without any other tensor is a file too
            if kind == "average":
                average[rest].copy_(value)
            else:
                key, _, owner = rest.partition(".")
                parameter = named[owner]
                # Adam counts its steps on the CPU.
                there = value if key == "step" else value.to(parameter.device)
                optimizer.state[parameter][key] = there
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        raise SalstreamError(f"{folder} is damaged: {error}; start the run anew") from error
    return progress


def latest(run: Path) -> Path | None:
    """Return the folder of a run's last saved state; None if there is none."""
    found = sorted(p for p in (run / "checkpoints").glob("*") if p.name.isdigit())
    return found[-1] if found else None


def save_best(run: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Save the weights that validated best, whole or not at all.

    Raises:
        SalstreamError: The disk is full or cannot be written; the best before is intact.
    """
    path = run / BEST
    part = path.with_name(f"{path.name}.part")
    try:
        _write(part, state, metadata)
        part.replace(path)
        _sync(run)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        intact = "the best checkpoint before is intact" if path.exists() else ""
        raise SalstreamError(_cannot(path, error, intact)) from error


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and wait until they are on the disk."""
    with path.open("wb") as file:
        file.write(serialised(tensors, metadata))
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Wait until a folder's entries are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot(path: Path, error: OSError, intact: str) -> str:
    means = "; make room and go on with --resume"
    return f"cannot save {path}: {error.strerror}{means}" + (f" ({intact})" if intact else "")
