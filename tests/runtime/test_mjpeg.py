"""Motion JPEG over HTTP as cameras really send it, and cameras with a picture for each request."""

from __future__ import annotations

import base64
import io
import itertools
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clips import number_image, numbered_clip, read_number
from salstream.runtime.errors import SalstreamError, UnusableSource
from salstream.runtime.live.camera import Camera
from salstream.runtime.live.source import Reconnect, ReconnectingSource
from salstream.runtime.sources import mjpeg, open_source
from salstream.runtime.sources.mjpeg import PERIOD_S, JpegFinder
from servers import serving

COUNT = 12
OK = b"HTTP/1.0 200 OK\r\n"
MULTIPART = OK + b"Content-Type: multipart/x-mixed-replace;boundary=B\r\n\r\n"


@cache
def jpeg(number: int) -> bytes:
    return cv2.imencode(".jpg", number_image(number, (96, 128)))[1].tobytes()


def with_thumbnail(picture: bytes) -> bytes:
    """As cameras write Exif: a small JPEG inside a segment of the large one."""
    thumbnail = b"Exif\0\0" + cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    return picture[:2] + b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2) + thumbnail + picture[2:]


def part(picture: bytes, length: int = 0) -> bytes:
    head = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
    return head % (len(picture) + length) + picture + b"\r\n"


def typed(kind: bytes) -> bytes:
    return OK + b"Content-Type: %s\r\n\r\n" % kind


LINE = b"--B\r\n"
SENDERS: dict[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    "usual": (MULTIPART, lambda p: LINE + part(p)),
    "boundary after the first part": (MULTIPART, lambda p: part(p) + LINE),
    "no boundary at all": (MULTIPART, part),
    "no type": (MULTIPART, lambda p: LINE + b"Content-Length: %d\r\n\r\n" % len(p) + p + b"\r\n"),
    "no length": (MULTIPART, lambda p: LINE + b"Content-Type: image/jpeg\r\n\r\n" + p + b"\r\n"),
    "no headers": (MULTIPART, lambda p: LINE + b"\r\n" + p + b"\r\n"),
    "line feeds": (
        MULTIPART.replace(b"\r\n", b"\n"),
        lambda p: b"--B\nContent-Type: image/jpeg\n\n" + p + b"\n",
    ),
    "preamble": (MULTIPART + b"This is a multipart message.\r\n\r\n", lambda p: LINE + part(p)),
    "quoted boundary": (MULTIPART.replace(b"=B", b'="B"'), lambda p: LINE + part(p)),
    "dashes in the boundary": (MULTIPART.replace(b"=B", b"=--B"), lambda p: LINE + part(p)),
    "no boundary parameter": (MULTIPART.replace(b";boundary=B", b""), lambda p: LINE + part(p)),
    "another boundary": (MULTIPART.replace(b"=B", b"=other"), lambda p: LINE + part(p)),
    "multipart/mixed": (MULTIPART.replace(b"x-mixed-replace", b"mixed"), lambda p: LINE + part(p)),
    "length too large": (MULTIPART, lambda p: LINE + part(p, 1000)),
    "length too small": (MULTIPART, lambda p: LINE + part(p, -1000)),
    "thumbnails": (MULTIPART, lambda p: LINE + part(with_thumbnail(p))),
    "garbage between": (MULTIPART, lambda p: LINE + part(p) + b"\xff\xd8\0\xff\xd9\0\xff" * 9),
    "padded": (MULTIPART, lambda p: LINE + part(p + bytes(100))),
    "sound between": (
        MULTIPART,
        lambda p: LINE + part(p) + LINE + b"Content-Type: audio/basic\r\n\r\n" + b"\xff\x7f" * 80,
    ),
    "bare, video/x-motion-jpeg": (typed(b"video/x-motion-jpeg"), lambda p: p),
    "bare, video/x-jpeg": (typed(b"video/x-jpeg"), lambda p: p),
    "bare, image/jpeg": (typed(b"image/jpeg"), lambda p: p),
    "bare, application/octet-stream": (typed(b"application/octet-stream"), lambda p: p),
    "no content type": (OK + b"\r\n", lambda p: LINE + part(p)),
    "text/plain": (typed(b"text/plain"), lambda p: LINE + part(p)),
}


@pytest.mark.parametrize("name", SENDERS)
def test_senders_as_they_are(name: str) -> None:
    head, wrap = SENDERS[name]

    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(head)
        for number in range(COUNT):
            connection.sendall(wrap(jpeg(number)))
            time.sleep(0.02)
        time.sleep(5)

    numbers = []
    with serving(talk) as port, open_source(f"http://127.0.0.1:{port}/", timeout_s=2) as source:
        assert source.live
        assert source.fps is None
        for frame in itertools.islice(source, COUNT):
            assert frame.image.shape == (96, 128, 3)
            assert frame.captured_s is not None
            numbers.append(read_number(frame.image))
    assert numbers == list(range(COUNT))
    assert getattr(source, "damaged", None) == 0


def test_the_pixels_are_those_of_the_picture() -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(MULTIPART + LINE + part(with_thumbnail(jpeg(5))))
        time.sleep(2)

    with serving(talk) as port, open_source(f"http://127.0.0.1:{port}/") as source:
        image = next(iter(source)).image
    expected = cv2.imdecode(np.frombuffer(jpeg(5), np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(image.astype(int) - expected).mean() < 2


def test_a_picture_is_not_held_back_until_the_next_one() -> None:
    sent: list[float] = []

    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(MULTIPART)
        for number in range(6):
            sent.append(time.monotonic())
            connection.sendall(part(jpeg(number)))
            time.sleep(0.4)

    with serving(talk) as port, open_source(f"http://127.0.0.1:{port}/") as source:
        delays = [time.monotonic() - sent[frame.index] for frame in itertools.islice(source, 5)]
    assert max(delays[1:]) < 0.2, delays  # the first one waits for the decoder to be opened


def read_all(url: str, limit: int = 1000, timeout_s: float = 0.5) -> tuple[int, SalstreamError]:
    count = 0
    with pytest.raises(SalstreamError) as caught:
        for _ in itertools.islice(open_source(url, timeout_s=timeout_s), limit):
            count += 1
    assert "Errno" not in str(caught.value)
    return count, caught.value


def drip(connection: socket.socket) -> None:
    for _ in range(30):
        connection.sendall(b"\r\n")
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("after", "count", "expected"),
    [
        (lambda connection: time.sleep(3), 4, "broke off after 4 frames (nothing for 0.5 s)"),
        (lambda connection: None, 4, "broke off after 4 frames"),
        (
            drip,
            4,
            "broke off after 4 frames (nothing for 0.5 s)",
        ),
        (lambda connection: connection.sendall(jpeg(1)[:700]), 4, "broke off after 4 frames"),
    ],
)
def test_streams_that_break(
    after: Callable[[socket.socket], object], count: int, expected: str
) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(MULTIPART)
        for number in range(4):
            connection.sendall(LINE + part(jpeg(number)))
            time.sleep(0.02)
        after(connection)

    with serving(talk) as port:
        began_s = time.monotonic()
        got, error = read_all(f"http://127.0.0.1:{port}/")
    assert time.monotonic() - began_s < 2.5
    assert got == count
    assert expected in str(error)
    assert not isinstance(error, UnusableSource)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (typed(b"image/jpeg") + b"no picture at all", "sends no JPEG picture"),
        (typed(b"image/jpeg"), "sends no JPEG picture"),
        (MULTIPART + b"--B--\r\n", "sends no JPEG picture"),
        (MULTIPART, "sends no JPEG picture"),
        (b"HTTP/1.0 403 No\r\n\r\n", "(403)"),
        (b"HTTP/1.0 404 No\r\n\r\n", "(404)"),
        (b"HTTP/1.0 503 Busy\r\n\r\n", "503 busy"),
    ],
)
def test_answers_without_a_picture(answer: bytes, expected: str) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(answer)

    with serving(talk) as port:
        _, error = read_all(f"http://me:geheim@127.0.0.1:{port}/")
    assert expected in str(error)
    assert "geheim" not in str(error)
    assert isinstance(error, UnusableSource) == (expected == "(403)")


def test_a_stream_that_is_slow_to_begin_is_no_lost_case() -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(MULTIPART)
        time.sleep(1.5)

    with serving(talk) as port:
        count, error = read_all(f"http://127.0.0.1:{port}/")
    assert count == 0
    assert "sent nothing for 0.5 s" in str(error)
    assert not isinstance(error, UnusableSource)


def test_a_picture_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mjpeg, "MAX_BYTES", 1 << 20)

    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(MULTIPART + LINE + part(jpeg(0)) + jpeg(1)[:-2])
        while True:
            connection.sendall(bytes(1 << 16))

    with serving(talk) as port:
        count, error = read_all(f"http://127.0.0.1:{port}/", timeout_s=5)
    assert count == 1
    assert "has a picture of more than 1 MB" in str(error)


def test_pictures_that_are_cut_off_are_left_out() -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(MULTIPART)
        for number in range(9):
            whole = with_thumbnail(jpeg(number))
            connection.sendall(
                LINE + part(whole[: len(whole) * 2 // 3] if number % 3 == 1 else whole)
            )
            time.sleep(0.02)
        time.sleep(3)

    with serving(talk) as port, open_source(f"http://127.0.0.1:{port}/") as source:
        numbers = [read_number(frame.image) for frame in itertools.islice(source, 6)]
    assert numbers == [0, 2, 3, 5, 6, 8]
    assert getattr(source, "damaged", None) == 3


def test_closed_from_another_thread() -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(MULTIPART)
        for number in itertools.count():
            connection.sendall(LINE + part(jpeg(number % 100)))
            time.sleep(0.05)

    with serving(talk) as port:
        source = open_source(f"http://127.0.0.1:{port}/", timeout_s=1)
        threading.Timer(0.5, source.close).start()
        count = sum(1 for _ in source)
    assert 2 < count < 30


def test_a_camera_comes_back() -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(MULTIPART)
        for number in range(5):
            connection.sendall(part(jpeg(number)) + LINE)
            time.sleep(0.02)

    with serving(talk) as port:
        url = f"http://127.0.0.1:{port}/"
        reconnect = Reconnect(first_pause_s=0.05)
        with ReconnectingSource(url, Camera("door", url), reconnect, timeout_s=2) as source:
            frames = list(itertools.islice(source, 12))
    assert [read_number(frame.image) for frame in frames] == [0, 1, 2, 3, 4] * 2 + [0, 1]
    assert source.camera.reconnects == 2


# One picture for each request


def asked(
    answers: Iterator[bytes], requests: list[str] | None = None
) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        request = connection.recv(4096).decode()
        if requests is not None:
            requests.append(request)
        connection.sendall(next(answers))

    return talk


def snapshot(number: int, length: bool = True) -> bytes:
    head = b"Content-Length: %d\r\n" % len(jpeg(number)) if length else b""
    return OK + b"Content-Type: image/jpeg\r\n" + head + b"\r\n" + jpeg(number)


@pytest.mark.parametrize("length", [True, False])
def test_snapshots_are_asked_for_again(length: bool) -> None:
    talk = asked(snapshot(number, length) for number in itertools.count())
    with serving(talk) as port, open_source(f"http://127.0.0.1:{port}/snapshot.jpg") as source:
        assert source.live
        assert source.fps is None
        began_s = time.monotonic()
        frames = list(itertools.islice(source, 6))
    assert [read_number(frame.image) for frame in frames] == list(range(6))
    assert 4 * PERIOD_S < time.monotonic() - began_s < 8 * PERIOD_S
    assert frames[-1].time == pytest.approx(5 * PERIOD_S, abs=PERIOD_S)


def test_a_snapshot_that_is_gone() -> None:
    answers = [snapshot(0), snapshot(1), b"HTTP/1.0 404 No\r\n\r\n"]
    with serving(asked(iter(answers))) as port:
        count, error = read_all(f"http://me:geheim@127.0.0.1:{port}/snapshot.jpg?token=heim")
    assert count == 2
    assert "(404)" in str(error)
    assert "heim" not in str(error)
    assert error.__context__ is None or "heim" not in repr(error.__context__)


def test_snapshots_behind_redirects_and_passwords() -> None:
    expected = "Basic " + base64.b64encode(b"me:ge#heim").decode()
    count = itertools.count()

    def talk(connection: socket.socket) -> None:
        request = connection.recv(4096).decode()
        if request.startswith("GET /old.jpg "):
            connection.sendall(b"HTTP/1.0 302 Found\r\nLocation: /new.jpg\r\n\r\n")
        elif f"Authorization: {expected}\r\n" in request:
            connection.sendall(snapshot(next(count)))
        else:
            connection.sendall(b'HTTP/1.0 401 No\r\nWWW-Authenticate: Basic realm="camera"\r\n\r\n')

    with serving(talk) as port:
        url = f"127.0.0.1:{port}/old.jpg"
        with open_source(f"http://me:ge#heim@{url}") as source:
            numbers = [read_number(frame.image) for frame in itertools.islice(source, 3)]
        assert numbers == [0, 1, 2]
        _, error = read_all(f"http://me:geheim@{url}")
    assert isinstance(error, UnusableSource)
    assert "(401)" in str(error)
    assert "heim" not in str(error)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl program here")
def test_snapshots_over_https(tmp_path: Path) -> None:
    """With a certificate that the camera signed itself."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=camera"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    talk = asked(snapshot(number) for number in itertools.count())

    def talk_in_secret(connection: socket.socket) -> None:
        with suppress(ssl.SSLError), context.wrap_socket(connection, server_side=True) as wrapped:
            talk(wrapped)

    with (
        serving(talk_in_secret) as port,
        open_source(f"https://127.0.0.1:{port}/snapshot.jpg") as source,
    ):
        numbers = [read_number(frame.image) for frame in itertools.islice(source, 3)]
    assert numbers == [0, 1, 2]


def test_a_sender_that_serves_only_once(tmp_path: Path) -> None:
    """What is no JPEG is read from the same connection: ffmpeg -listen 1 takes no second one."""
    data = numbered_clip(tmp_path / "clip.ts", 30, options={"g": "10", "bf": "0"}).read_bytes()
    answer = OK + b"Content-Type: video/mp2t\r\nConnection: close\r\n\r\n" + data
    with serving(asked(iter([answer]))) as port:
        numbers = [read_number(f.image) for f in open_source(f"http://127.0.0.1:{port}/")]
    assert numbers == list(range(30))


# Where pictures begin and end


def _encoded(**options: object) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    Image.fromarray(noise).save(stream, "jpeg", **options)
    return stream.getvalue()


KINDS = [
    _encoded(quality=90),
    _encoded(progressive=True),
    _encoded(restart_marker_blocks=1),
    _encoded(exif=b"Exif\0\0" + _encoded(quality=30)),
    with_thumbnail(_encoded(comment=b"\xff\xd9\xff\xd8\xff")),
    _encoded().replace(b"\xff\xda", b"\xff\xff\xff\xda", 1),  # a marker may be filled up
]
GARBAGE = st.binary(max_size=30).filter(
    lambda data: b"\xff\xd8" not in data and data[-1:] != b"\xff"
)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(GARBAGE, st.sampled_from(KINDS)), max_size=5), st.integers(1, 5000), GARBAGE
)
def test_whole_pictures_are_found_in_any_pieces(
    sent: list[tuple[bytes, bytes]], size: int, end: bytes
) -> None:
    data = b"".join(garbage + picture for garbage, picture in sent) + end
    finder = JpegFinder()
    found = [
        picture
        for start in range(0, len(data), size)
        for picture in finder.feed(data[start : start + size])
    ]
    assert found == [picture for _, picture in sent]
    assert finder.held <= 2


@settings(max_examples=100)
@given(st.binary(max_size=3000), st.integers(1, 500))
def test_anything_at_all_is_survived(data: bytes, size: int) -> None:
    finder = JpegFinder()
    data = b"\xff\xd8\xff" + data + KINDS[0] * 2
    found = [p for at in range(0, len(data), size) for p in finder.feed(data[at : at + size])]
    assert len(data) >= sum(map(len, found)) - 4 * len(found)
