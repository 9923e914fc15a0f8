"""One camera for asyncio: its newest result, and what is made of it, once for all who ask."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Executor
from contextlib import suppress
from typing import Final

from salstream.runtime.live.camera import Camera, Status
from salstream.runtime.results import Result

_WAIT_S: Final = 0.25  # bounds how long the end of the server waits for a camera
_KEPT: Final = 8  # views of one camera that are remembered; each holds one picture
_HISTORY: Final = 121  # two minutes: a sample each second, the first and the last among them
_NICENESS: Final = 5


class Broadcast:
    """What clients see of one camera.

    Nobody is kept up by anybody: the camera is only ever asked for its newest result, a
    picture is made once for all clients that want the same view, and whoever reads slowly
    finds a newer one next.

    Args:
        camera: Runs elsewhere.
        waiters: One thread for each broadcast.
        makers: Threads that make the pictures of all broadcasts.

    Attributes:
        history: p50, p95 and p99 of the latency in milliseconds, one entry for each call of
            ``sample``; None where no map had come since the last one.
    """

    def __init__(self, camera: Camera, waiters: Executor, makers: Executor) -> None:
        self.camera = camera
        self.history: deque[list[float] | None] = deque(maxlen=_HISTORY)
        self._waiters = waiters
        self._makers = makers
        self._waiting: asyncio.Future[object] | None = None
        self._made: dict[Hashable, tuple[int, asyncio.Future[bytes]]] = {}
        self._sampled = 0

    async def newest(self, after: int) -> tuple[int, Result]:
        """Wait for a result whose number is above ``after``; all who wait share one thread."""
        while (found := self.camera.newest(after)) is None:
            if self._waiting is None or self._waiting.done():
                loop = asyncio.get_running_loop()
                self._waiting = loop.run_in_executor(
                    self._waiters, self.camera.newest, after, _WAIT_S
                )
            await asyncio.wait([self._waiting])  # unlike await, does not cancel it for others
        return found

    async def made(
        self, after: int, key: Hashable, make: Callable[[Result], bytes]
    ) -> tuple[int, bytes]:
        """Return what ``make`` gives for a result above ``after``, and the result's number.

        Args:
            after: The number that the client has seen, 0 for none.
            key: The same for the same ``make``.
            make: Runs in another thread, once for each result that anybody waits for. While
                it runs, newer results wait, so a slow one skips results.
        """
        number, making = self._made.get(key, (0, None))
        if making is None or number <= after or making.done():
            newest, result = await self.newest(after)
            number, making = self._made.get(key, (0, None))  # others may have begun meanwhile
            if making is None or number <= after or (making.done() and number < newest):
                loop = asyncio.get_running_loop()
                number, making = newest, loop.run_in_executor(self._makers, make, result)
                self._made.pop(key, None)
                self._made[key] = number, making
                if len(self._made) > _KEPT:
                    del self._made[next(iter(self._made))]
        return number, await asyncio.shield(making)

    def sample(self, status: Status) -> None:
        """Note the latency for the chart."""
        fresh = status.maps > self._sampled
        self.history.append(list(status.latency_ms.values()) if fresh else None)
        self._sampled = status.maps


def step_back() -> None:
    """Let the cameras' threads go before this one, where the system knows such a thing."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with suppress(OSError):  # a courtesy: the page works without it
            now = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, max(_NICENESS, now))  # never forward
