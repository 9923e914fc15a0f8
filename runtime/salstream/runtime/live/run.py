"""A run over cameras: what happens to them is logged, and summaries come at the end."""

from __future__ import annotations

import ctypes
import logging
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

import cv2
from rich.console import Console
from rich.live import Live
from rich.table import Table

from salstream.runtime.live.camera import Camera, Event, State
from salstream.runtime.run import Summary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from salstream.runtime.live.fleet import Fleet

logger = logging.getLogger("salstream")

_M_ARENA_MAX = -8  # of malloc.h
_LEVELS = {
    State.STALLED: logging.WARNING,
    State.RECONNECTING: logging.WARNING,
    State.FAILED: logging.ERROR,
}


def log_event(event: Event) -> None:
    """Log a change of a camera's state."""
    fields = {"camera": event.camera, "state": str(event.state), "reason": event.reason}
    reason = f" ({event.reason})" if event.reason else ""
    level = _LEVELS.get(event.state, logging.INFO)
    logger.log(level, "%s: %s%s", event.camera, event.state, reason, extra=fields)


def run_fleet(
    fleet: Fleet,
    summaries: dict[str, Summary],
    watch: Callable[[list[Camera]], AbstractContextManager[object]] | None = None,
) -> None:
    """Stream until every camera has ended, and fill in the summaries, also when something fails.

    Args:
        fleet: One that has not begun.
        summaries: Filled in, by the camera's name.
        watch: Whoever looks at the cameras meanwhile: entered before anything streams, left
            after everything has ended.

    Raises:
        SalstreamError: The model failed, or a camera did.
    """
    # Capture, inference and outputs have threads of their own; more would fight for the cores.
    cv2.setNumThreads(1)
    share_memory()
    begin = time.perf_counter()
    try:
        with watch(fleet.cameras) if watch else nullcontext(), _progress(fleet):
            fleet.run()
    finally:
        summaries |= summaries_of(fleet, time.perf_counter() - begin)


def share_memory() -> None:
    """Let threads share two arenas of glibc's, in this process from now on.

    One for each thread would hold pieces of freed pictures, some twenty megabytes in an hour.
    """
    with suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def summaries_of(fleet: Fleet, seconds: float) -> dict[str, Summary]:
    """Return what each camera did, by its name."""
    summaries = {}
    for member in fleet.members:
        status = member.camera.status()
        predictor = member.predictor
        maps = member.written if member.sinks else status.maps
        summary = Summary(
            source=member.camera.source,
            model=fleet.model.spec.name,
            backend=fleet.model.backend.name,
            frames=status.frames,
            maps=maps,
            skipped=predictor.skipped if predictor else 0,
            dropped=status.dropped,
            damaged=member.source.damaged,
            left_out=member.source.left_out,
            pictures=member.source.pictures,
            reconnects=status.reconnects,
            phases=predictor.phases if predictor else 1,
            stride=predictor.stride if predictor else 1,
            seconds=round(seconds, 3),
            fps=round(maps / seconds, 2) if seconds else 0.0,
            latency_ms=member.timings.percentiles(),
        )
        summary.count_unfinished()
        summaries[member.camera.name] = summary
    return summaries


@contextmanager
def _progress(fleet: Fleet) -> Iterator[None]:
    """Show every camera's state and figures on a terminal."""
    console = Console(stderr=True)
    if not sys.stderr.isatty():
        yield
        return
    with Live(
        get_renderable=_table_of(fleet), console=console, refresh_per_second=2, transient=True
    ):
        yield


def _table_of(fleet: Fleet) -> Callable[[], Table]:
    def table() -> Table:
        shown = Table("camera", "state", "maps/s", "latency ms", "dropped", "reconnects", box=None)
        for camera in fleet.cameras:
            status = camera.status()
            latency = status.latency_ms.get("p50")
            shown.add_row(
                *(status.name, str(status.state), f"{status.fps:.1f}"),
                "–" if latency is None else f"{latency:.0f}",
                *(str(status.dropped), str(status.reconnects)),
            )
        return shown

    return table
