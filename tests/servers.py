"""Servers on 127.0.0.1 for the tests of network sources."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

FFMPEG: Final = shutil.which("ffmpeg")


def free_port() -> int:
    """Return a port that nobody listens at, a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """Accept connections, each in a thread that talks to it; gives the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def one(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                talk(connection)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=one, args=server.accept()[:1], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)  # wakes accept


def send_jpegs(connection: socket.socket, jpegs: Iterator[bytes], fps: float) -> None:
    """Answer a request over HTTP with motion JPEG, as cheap cameras do."""
    connection.recv(4096)
    connection.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"
    )
    begin = time.monotonic()
    for number, jpeg in enumerate(jpegs):
        time.sleep(max(0.0, begin + number / fps - time.monotonic()))
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
        connection.sendall(head.encode() + jpeg + b"\r\n")
