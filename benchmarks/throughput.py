"""Frames per second of PyTorch, the bare graph and whole runs, interleaved in one process.

    python benchmarks/throughput.py CLIP CHECKPOINT [--rounds 5]

Every round measures each of them once over the same clip; the table shows the median of
the rounds' ratios, because a shared machine drifts.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from salstream.runtime import SaliencyModel
from salstream.runtime.preprocess import prepare
from salstream.runtime.run import consume, summary_of
from salstream.runtime.sinks import OverlayVideo
from salstream.runtime.sources import open_source
from salstream.training.checkpoints import load_state_dict
from salstream.training.unisal import Unisal, normalise

MODEL = "unisal-dhf1k"
TORCH_FRAMES = 40


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", type=Path)
    parser.add_argument("checkpoint", type=Path, help="UNISAL's published checkpoint")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    model = SaliencyModel.open(MODEL, backend="onnxruntime:cpu", threads=arguments.threads)
    with open_source(arguments.clip) as source:
        frames = np.stack([prepare(frame, model.spec) for frame in source])
    folder = tempfile.TemporaryDirectory()
    overlay = Path(folder.name) / "overlay.mp4"
    candidates: dict[str, Callable[[], float]] = {
        "PyTorch eager": _torch(arguments.checkpoint, frames[:TORCH_FRAMES]),
        "bare graph": _bare(model.path, frames, arguments.threads),
        "run": lambda: _run(model, arguments.clip, None),
        "run --save": lambda: _run(model, arguments.clip, overlay),
    }
    rounds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(-1, arguments.rounds):
        for name, measure in candidates.items():
            rate = measure()
            if number >= 0:  # the first round warms up
                rounds[name].append(rate)

    print(f"{arguments.clip.name}, {len(frames)} frames, {arguments.threads} threads")
    print("| | frames per second | of PyTorch eager | of the bare graph |\n|---|---|---|---|")
    for name, rates in rounds.items():
        to_torch, to_bare = (
            statistics.median(a / b for a, b in zip(rates, rounds[other], strict=True))
            for other in ("PyTorch eager", "bare graph")
        )
        print(f"| {name} | {statistics.median(rates):.1f} | {to_torch:.2f} | {to_bare:.2f} |")


def _torch(checkpoint: Path, frames: np.ndarray) -> Callable[[], float]:
    network = Unisal().eval()
    network.load_state_dict(load_state_dict(checkpoint))

    @torch.inference_mode()
    def measure() -> float:
        begin, state = time.perf_counter(), None
        for frame in torch.from_numpy(frames):
            logarithms, state = network(normalise(frame)[None, None], "dhf1k", state)
            torch.exp(logarithms - logarithms.max())
        return len(frames) / (time.perf_counter() - begin)

    return measure


def _bare(path: Path, frames: np.ndarray, threads: int) -> Callable[[], float]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[1].shape[1:]

    def measure() -> float:
        begin, state = time.perf_counter(), np.zeros((1, *shape), np.float32)
        for frame in frames:
            _, state = session.run(None, {"frames": frame[None, None], "state_gru": state})
        return len(frames) / (time.perf_counter() - begin)

    return measure


def _run(model: SaliencyModel, clip: Path, overlay: Path | None) -> float:
    stream = model.stream(clip)
    sinks = [OverlayVideo(overlay, stream.source.fps)] if overlay else []
    summary = summary_of(model, stream)
    consume(stream, sinks, summary)
    return summary.fps


if __name__ == "__main__":
    main()
