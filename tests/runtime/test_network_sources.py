"""Network sources against real servers on 127.0.0.1.

The RTSP server is GStreamer's; its tests are skipped where it is not installed. The other
servers are a few lines of Python each, and ffmpeg for RTMP.
"""

from __future__ import annotations

import base64
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from clips import number_image, numbered_clip, read_number
from salstream.runtime.errors import SalstreamError, UnusableSource, UsageError
from salstream.runtime.live.source import is_live
from salstream.runtime.sources import Source, open_source
from salstream.runtime.sources.address import has_scheme
from servers import FFMPEG, RtspServer, free_port
from servers import serving as talking

FRAMES = 60
FPS = 30
TIMEOUT_S = 1.0


@pytest.fixture(scope="module")
def transport_stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "clip.ts"
    return numbered_clip(path, FRAMES, fps=FPS, options={"g": "10", "bf": "0"})


@pytest.fixture(scope="module")
def mp4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "clip.mp4"
    options = {"movflags": "faststart"}
    return numbered_clip(path, FRAMES, fps=FPS, options={"g": "10"}, container_options=options)


def read_live(source: Source, limit: int = 10_000) -> tuple[list[int], SalstreamError | None]:
    """The numbers that came, and the error that ended them; checks index and time too."""
    numbers: list[int] = []
    last = -1.0
    try:
        with source:
            for index, frame in enumerate(source):
                number = read_number(frame.image)
                assert number is not None
                assert frame.index == index
                assert frame.time is not None
                assert frame.time > last
                last = frame.time
                numbers.append(number)
                if len(numbers) == limit:
                    break
    except SalstreamError as error:
        return numbers, error
    return numbers, None


def assert_one_sentence(error: SalstreamError | None, *parts: str) -> None:
    text = str(error)
    assert isinstance(error, SalstreamError)
    assert not isinstance(error, UsageError)
    assert "\n" not in text
    assert "Errno" not in text
    assert "geheim" not in text
    for part in parts:
        assert part in text


def sent_in_time(data: bytes, send: Callable[[bytes], object], seconds: float = 1.0) -> None:
    """Send as a sender does that follows a clock."""
    size = 7 * 188  # what fits into a datagram
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    begin = time.monotonic()
    for number, piece in enumerate(pieces):
        time.sleep(max(0.0, begin + seconds * number / len(pieces) - time.monotonic()))
        send(piece)


# HTTP


class Handler(BaseHTTPRequestHandler):
    """What the paths mean is said by the tests."""

    transport_stream: bytes = b""
    stall = threading.Event()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        with suppress(OSError):  # the client has gone
            getattr(self, "get_" + self.path.strip("/").partition("?")[0], self.get_nothing)()

    def begin(self, kind: str, length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def begin_chunks(self, kind: str) -> Callable[[bytes], object]:
        """HTTP/1.1's way to send what has no length; an empty chunk is the end."""
        self.protocol_version = "HTTP/1.1"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        return lambda data: self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def get_live(self) -> None:
        write = self.begin_chunks("video/mp2t")
        sent_in_time(self.transport_stream, write)
        write(b"")

    def get_breaks(self) -> None:
        self.begin("video/mp2t")
        sent_in_time(self.transport_stream[: len(self.transport_stream) // 2], self.wfile.write)

    def get_stalls(self) -> None:
        self.begin("video/mp2t")
        self.wfile.write(self.transport_stream[: len(self.transport_stream) // 2])
        self.wfile.flush()
        self.stall.wait(20)

    def get_camera(self) -> None:
        """Motion JPEG at 40 frames per second, as cheap cameras send it."""
        write = self.begin_chunks("multipart/x-mixed-replace; boundary=--frame")
        for number in range(FRAMES):
            jpeg = cv2.imencode(".jpg", number_image(number, (96, 128)))[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            write(head.encode() + jpeg + b"\r\n")
            time.sleep(1 / 40)
        write(b"")

    def get_locked(self) -> None:
        expected = "Basic " + base64.b64encode(b"me:geheim").decode()
        if self.headers.get("Authorization") == expected:
            self.get_live()
        else:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()

    def get_forbidden(self) -> None:
        self.send_error(403)

    def get_page(self) -> None:
        page = b"<html><body>Welcome to your camera</body></html>\n" * 40
        self.begin("text/html", len(page))
        self.wfile.write(page)

    def get_broken(self) -> None:
        self.send_error(500)

    def get_nothing(self) -> None:
        self.send_error(404)


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


@pytest.fixture
def web(transport_stream: Path) -> Iterator[str]:
    Handler.transport_stream = transport_stream.read_bytes()
    Handler.stall.clear()
    with serving(Handler) as address:
        yield address
        Handler.stall.set()


def test_http_transport_stream(web: str) -> None:
    source = open_source(f"http://{web}/live", timeout_s=TIMEOUT_S)
    assert source.live
    assert source.frame_count is None
    assert source.fps == pytest.approx(FPS, rel=0.05)
    numbers, error = read_live(source)
    assert error is None
    assert numbers == list(range(FRAMES))


def test_http_camera_without_timestamps_is_timed_by_arrival(web: str) -> None:
    begin = time.monotonic()
    source = open_source(f"http://{web}/camera", timeout_s=TIMEOUT_S)
    assert source.live
    assert source.fps is None  # ffmpeg would say 25
    numbers, error = read_live(source)
    assert error is None
    assert numbers == list(range(FRAMES))
    assert time.monotonic() - begin > FRAMES / 40


def test_http_sender_that_falls_silent(web: str) -> None:
    begin = time.monotonic()
    numbers, error = read_live(open_source(f"http://{web}/stalls", timeout_s=TIMEOUT_S))
    assert time.monotonic() - begin < 4 * TIMEOUT_S
    assert 10 < len(numbers) < FRAMES
    assert numbers == list(range(len(numbers)))
    assert_one_sentence(error, f"http://{web}/stalls", "(nothing for 1 s)")


def test_frames_are_not_held_back(web: str) -> None:
    source = open_source(f"http://{web}/stalls", timeout_s=TIMEOUT_S)
    arrivals: list[float] = []
    with pytest.raises(SalstreamError):
        for _ in source:
            arrivals.append(time.monotonic())
    end = time.monotonic()
    # in MPEG-TS the begin of the next shows the end of a packet, and then of a frame
    assert sum(end - arrival < TIMEOUT_S / 2 for arrival in arrivals) <= 2


def test_http_connection_that_breaks(web: str) -> None:
    numbers, error = read_live(open_source(f"http://{web}/breaks", timeout_s=TIMEOUT_S))
    assert 10 < len(numbers) < FRAMES
    assert numbers == list(range(len(numbers)))
    assert_one_sentence(error, f"http://{web}/breaks broke off after {len(numbers)} frames")


def test_http_password(web: str) -> None:
    source = open_source(f"http://me:geheim@{web}/locked", timeout_s=TIMEOUT_S)
    assert source.name == f"http://me:***@{web}/locked"
    numbers, error = read_live(source)
    assert error is None
    assert numbers == list(range(FRAMES))


@pytest.mark.parametrize(
    ("path", "user", "expected"),
    [
        ("locked", "", "user name or password (401)"),
        ("locked", "me:geheim2@", "user name or password (401)"),
        ("forbidden", "me:geheim@", "403"),
        ("nothing", "me:geheim@", "404"),
        ("broken", "me:geheim@", "cannot be reached"),
        ("page", "me:geheim@", "not a video"),
        ("nothing?token=geheim", "", "404"),
    ],
)
def test_http_refusals(
    web: str, capfd: pytest.CaptureFixture[str], path: str, user: str, expected: str
) -> None:
    with pytest.raises(SalstreamError) as caught:
        open_source(f"http://{user}{web}/{path}", timeout_s=TIMEOUT_S)
    assert_one_sentence(caught.value, web, expected)
    assert caught.value.__cause__ is None  # its text holds the password
    assert capfd.readouterr().err == ""


class QuietFiles(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


def test_a_file_behind_http_waits(mp4: Path) -> None:
    with serving(partial(QuietFiles, directory=str(mp4.parent))) as address:
        source = open_source(f"http://{address}/{mp4.name}", timeout_s=TIMEOUT_S)
        assert not source.live
        assert source.frame_count == FRAMES
        assert source.fps == FPS
        numbers, error = read_live(source)
    assert error is None
    assert numbers == list(range(FRAMES))


# TCP, UDP, RTMP


def test_tcp_transport_stream(transport_stream: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection = server.accept()[0]
            with connection:
                sent_in_time(transport_stream.read_bytes(), connection.sendall)

        threading.Thread(target=serve, daemon=True).start()
        port = server.getsockname()[1]
        source = open_source(f"tcp://127.0.0.1:{port}", timeout_s=TIMEOUT_S)
        assert source.live
        numbers, error = read_live(source)
    assert error is None
    assert numbers == list(range(FRAMES))


def test_udp_transport_stream(tmp_path: Path) -> None:
    frames = 150
    path = numbered_clip(tmp_path / "clip.ts", frames, fps=FPS, options={"g": "10", "bf": "0"})
    port = free_port()
    stop = threading.Event()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:

            def send_piece(piece: bytes) -> None:
                if not stop.is_set():
                    sender.sendto(piece, ("127.0.0.1", port))

            sent_in_time(path.read_bytes(), send_piece, seconds=2)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        source = open_source(f"udp://127.0.0.1:{port}", timeout_s=TIMEOUT_S)
        assert source.live
        numbers, error = read_live(source)  # to the end, and past it
    finally:
        stop.set()
        thread.join()
    assert_one_sentence(error, f"udp://127.0.0.1:{port}", "(nothing for 1 s)")
    # Whoever comes late misses the beginning; the last frame waits for a next one.
    assert len(numbers) > frames // 4
    assert numbers[-1] >= frames - 3
    assert numbers == list(range(numbers[0], numbers[-1] + 1))


@pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg here (Debian: ffmpeg)")
def test_hls_frames_come_when_they_are_due(tmp_path: Path) -> None:
    """They arrive in pieces of two seconds; windows and latency want them one by one."""
    assert FFMPEG is not None
    clip = numbered_clip(tmp_path / "clip.mp4", 300, fps=30, options={"g": "60", "bf": "0"})
    send = [FFMPEG, "-v", "error", "-re", "-i", str(clip), "-c", "copy", "-f", "hls"]
    send += ["-hls_time", "2", "-hls_flags", "omit_endlist", str(tmp_path / "cam.m3u8")]
    came: list[tuple[float, int]] = []
    with serving(partial(QuietFiles, directory=str(tmp_path))) as address:
        sender = subprocess.Popen(send)
        try:
            end = time.monotonic() + 20
            while not (tmp_path / "cam2.ts").exists():
                assert time.monotonic() < end
                time.sleep(0.1)
            # less than a piece lasts: frames that lie there keep the connection from being silent
            with open_source(f"http://{address}/cam.m3u8", timeout_s=1.5) as source:
                assert source.live
                for frame in source:
                    number = read_number(frame.image)
                    assert number is not None
                    came.append((time.monotonic(), number))
                    if len(came) == 120:
                        break
        finally:
            sender.kill()
            sender.wait()
    numbers = [number for _, number in came]
    assert numbers == list(range(numbers[0], numbers[0] + 120))
    late = np.array([moment - n / 30 for n, (moment, _) in enumerate(came)])
    assert np.percentile(np.abs(late - np.median(late)), 90) < 0.1


@pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg here (Debian: ffmpeg)")
def test_rtmp(mp4: Path) -> None:
    assert FFMPEG is not None
    url = f"rtmp://127.0.0.1:{free_port()}/live/cam"
    send = [FFMPEG, "-v", "error", "-re", "-i", str(mp4), "-c", "copy", "-f", "flv"]
    sender = subprocess.Popen([*send, "-listen", "1", url])
    try:
        source = None
        for _ in range(50):
            try:
                source = open_source(url, timeout_s=5)
                break
            except SalstreamError as error:
                assert "refused the connection" in str(error)  # it is not listening yet
                time.sleep(0.1)
        assert source is not None
        assert source.live
        numbers, broken = read_live(source)
        assert numbers == list(range(FRAMES))
        if broken is not None:  # ffmpeg cannot tell the end from a lost connection
            assert_one_sentence(broken, f"broke off after {FRAMES} frames")
    finally:
        sender.kill()
        sender.wait()


# RTSP


@pytest.mark.parametrize("between", ["0", "2"])
def test_rtsp(tmp_path: Path, between: str) -> None:
    path = numbered_clip(tmp_path / "clip.mp4", FRAMES, fps=FPS, options={"g": "10", "bf": between})
    with closing(RtspServer(path)) as server:
        source = open_source(f"rtsp://{server.address}/cam", timeout_s=5)
        assert source.live
        assert source.frame_count is None
        assert source.fps == pytest.approx(FPS, rel=0.05)
        assert "TCP" in server.output.readline()
        numbers, error = read_live(source)
    assert error is None
    assert numbers == list(range(FRAMES))


def test_rtsp_password(mp4: Path) -> None:
    with closing(RtspServer(mp4, "me", "geheim")) as server:
        source = open_source(f"rtsp://me:geheim@{server.address}/cam", timeout_s=5)
        assert source.name == f"rtsp://me:***@{server.address}/cam"
        numbers, error = read_live(source, limit=5)
        assert (numbers, error) == ([0, 1, 2, 3, 4], None)
        for user in ("", "me:geheim2@"):
            with pytest.raises(SalstreamError) as caught:
                open_source(f"rtsp://{user}{server.address}/cam", timeout_s=5)
            assert_one_sentence(caught.value, server.address, "(401)", "rtsp://user:password@")


def test_rtsp_path_that_is_not_there(mp4: Path) -> None:
    with closing(RtspServer(mp4)) as server:
        with pytest.raises(SalstreamError) as caught:
            open_source(f"rtsp://{server.address}/other", timeout_s=5)
        assert_one_sentence(caught.value, f"{server.address}/other", "(404)")


def test_rtsp_camera_that_falls_silent(mp4: Path) -> None:
    with closing(RtspServer(mp4)) as server:
        source = open_source(f"rtsp://{server.address}/cam", timeout_s=TIMEOUT_S)
        frames = iter(source)
        for _ in range(5):
            next(frames)
        begin = time.monotonic()
        server.process.send_signal(signal.SIGSTOP)  # as if its cable were pulled
        with pytest.raises(SalstreamError) as caught:
            for _ in range(FRAMES):
                next(frames)
        assert time.monotonic() - begin < 3 * TIMEOUT_S
        assert_one_sentence(caught.value, server.address, "(nothing for 1 s)")


def test_rtsp_closed_from_another_thread(mp4: Path) -> None:
    with closing(RtspServer(mp4)) as server:
        source = open_source(f"rtsp://{server.address}/cam", timeout_s=TIMEOUT_S)
        threading.Timer(0.3, source.close).start()
        begin = time.monotonic()
        count = sum(1 for _ in source)
        assert time.monotonic() - begin < 1.5
        assert 0 < count < FRAMES


# Servers that are not there


@pytest.mark.parametrize("scheme", ["rtsp", "http", "tcp", "rtmp", "https", "rtsps"])
def test_a_closed_port(capfd: pytest.CaptureFixture[str], scheme: str) -> None:
    begin = time.monotonic()
    with pytest.raises(SalstreamError) as caught:
        open_source(f"{scheme}://me:geheim@127.0.0.1:{free_port()}/cam")
    assert time.monotonic() - begin < 2
    assert_one_sentence(caught.value, f"{scheme}://me:***@127.0.0.1", "refused the connection")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("scheme", ["rtsp", "http", "tcp", "rtmp", "https", "rtsps"])
def test_a_server_that_accepts_and_says_nothing(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        begin = time.monotonic()
        with pytest.raises(SalstreamError) as caught:
            open_source(f"{scheme}://me:geheim@127.0.0.1:{port}/cam", timeout_s=0.5)
        assert 0.4 < time.monotonic() - begin < 2
    assert_one_sentence(caught.value, f"{scheme}://me:***@127.0.0.1:{port}", "nothing for 0.5 s")


def test_udp_without_a_sender() -> None:
    begin = time.monotonic()
    with pytest.raises(SalstreamError) as caught:
        open_source(f"udp://127.0.0.1:{free_port()}", timeout_s=0.5)
    assert 0.4 < time.monotonic() - begin < 2
    assert_one_sentence(caught.value, "udp://127.0.0.1", "nothing for 0.5 s")


def test_a_host_that_does_not_exist() -> None:
    with pytest.raises(SalstreamError) as caught:
        open_source("rtsp://me:geheim@camera.invalid/cam", timeout_s=0.5)
    assert_one_sentence(caught.value, "rtsp://me:***@camera.invalid/cam", "check address")


def test_a_camera_that_is_booting_is_tried_again() -> None:
    """An RTSP server that accepts and says nothing, or hangs up: neither is an answer."""

    def silent(connection: socket.socket) -> None:
        time.sleep(1.5)

    for talk in (silent, lambda connection: connection.close()):
        with talking(talk) as port, pytest.raises(SalstreamError) as caught:
            list(open_source(f"rtsp://127.0.0.1:{port}/cam", timeout_s=0.5))
        assert not isinstance(caught.value, UnusableSource), caught.value


def test_a_pipeline_with_a_url_in_it_is_a_pipeline() -> None:
    pipeline = "rtspsrc location=rtsp://me:geheim@host/1 ! rtph264depay ! appsink"
    assert is_live(pipeline)
    assert not has_scheme(pipeline)
