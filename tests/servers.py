"""Servers on 127.0.0.1 for the tests of network sources."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Final

import pytest

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


RTSP_SERVER = """
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer

Gst.init(None)
missing = [name for name in ("qtdemux", "rtph264pay") if not Gst.ElementFactory.find(name)]
if missing or len(sys.argv) == 1:
    sys.exit("GStreamer lacks " + ", ".join(missing) if missing else 0)
path, user, password, port = sys.argv[1:]

server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(port)
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(f'( filesrc location="{path}" ! qtdemux ! rtph264pay name=pay0 pt=96 )')
if user:
    role = "media.factory.role"
    permissions = GstRtspServer.RTSPPermissions()
    for right in ("access", "construct"):
        permissions.add_permission_for_role("watcher", "media.factory." + right, True)
    factory.set_permissions(permissions)
    token = GstRtspServer.RTSPToken()
    token.set_string(role, "watcher")
    auth = GstRtspServer.RTSPAuth()
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
server.get_mount_points().add_factory("/cam", factory)


def watch(server, client):
    # says over which transport each client plays
    client.connect("setup-request", tell)


def tell(client, context):
    print(context.request.get_header(GstRtsp.RTSPHeaderField.TRANSPORT, 0)[1], flush=True)


gi.require_version("GstRtsp", "1.0")
from gi.repository import GstRtsp
server.connect("client-connected", watch)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.timeout_add_seconds(60, sys.exit)
GLib.MainLoop().run()
"""
RTSP_PACKAGES = "python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good"


@cache
def python_with_gstreamer() -> str | None:
    """An interpreter that can run the server: the distribution's own, most often."""
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            subprocess.run([python, "-c", RTSP_SERVER], check=True, capture_output=True, timeout=30)
        except (OSError, subprocess.SubprocessError):
            continue
        return python
    return None


class RtspServer:
    """GStreamer's, playing a clip at /cam; skips the test where it is not installed."""

    def __init__(self, path: Path, user: str = "", password: str = "", port: int = 0) -> None:
        python = python_with_gstreamer()
        if python is None:
            pytest.skip(f"no GStreamer RTSP server here (Debian: {RTSP_PACKAGES})")
        self.process = subprocess.Popen(
            [python, "-c", RTSP_SERVER, str(path), user, password, str(port)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.output = self.process.stdout
        self.address = f"127.0.0.1:{int(self.output.readline())}"

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.output.close()
