"""One run over a source: sinks fed, progress shown, a summary at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from typing import Any, Final

import cv2
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from salstream.runtime.model import SaliencyModel
from salstream.runtime.pipeline import Stream
from salstream.runtime.results import Result
from salstream.runtime.signals import CLOSE_S, held
from salstream.runtime.sinks import Sink, StopStream
from salstream.runtime.sources import PicturesAs

_READ_AS: Final[Mapping[PicturesAs | None, str]] = {
    None: "",
    "video": " (pictures of a video)",
    "single": " (single pictures)",
}


@dataclass
class Summary:
    """What a run did.

    Attributes:
        source: Name of the source, without passwords.
        model: Name and domain of the graph.
        backend: Inference library and device.
        frames: Frames read.
        maps: Maps made, and written where there are outputs.
        skipped: Frames without a map because of the start policy.
        dropped: Frames of a live source that came faster than the model.
        unfinished: Frames that were on their way when the run was ended.
        damaged: Packets, or pictures, that could not be decoded.
        left_out: Pictures beside the others that are of a kind that cannot be read.
        pictures: ``video`` or ``single``: how a set of pictures was read; None: it was none.
        reconnects: Times that frames came again after a live source had failed.
        phases: Interleaved recurrent passes.
        stride: Distance of a window's frames.
        seconds: From the first frame asked for to the last output closed.
        fps: Maps per second.
        latency_ms: p50, p95 and p99 by stage: ``decode``, ``preprocess``, ``infer``,
            ``postprocess``, ``write`` and ``end_to_end``, of the latest 10,000 frames. Without
            an output nothing is brought to the frame's size and nothing written. Cameras have
            ``capture_to_map``, from the arrival of a frame's data until its map, and their
            ``write`` includes ``postprocess``.
    """

    source: str
    model: str
    backend: str
    frames: int = 0
    maps: int = 0
    skipped: int = 0
    dropped: int = 0
    unfinished: int = 0
    damaged: int = 0
    left_out: int = 0
    pictures: PicturesAs | None = None
    reconnects: int = 0
    phases: int = 1
    stride: int = 1
    seconds: float = 0.0
    fps: float = 0.0
    latency_ms: dict[str, dict[str, float]] | None = None

    def count_unfinished(self) -> None:
        """Set ``unfinished`` to what is left of the frames."""
        self.unfinished = self.frames - self.maps - self.skipped - self.dropped

    def as_json(self) -> dict[str, Any]:
        """Return the summary for programs."""
        return asdict(self)


def summary_of(model: SaliencyModel, stream: Stream) -> Summary:
    """Return the summary of a stream that has not begun."""
    return Summary(
        source=stream.source.name,
        model=model.spec.name,
        backend=model.backend.name,
        left_out=getattr(stream.source, "left_out", 0),
        pictures=getattr(stream.source, "pictures", None),
        phases=stream.predictor.phases,
        stride=stream.predictor.stride,
    )


def consume(stream: Stream, sinks: Iterable[Sink], summary: Summary) -> None:
    """Feed every result to every sink and fill in the summary, also when something fails.

    Args:
        stream: Closed at the end, whatever happens.
        sinks: Opened one after the other, and closed at the end.
        summary: Filled in.

    Raises:
        SalstreamError: The source, the model or a sink failed; what was written is closed.
    """
    # Capture, inference and this loop have a thread each; more would fight for the cores.
    cv2.setNumThreads(1)
    begin = time.perf_counter()
    try:
        with stream:
            stack = ExitStack()
            try:
                opened = [stack.enter_context(closing(sink)) for sink in sinks]
                for result in _with_progress(stream):
                    if opened:
                        with stream.timings.measure("postprocess"):
                            _ = result.saliency
                    with held():  # all outputs have the same results
                        if opened:
                            with stream.timings.measure("write"):
                                for sink in opened:
                                    sink.write(result)
                        summary.maps += 1
            finally:
                with held(CLOSE_S):
                    stack.close()
    except StopStream:
        pass
    finally:
        summary.frames, summary.skipped = stream.frames, stream.skipped
        summary.dropped = stream.dropped
        summary.count_unfinished()
        summary.damaged = getattr(stream.source, "damaged", 0)
        summary.seconds = round(time.perf_counter() - begin, 3)
        summary.fps = round(summary.maps / summary.seconds, 2) if summary.seconds else 0.0
        summary.latency_ms = stream.timings.percentiles()


def print_summary(summary: Summary, console: Console) -> None:
    """Print a summary for people."""
    console.print(
        f"{summary.frames} frames in{_READ_AS[summary.pictures]}, {summary.maps} maps out, "
        f"{summary.skipped} skipped, {summary.dropped} dropped, "
        f"{summary.damaged} damaged {'pictures' if summary.pictures else 'packets'}"
        f"{f', {summary.left_out} left out' if summary.left_out else ''}"
        f"{f', {summary.reconnects} reconnects' if summary.reconnects else ''}"
        f"{f', {summary.unfinished} unfinished' if summary.unfinished else ''}; "
        f"{summary.seconds:.1f} s, {summary.fps:.1f} maps per second "
        f"({summary.model} on {summary.backend}, phases: {summary.phases}, "
        f"stride: {summary.stride})",
        soft_wrap=True,
    )
    if not summary.latency_ms:
        return
    table = Table("stage", "p50 ms", "p95 ms", "p99 ms", box=None)
    for stage, values in summary.latency_ms.items():
        table.add_row(stage.replace("_", " "), *(f"{value:.1f}" for value in values.values()))
    console.print(table)


def _with_progress(stream: Stream) -> Iterable[Result]:
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} fps"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )
    total = stream.limit if stream.limit is not None else stream.source.frame_count
    begin = time.perf_counter()
    with progress:
        task = progress.add_task(stream.source.name, total=total, rate="–")
        for result in stream:
            yield result
            rate = stream.maps / (time.perf_counter() - begin)
            progress.update(task, completed=stream.maps, rate=f"{rate:.0f}")
