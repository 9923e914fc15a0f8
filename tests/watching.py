"""Cameras whose pictures move, for what watches them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPMessage
from urllib.parse import urlsplit

import cv2
import numpy as np
from numpy.typing import NDArray

from salstream.runtime import Result
from salstream.runtime.live.camera import Camera, State
from salstream.runtime.serve import Server, serve


def moving(
    index: int, size: tuple[int, int] = (180, 320), levels: int = 0, scenery: float = 1.0
) -> Result:
    """Return a result with a ball on its way, where the map has its peak.

    Args:
        index: Of the frame; the ball has gone so far.
        size: Of the frame; the map has a quarter of it.
        levels: Number of conspicuity maps: all alike, each weaker than the one before.
        scenery: Brightness of what does not move.
    """
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    frame: NDArray[np.uint8] = np.empty((*size, 3), np.uint8)
    frame[..., 0] = (90 + 90 * y / height) * scenery
    frame[..., 1] = (70 + 60 * x / width) * scenery
    frame[..., 2] = (60 + 30 * np.sin(x / width * 25)) * scenery
    centre = (
        round(width * (0.5 + 0.35 * np.sin(index / 9))),
        round(height * (0.5 + 0.3 * np.cos(index / 7))),
    )
    cv2.circle(frame, centre, height // 9, (235, 235, 240), -1, cv2.LINE_AA)
    small_y, small_x = np.mgrid[: height // 4, : width // 4].astype(np.float32) * 4
    distance = (small_x - centre[0]) ** 2 + (small_y - centre[1]) ** 2
    saliency = np.exp(-distance / (2 * (height / 6) ** 2))
    saliency = (saliency / max(float(saliency.max()), 1e-6)).astype(np.float32)
    conspicuity = np.stack([saliency / 2**level for level in range(levels)]) if levels else None
    return Result(index, index / 10, frame, saliency, conspicuity)


class Player:
    """A camera that publishes results at a rate, from a thread of its own.

    Attributes:
        gaps: Seconds between two results, as they really were.
    """

    def __init__(self, camera: Camera, results: list[Result], fps: float = 10.0) -> None:
        self.camera = camera
        self.gaps: list[float] = []
        self._results = results
        self._period = 1 / fps
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"player-{camera.name}")
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        self.camera.enter(State.LIVE)
        begin = last = time.monotonic()
        number = 0
        while not self._stop.is_set():
            self.camera.frames += 1
            self.camera.dropped += number % 7 == 6
            latency = 0.03 + 0.02 * abs(np.sin(number / 20)) + 0.03 * (number % 10 == 9)
            self.camera.publish(self._results[number % len(self._results)], latency)
            number += 1
            self._stop.wait(max(0.0, begin + number * self._period - time.monotonic()))
            now = time.monotonic()
            self.gaps.append(now - last)
            last = now


@contextmanager
def playing(*players: Player) -> Iterator[None]:
    try:
        yield
    finally:
        for player in players:
            player.stop()


def ask(
    server: Server,
    path: str,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    body: str | None = None,
) -> tuple[int, HTTPMessage, bytes]:
    """Return status, headers and body of an answer; the path is sent as it is."""
    place = urlsplit(server.url)
    connection = HTTPConnection(place.hostname or "", place.port or 0, timeout=10)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def say(server: Server, request: bytes, timeout_s: float = 10.0) -> bytes:
    """Send bytes and return all that comes back until the server closes, or for so long."""
    place = urlsplit(server.url)
    came = b""
    with socket.create_connection((place.hostname or "", place.port or 0), timeout_s) as link:
        with suppress(OSError):
            link.sendall(request)
        with suppress(OSError):
            while some := link.recv(65536):
                came += some
    return came


def show(*cameras: Camera, token: str | None = None) -> Server:
    """Serve on a free port of this machine."""
    return serve(cameras, "127.0.0.1:0", token=token)
