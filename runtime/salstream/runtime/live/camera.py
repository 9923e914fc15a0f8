"""What is known of one camera, for whoever watches it: the page, the metrics, a callback.

The stream's thread writes, any thread reads. A watcher sees the newest result only and never
holds the stream up.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Container
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from salstream.runtime.results import Result

logger = logging.getLogger("salstream")

_LATEST: Final = 1_000
_RATE_WINDOW_S: Final = 5.0


class State(StrEnum):
    """What a camera does.

    ``connecting`` before the first frame, ``warming`` until the first map, ``live`` while maps
    come, ``stalled`` when the stream is open but no frame comes, ``reconnecting`` between two
    tries, ``failed`` when the tries are used up or the source cannot work at all, ``ended``
    when the source came to its end or was closed. Nothing follows the last two.
    """

    CONNECTING = "connecting"
    WARMING = "warming"
    LIVE = "live"
    STALLED = "stalled"
    RECONNECTING = "reconnecting"
    FAILED = "failed"
    ENDED = "ended"


_OVER: Final = (State.FAILED, State.ENDED)  # nothing follows


@dataclass(frozen=True, slots=True)
class Event:
    """A camera entered a state.

    Attributes:
        camera: Its name.
        state: The new state.
        reason: Why, in one sentence without passwords; None where there is nothing to say.
        time: Seconds since 1970.
    """

    camera: str
    state: State
    reason: str | None
    time: float


@dataclass(frozen=True, slots=True)
class Status:
    """A camera at one moment.

    Attributes:
        name: Of the camera.
        source: What it is opened from, without passwords.
        state: What it does now.
        reason: Why it does that; None where there is nothing to say.
        since: When it entered the state, seconds since 1970.
        fps: Maps per second over the last five seconds.
        frames: Frames that came, the dropped ones among them.
        maps: Maps made.
        dropped: Frames that came faster than the model.
        reconnects: Times that frames came again after the source had failed.
        latency_ms: p50, p95 and p99 from capture to map, of the latest 1,000; empty before the
            first map.
    """

    name: str
    source: str
    state: State
    reason: str | None
    since: float
    fps: float
    frames: int
    maps: int
    dropped: int
    reconnects: int
    latency_ms: dict[str, float]


class Camera:
    """One camera's state, figures and newest result.

    Args:
        name: For people and for paths of the page.
        source: What it is opened from, without passwords.
        on_event: Called with each change of state, one after the other, by a thread that caused
            one; what it raises is logged.

    Attributes:
        frames, dropped, reconnects: Counted by whoever runs the camera.
    """

    def __init__(
        self, name: str, source: str, on_event: Callable[[Event], None] | None = None
    ) -> None:
        self.name = name
        self.source = source
        self.frames = 0
        self.dropped = 0
        self.reconnects = 0
        self._on_event = on_event
        self._event = Event(name, State.CONNECTING, None, time.time())
        self._changed = threading.Condition()
        self._untold: deque[Event] = deque()
        self._telling = False  # whoever does tells all, in their order; nobody waits for a listener
        self._serial = 0
        self._newest: Result | None = None
        self._latencies: deque[float] = deque(maxlen=_LATEST)
        self._times: deque[float] = deque(maxlen=_LATEST)

    @property
    def state(self) -> State:
        """What it does now."""
        return self._event.state

    def enter(
        self, state: State, reason: str | None = None, *, after: Container[State] = tuple(State)
    ) -> None:
        """Change the state; tells the listener unless state and reason are the same.

        A camera that failed or ended stays so, and keeps its reason.

        Args:
            state: The new one.
            reason: Why, in one sentence.
            after: The states that it may follow; in another one nothing happens.
        """
        with self._changed:
            if (state, reason) == (self._event.state, self._event.reason):
                return
            if self._event.state in _OVER or self._event.state not in after:
                return
            self._event = Event(self.name, state, reason, time.time())
            self._untold.append(self._event)
            self._changed.notify_all()
        if self._on_event is not None:
            self._tell(self._on_event)

    def _tell(self, listener: Callable[[Event], None]) -> None:
        while True:
            with self._changed:
                if self._telling or not self._untold:
                    return
                self._telling, event = True, self._untold.popleft()
            try:
                listener(event)
            except Exception:  # whoever listens may not end the camera
                logger.exception(
                    "%s: a listener failed at %r",
                    *(self.name, str(event.state)),
                    extra={"camera": self.name},
                )
            finally:
                self._telling = False

    def publish(self, result: Result, latency_s: float) -> None:
        """Show a result, captured ``latency_s`` seconds ago; the one before it is forgotten."""
        with self._changed:
            self._newest = result
            self._serial += 1
            self._latencies.append(latency_s * 1000)
            self._times.append(time.monotonic())
            self._changed.notify_all()

    def newest(self, after: int = 0, timeout_s: float = 0.0) -> tuple[int, Result] | None:
        """Return the newest result and its number, from 1.

        Args:
            after: Wait for a number above this one.
            timeout_s: How long to wait for it; then None.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._serial > after, timeout_s):
                return None
            assert self._newest is not None
            return self._serial, self._newest

    def status(self) -> Status:
        """Return everything but the pictures."""
        with self._changed:
            event, maps = self._event, self._serial
            latencies = np.fromiter(self._latencies, float)
            now = time.monotonic()
            recent = sum(now - then <= _RATE_WINDOW_S for then in self._times)
        percentiles = {
            f"p{p}": round(float(np.percentile(latencies, p)), 3)
            for p in (50, 95, 99)
            if latencies.size
        }
        return Status(
            self.name,
            self.source,
            event.state,
            event.reason,
            event.time,
            round(recent / _RATE_WINDOW_S, 2),
            self.frames,
            maps,
            self.dropped,
            self.reconnects,
            percentiles,
        )
