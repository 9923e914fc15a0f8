"""`salstream run` over cameras, as a service runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import av
import cv2
import pytest

from clips import number_image, numbered_clip
from cpp import tiny
from live import until
from servers import free_port, send_jpegs, serving

PROGRAM = Path(sys.executable).with_name("salstream")


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return tiny.save(tmp_path / "tiny.onnx", window=3)


@pytest.fixture
def camera() -> Iterator[str]:
    def jpegs() -> Iterator[bytes]:
        for number in count():
            yield cv2.imencode(".jpg", number_image(number % 4096, (96, 128)))[1].tobytes()

    with serving(lambda connection: send_jpegs(connection, jpegs(), 30)) as port:
        yield f"http://me:geheim@127.0.0.1:{port}/"


_programs: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _no_program_is_left() -> Iterator[None]:
    yield
    while _programs:
        with _programs.pop() as program:
            program.kill()


def start(
    graph: Path, *arguments: str | Path, program: tuple[str | Path, ...] = (PROGRAM,)
) -> subprocess.Popen[str]:
    # Tests that were started in the background ignore SIGINT, and so would what they start.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    started = subprocess.Popen(
        [*program, "run", *map(str, arguments), "--model", graph, "--backend", "onnxruntime:cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    signal.signal(signal.SIGINT, before)
    _programs.append(started)
    return started


def until_written(path: Path, lines: int) -> None:
    end = time.monotonic() + 20
    while not path.exists() or path.read_text().count("\n") < lines:
        assert time.monotonic() < end, "nothing was written in time"
        time.sleep(0.05)


def terminated(program: subprocess.Popen[str]) -> tuple[str, str]:
    program.send_signal(signal.SIGTERM)
    out, err = program.communicate(timeout=10)
    assert program.returncode == 143, err
    assert "geheim" not in out + err
    return out, err


def test_a_service_that_is_asked_to_end(tmp_path: Path, graph: Path, camera: str) -> None:
    lines = tmp_path / "points.jsonl"
    listing = tmp_path / "cameras.txt"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        listing.write_text(
            f"door = {camera}\nyard = {camera}\n"
            f"silent = rtsp://127.0.0.1:{silent.getsockname()[1]}/\n"
            f"absent = tcp://127.0.0.1:{free_port()}\n"
        )
        program = start(
            graph,
            *("--cameras", listing, "--jsonl", lines, "--log-json", "--json"),
            *("--save", tmp_path / "out" / "{camera}.mp4"),
        )
        until_written(lines, 30)
        out, err = terminated(program)
    said = [json.loads(line) for line in lines.read_text().splitlines()]
    assert {line["camera"] for line in said} == {"door", "yard"}
    for name in ("door", "yard"):
        with av.open(tmp_path / "out" / f"{name}.mp4") as container:
            frames = sum(1 for _ in container.decode(video=0))
        written = sum(line["camera"] == name for line in said)
        assert frames == written
        summary = json.loads(out)["cameras"][name]
        assert summary["maps"] == written
        parts = ("maps", "skipped", "dropped", "unfinished")
        assert summary["frames"] == sum(summary[part] for part in parts)
        assert summary["unfinished"] >= 0
    cameras: dict[str, Any] = json.loads(out)["cameras"]
    assert set(cameras) == {"door", "yard", "silent", "absent"}
    assert cameras["door"]["maps"] > 5
    assert cameras["absent"]["frames"] == 0
    assert {"capture_to_map", "infer"} <= set(cameras["door"]["latency_ms"])
    log = [json.loads(line) for line in err.splitlines()]
    states = {(line.get("camera"), line.get("state")) for line in log}
    assert {("door", "warming"), ("door", "live"), ("absent", "reconnecting")} <= states
    assert log[-1]["message"].startswith("Interrupted")
    assert all({"time", "level", "message"} <= set(line) for line in log)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["file", "camera", "cameras"])
def test_who_asks_again_while_it_ends_changes_nothing(
    tmp_path: Path, graph: Path, camera: str, kind: str, number: signal.Signals
) -> None:
    sources = {"camera": [camera], "cameras": [f"a={camera}", f"b={camera}"]}
    if kind == "file":
        sources["file"] = [str(numbered_clip(tmp_path / "v.mp4", 3000, size=(96, 128)))]
    lines = tmp_path / "points.jsonl"
    outputs = ("--jsonl", lines, "--save", tmp_path / "{camera}.mp4", "--log-json", "--json")
    program = start(graph, *sources[kind], *outputs)
    until_written(lines, 30)
    for _ in range(10):
        program.send_signal(number)
        time.sleep(0.05)
    out, err = program.communicate(timeout=10)
    assert program.returncode == 128 + number, err
    log = [json.loads(line)["message"] for line in err.splitlines()]
    assert log[-1] == "Interrupted: what was written so far is complete."
    json.loads(out)
    said = [json.loads(line)["camera"] for line in lines.read_text().splitlines()]
    for name in set(said):
        with av.open(tmp_path / f"{name}.mp4") as container:
            frames = sum(1 for _ in container.decode(video=0))
        assert frames == said.count(name)


@contextmanager
def cameras_in(phase: str) -> Iterator[tuple[str, list[socket.socket], threading.Event]]:
    """A server of many cameras: silent, sending, or sending until the event is set."""
    clients: list[socket.socket] = []
    gone = threading.Event()

    def talk(client: socket.socket) -> None:
        clients.append(client)
        if phase == "connecting":
            gone.wait(20)
        jpegs = (cv2.imencode(".jpg", number_image(n, (96, 128)))[1].tobytes() for n in count())
        if not gone.is_set():
            send_jpegs(client, takewhile(lambda _: not gone.is_set(), jpegs), 30)

    with serving(talk) as port:
        scheme = "rtsp" if phase == "connecting" else "http"
        try:
            yield f"{scheme}://127.0.0.1:{port}/", clients, gone
        finally:
            gone.set()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("phase", ["connecting", "live", "reconnecting"])
def test_a_run_ends_within_two_seconds(tmp_path: Path, graph: Path, phase: str) -> None:
    lines = tmp_path / "points.jsonl"
    names = ["a", "b", "c", "d"]
    with cameras_in(phase) as (url, clients, gone):
        program = start(
            graph,
            *(f"{name}={url}" for name in names),
            *("--jsonl", lines, "--save", tmp_path / "{camera}.mp4"),
            *("--segment-seconds", "0.5", "--log-json"),
        )
        until(lambda: len(clients) >= len(names), 20)
        if phase != "connecting":
            until_written(lines, 150)
        if phase == "reconnecting":
            gone.set()
            until(lambda: len(clients) >= 2 * len(names), 20)  # all of them tried again
        begin = time.monotonic()
        program.send_signal(signal.SIGTERM)
        _, err = program.communicate(timeout=10)
        took_s = time.monotonic() - begin
    assert program.returncode == 143, err
    log = [json.loads(line) for line in err.splitlines()]
    assert log[-1]["message"] == "Interrupted: what was written so far is complete."
    assert took_s < 2, "with the interpreter's own end"
    said = [json.loads(line)["camera"] for line in lines.read_text().splitlines()]
    for name in names:
        pieces = sorted(tmp_path.glob(f"{name}-*.mp4"))
        assert bool(pieces) == (phase != "connecting")
        assert abs(sum(map(frames_of, pieces)) - said.count(name)) <= 1


def frames_of(path: Path) -> int:
    """Return how many frames there are in a file that was closed in order."""
    data, boxes, at = path.read_bytes(), [], 0
    while at < len(data):
        boxes.append(data[at + 4 : at + 8])
        at += int.from_bytes(data[at : at + 4])
    assert at == len(data)
    assert b"moov" in boxes
    assert b"moof" not in boxes, "it is as it grew, and was not completed"
    with av.open(path) as container:
        return sum(1 for _ in container.decode(video=0))


SLOW_DISK = """
import time
from salstream.runtime import cli, sinks
close = sinks.OverlayVideo.close
def slow(video):
    time.sleep(5 if "slow" in video._path.name else 0)
    close(video)
sinks.OverlayVideo.close = slow
cli._main()
"""


def test_files_that_are_not_complete_are_named(tmp_path: Path, graph: Path, camera: str) -> None:
    lines = tmp_path / "points.jsonl"
    program = start(
        graph,
        *(f"door={camera}", f"slow={camera}", f"yard={camera}"),
        *("--jsonl", lines, "--save", tmp_path / "{camera}.mp4", "--log-json"),
        program=(sys.executable, "-c", SLOW_DISK),
    )
    until_written(lines, 30)
    begin = time.monotonic()
    _, err = terminated(program)
    assert time.monotonic() - begin < 4
    last = json.loads(err.splitlines()[-1])["message"]
    assert last == "Interrupted: what was written is not complete of slow."


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["file", "camera"])
def test_a_reader_that_takes_nothing_holds_up_no_end(
    tmp_path: Path, graph: Path, camera: str, kind: str, number: signal.Signals
) -> None:
    source = camera
    if kind == "file":
        source = str(numbered_clip(tmp_path / "v.mp4", 3000, size=(96, 128)))
    lines = tmp_path / "points.jsonl"
    program = start(graph, source, "--save", "-", "--jsonl", lines)
    until_written(lines, 1)
    written = -1
    while written != (size := lines.stat().st_size):
        written = size  # until the pipe is full
        time.sleep(1)
    begin = time.monotonic()
    program.send_signal(number)
    assert program.wait(10) == 128 + number
    assert time.monotonic() - begin < 3


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_end_that_hangs_can_be_ended(number: signal.Signals) -> None:
    script = (
        "import time; from salstream.runtime import signals\n"
        "signals._END_S = 0.5; signals.end_in_order()\n"
        "try: print('ready', flush=True); time.sleep(30)\n"
        "finally: print('ending', flush=True); time.sleep(30)"
    )
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    program = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    _programs.append(program)
    assert program.stdout is not None
    for word in ("ready", "ending"):
        assert program.stdout.readline() == f"{word}\n"
        program.send_signal(number)
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(0.7)
    program.send_signal(number)
    assert program.wait(5) == 128 + number


def test_the_page_comes_and_goes_with_the_run(tmp_path: Path, graph: Path, camera: str) -> None:
    token = tmp_path / "token"
    token.write_text("a-token-of-some-length\n")
    program = start(graph, f"door={camera}", "--serve", "127.0.0.1:0", "--token-file", token)
    assert program.stderr is not None
    line = program.stderr.readline()
    url = re.search(r"http://127\.0\.0\.1:\d+/", line)
    assert url, line

    def door(**headers: str) -> Any:
        request = urllib.request.Request(f"{url[0]}api/cameras", headers=headers)
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)["cameras"][0]

    with pytest.raises(urllib.error.HTTPError, match="401"):
        door()
    end = time.monotonic() + 20
    while (status := door(Authorization="Bearer a-token-of-some-length"))["maps"] < 5:
        assert time.monotonic() < end, status
        time.sleep(0.1)
    assert (status["name"], status["state"]) == ("door", "live")
    terminated(program)
    with pytest.raises(urllib.error.URLError):
        door()


def test_the_end_while_connecting_to_a_silent_server(tmp_path: Path, graph: Path) -> None:
    connected = []

    def talk(connection: socket.socket) -> None:
        connected.append(connection)
        time.sleep(5)

    with serving(talk) as port:
        program = start(graph, f"rtsp://127.0.0.1:{port}/cam", "--save", tmp_path / "o.mp4")
        end = time.monotonic() + 20
        while not connected and time.monotonic() < end:
            time.sleep(0.05)
        terminated(program)


def test_one_camera_speaks_as_a_file_does(tmp_path: Path, graph: Path, camera: str) -> None:
    program = start(graph, camera, "--limit", "20", "--jsonl", "-", "--save", tmp_path / "o.mp4")
    out, err = program.communicate(timeout=30)
    assert program.returncode == 0, err
    records = [json.loads(line) for line in out.splitlines()]
    assert records[-1]["index"] == 19
    assert "20 frames in" in err
    assert "geheim" not in out + err
    (tmp_path / "o.mp4").stat()


def test_a_camera_that_is_given_up(graph: Path) -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    program = start(graph, url, "--reconnect", "1", "--json")
    out, err = program.communicate(timeout=30)
    assert program.returncode == 1
    assert f"Error: {url} refused the connection" in err
    assert "(gave up after 1 try)" in err
    assert json.loads(out)["frames"] == 0
    program = start(graph, f"a={url}", f"b={url}", "--reconnect", "0")
    out, err = program.communicate(timeout=30)
    assert program.returncode == 1
    assert "Error: 2 of 2 cameras failed: a: tcp://" in err


@pytest.mark.parametrize(
    ("kind", "words"), [("codec", "no decoder for its video"), ("sound", "no video in it")]
)
def test_what_cannot_be_decoded_fails_at_once(
    tmp_path: Path, graph: Path, kind: str, words: str
) -> None:
    path = numbered_clip(tmp_path / "clip.avi", 30, codec="mjpeg")
    data = path.read_bytes().replace(b"MJPG", b"ZZZZ")
    if kind == "sound":
        path = tmp_path / "sound.ts"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mp2", rate=44_100)
            sound = av.AudioFrame("s16", "stereo", 1152 * 40)
            sound.rate = 44_100
            container.mux(stream.encode(sound))
            container.mux(stream.encode(None))
        data = path.read_bytes()

    def talk(connection: socket.socket) -> None:
        connection.sendall(data)
        time.sleep(5)

    with serving(talk) as port:
        program = start(graph, f"tcp://127.0.0.1:{port}", "--timeout", "1.5")
        _, err = program.communicate(timeout=30)
    assert program.returncode == 1
    assert err.count("Error: ") == 1
    assert words in err
