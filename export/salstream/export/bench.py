"""How fast artefacts are, on every library that is installed, interleaved in one run.

Shared machines drift, so every round measures each contender once, and ratios are the medians
of the rounds' ratios.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import psutil

from salstream.runtime import GraphSpec, SaliencyModel, SalstreamError, UsageError
from salstream.runtime.backends import BACKENDS
from salstream.runtime.preprocess import prepare
from salstream.runtime.ring import FrameRing
from salstream.runtime.sources import Frame

Frames = Sequence[Frame]

# A library's threads go on spinning for a while, and would take a core from the next one.
_PAUSE_S: Final = 0.05
# What one contender gets of a round: enough runs for this long, but not fewer than three.
_SHARE_S: Final = 0.4
_FEWEST_RUNS: Final = 3


# What a library that runs out of memory, or does not know an operator, may raise.
_FAILURES: Final = (SalstreamError, RuntimeError, MemoryError)


class Contender(Protocol):
    """Something that makes maps.

    Attributes:
        name: The artefact.
        library: What runs it, and where.
        precision: Of its arithmetic.
    """

    name: str
    library: str
    precision: str

    def graph(self) -> None:
        """Make a map of frames that lie ready, and wait for it."""

    def push(self, frame: Frame) -> None:
        """Make a map of a new frame, uint8 BGR of any size, from resizing to the map."""

    def stream(self) -> int | None:
        """Stream the source with threads, and return how many maps came; None: it cannot."""


@dataclass
class Score:
    """What was measured of a contender.

    Attributes:
        contender: Whose it is.
        memory_mb: By how much opening it and a first map grew this process; not the GPU's.
        graph_ms: One list per round, of the runs' milliseconds.
        push_ms: The same of a frame's way to its map.
        stream_fps: One per round.
    """

    contender: Contender
    memory_mb: float
    graph_ms: list[list[float]] = field(default_factory=list)
    push_ms: list[list[float]] = field(default_factory=list)
    stream_fps: list[float] = field(default_factory=list)

    def ratio_to(self, other: Score) -> float:
        """Return how many times as fast the graph is as another: the median over rounds."""
        return statistics.median(
            statistics.median(theirs) / statistics.median(ours)
            for ours, theirs in zip(self.graph_ms, other.graph_ms, strict=True)
        )

    def as_json(self, first: Score) -> dict[str, Any]:
        """Return the figures for programs; ``ratio`` is to ``first``."""
        return {
            "artefact": self.contender.name,
            "library": self.contender.library,
            "precision": self.contender.precision,
            "graph_ms": percentiles(self.graph_ms),
            "frame_to_map_ms": percentiles(self.push_ms),
            "stream_fps": round(statistics.median(self.stream_fps), 2) if self.stream_fps else None,
            "memory_mb": round(self.memory_mb, 1),
            "ratio": round(self.ratio_to(first), 3),
        }


def percentiles(rounds: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return p50, p95 and p99 of all rounds together."""
    values = np.concatenate([np.asarray(values) for values in rounds])
    return {f"p{p}": round(float(np.percentile(values, p)), 3) for p in (50, 95, 99)}


class Artefact:
    """A graph or an engine in one library.

    Args:
        model: Opened.
        frames: Of a source.
        source: What is streamed.
        limit: How many frames of it.
    """

    def __init__(
        self, model: SaliencyModel, frames: Frames, source: Path | None, limit: int
    ) -> None:
        self.name = model.path.name
        self.library = model.backend.name
        self.precision = model.spec.precision
        self._model = model
        self._source = source or [frame.image for frame in frames]
        self._limit = limit
        # The first frame fills the window: every frame then makes one map.
        self._predictor = model.predictor(start="repeat")
        self._ring = model.backend.new_ring()
        for frame in _repeated(frames, model.spec.window):
            self._ring.push(prepare(frame, model.spec))
        self._state: Any = None

    def graph(self) -> None:
        """Run the graph on the frames in the ring."""
        output = self._model.backend.run(self._ring.batch(), self._state)
        self._state = output.state

    def push(self, frame: Frame) -> None:
        """Push a frame through a predictor."""
        self._predictor.push(frame)

    def stream(self) -> int | None:
        """Stream the source."""
        with self._model.stream(self._source, limit=self._limit) as stream:
            return sum(1 for _ in stream)


class PyTorch:
    """The network as it was trained, in PyTorch eager.

    Args:
        deployable: The network.
        frames: Of a source.
        device: ``cpu`` or ``cuda``.
        autocast: In float16 (on the CPU bfloat16) where PyTorch thinks it safe.
    """

    def __init__(self, deployable: Any, frames: Frames, device: str, autocast: bool) -> None:
        import torch

        self._torch = torch
        self._device = device
        self._type = torch.bfloat16 if device == "cpu" else torch.float16
        self._autocast = autocast
        self._spec: GraphSpec = deployable.spec
        self._eager = deployable.eager
        deployable.network.to(device)
        if not autocast:  # fp32 shall mean it: by itself PyTorch convolves in TF32
            torch.backends.cudnn.allow_tf32 = False
        self.name = f"PyTorch {deployable.spec.name}"
        self.library = f"torch-{device}"
        self.precision = "autocast" if autocast else "fp32"
        self._ring = FrameRing(self._spec.window, (*self._spec.size, 3))
        for frame in _repeated(frames, self._spec.window):
            self._ring.push(prepare(frame, self._spec))
        self._ready = self._window()
        self._state: Any = None

    def graph(self) -> None:
        """Run the network on frames that are on its device."""
        self._run(self._ready)

    def push(self, frame: Frame) -> None:
        """Resize a frame, hand the window over, and fetch the map."""
        self._ring.push(prepare(frame, self._spec))
        self._run(self._window()).float().cpu().numpy()

    def stream(self) -> int | None:
        """Nothing: PyTorch has no stream of ours."""
        return None

    def _window(self) -> Any:
        return self._torch.from_numpy(self._ring.batch().copy()).to(self._device)

    def _run(self, frames: Any) -> Any:
        with self._torch.autocast(self._device, self._type, enabled=self._autocast):
            maps, self._state = self._eager(frames, self._state)
        if self._device == "cuda":
            self._torch.cuda.synchronize()
        return maps


def libraries(path: Path, wanted: Sequence[str]) -> list[str]:
    """Return the backends to try for an artefact: those wanted, or all that there are.

    Raises:
        UsageError: One of those wanted is not known.
    """
    known = BACKENDS.get(path.suffix.lower(), {})
    everything = [library for libraries in BACKENDS.values() for library in libraries]
    for name in wanted:
        if name.partition(":")[0] not in everything:
            raise UsageError(f"unknown backend {name!r}; known: {', '.join(everything)}")
    if wanted:
        return [name for name in wanted if name.partition(":")[0] in known]
    names = []
    for library in known:
        if library == "openvino":
            from salstream.runtime.backends.openvino import import_openvino

            with suppress(ImportError):
                core = import_openvino().Core()
                names += [f"openvino:{device}" for device in core.available_devices]
        elif library == "onnxruntime":
            with suppress(ImportError):
                import onnxruntime

                cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
                names += ["onnxruntime:cuda"] * cuda + ["onnxruntime:cpu"]
        else:
            names.append(library)
    return names


def compete(
    makers: Sequence[tuple[str, Callable[[], Contender]]],
    frames: Frames,
    rounds: int,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Score | SalstreamError]:
    """Measure contenders in turn, round by round.

    Args:
        makers: A name for people, and what opens it.
        frames: Of a source.
        rounds: Of which the medians are taken; one more warms up.
        progress: Told what is being done.

    Yields:
        A score for each that ran, an error for each that did not.
    """
    scores: list[Score] = []
    process = psutil.Process()
    for name, make in makers:
        progress(f"opening {name}")
        before = process.memory_info().rss
        try:
            contender = make()
            contender.graph()
        except _FAILURES as error:
            yield SalstreamError(f"{name}: {error}")
            continue
        scores.append(Score(contender, (process.memory_info().rss - before) / 1e6))
    for number in range(-1, rounds):
        for score in list(scores):
            progress(f"round {max(0, number) + 1} of {rounds}: {score.contender.library}")
            try:
                graph, push, fps = _measure(score.contender, frames)
            except _FAILURES as error:
                scores.remove(score)
                yield SalstreamError(f"{score.contender.name}: {error}")
                continue
            if number >= 0:  # the first round warms up
                score.graph_ms.append(graph)
                score.push_ms.append(push)
                score.stream_fps += fps
    yield from scores


def _measure(contender: Contender, frames: Frames) -> tuple[list[float], list[float], list[float]]:
    """Return milliseconds of the graph and of frames' ways to their maps, and frames per second."""
    time.sleep(_PAUSE_S)
    contender.graph()
    graph = _timed(contender.graph)
    endless = iter(_repeated(frames, 1 << 20))
    contender.push(next(endless))
    push = _timed(lambda: contender.push(next(endless)))
    time.sleep(_PAUSE_S)
    begin = time.perf_counter()
    maps = contender.stream()
    seconds = time.perf_counter() - begin
    return graph, push, [] if maps is None else [maps / seconds]


def _timed(work: Callable[[], None]) -> list[float]:
    """Return the milliseconds of each of several runs."""
    times: list[float] = []
    end = time.perf_counter() + _SHARE_S
    while len(times) < _FEWEST_RUNS or time.perf_counter() < end:
        begin = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - begin))
    return times


def _repeated(frames: Frames, count: int) -> Iterator[Frame]:
    return (frames[number % len(frames)] for number in range(count))
