"""Live cameras against real servers: killed, frozen, wrong; and one graph in batches."""

from __future__ import annotations

import random
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from itertools import cycle, groupby, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from clips import number_image, numbered_clip, read_number
from cpp import tiny
from live import (
    FAST,
    SIZE,
    JpegLike,
    Keep,
    Numbers,
    descriptors,
    megabytes,
    model_of,
    our_threads,
    tasks,
    until,
)
from salstream.runtime import Result, SaliencyModel, SalstreamError
from salstream.runtime.live.camera import Event, State
from salstream.runtime.live.fleet import Fleet
from salstream.runtime.live.source import Reconnect
from salstream.runtime.sources import Frame
from servers import FFMPEG, RtspServer, free_port, send_jpegs, serving


@pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg here (Debian: ffmpeg)")
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc to count descriptors in")
def test_a_stream_killed_ten_times_at_random_moments(tmp_path: Path) -> None:
    """Ten lives end after some maps; eight more do so wherever their start has come to."""
    chance = random.Random(7)
    clips = [
        numbered_clip(
            tmp_path / f"{life}.ts", 0, SIZE, options={"g": "5", "bf": "0"}, numbers=_life(life)
        )
        for life in range(19)
    ]
    early = set(chance.sample(range(18), 8))
    killed_in: list[State] = []
    events: list[Event] = []
    port = free_port()
    url = f"tcp://127.0.0.1:{port}"
    backend = Numbers(window=5, map_frame=2)
    keep = Keep()
    fleet = Fleet(
        model_of(backend),
        {"door": url},
        sinks=lambda camera: [keep],
        on_event=events.append,
        reconnect=FAST,
        timeout_s=1.0,
    )
    before, threads, memory = descriptors(), tasks(), 0.0
    (camera,) = fleet.cameras
    with fleet:
        for life, clip in enumerate(clips):
            assert FFMPEG is not None
            send = [FFMPEG, "-v", "quiet", "-re", "-i", str(clip), "-c", "copy", "-f", "mpegts"]
            sender = subprocess.Popen([*send, f"{url}?listen=1"])
            try:
                if life in early:
                    time.sleep(chance.uniform(0, 1.5))
                    killed_in.append(camera.state)
                else:
                    until(lambda life=life: newest_are_of(life, keep.results))  # type: ignore[misc]
                    time.sleep(chance.uniform(0, 0.4))
            finally:
                sender.kill()
                sender.wait()
            if life == 4:
                memory = megabytes()
        until(lambda: camera.state is State.RECONNECTING)
        assert len(our_threads()) == 3
        until(lambda: tasks() <= threads + 3)  # a try may be under way
        until(lambda: descriptors() <= before)
        assert megabytes() < memory + 20
        frames_again = sum(
            (old.state, new.state) == (State.RECONNECTING, State.WARMING)
            for old, new in pairwise(events)
        )
        assert camera.reconnects == frames_again - (events[0].state is State.RECONNECTING)
        assert 10 <= camera.reconnects <= 18
    assert set(killed_in) - {State.LIVE}
    assert lives_of(keep.results, backend) | early == set(range(19))
    assert our_threads() == []


def _life(life: int) -> list[int]:
    return list(range(200 * life, 200 * life + 150))


def newest_are_of(life: int, results: list[Result]) -> bool:
    """Whether four maps of this life have come: those of the one before may come late."""
    newest = [(read_number(result.frame) or 0) // 200 for result in results[-4:]]
    return newest == [life] * 4


def lives_of(results: list[Result], backend: Numbers) -> set[int]:
    """Return the lives that were seen: each frame, window and state is of one alone."""
    lives = set()
    for result in results:
        seen = backend.seen[round(float(result.map[0, 0]) * 10_000)]
        assert None not in seen
        (life,) = {(number or 0) // 200 for number in seen}
        assert (read_number(result.frame) or 0) // 200 == life
        lives.add(life)
    times = [result.time or 0 for result in results]
    assert times == sorted(times)
    return lives


def test_rtsp_cameras_come_back(tmp_path: Path) -> None:
    clip = numbered_clip(tmp_path / "clip.mp4", 150, SIZE, options={"g": "5", "bf": "0"})
    port = free_port()
    events: list[Event] = []
    fleet = Fleet(
        model_of(Numbers()),
        {"door": f"rtsp://127.0.0.1:{port}/cam"},
        on_event=events.append,
        reconnect=FAST,
        timeout_s=2.0,
    )
    (camera,) = fleet.cameras
    with fleet:
        for _ in range(3):
            with closing(RtspServer(clip, port=port)):
                maps = camera.status().maps
                until(lambda maps=maps: camera.status().maps > maps + 3)  # type: ignore[misc]
    states = [event.state for event in events]
    changes = [state for state, _ in groupby(states)]  # each failed try may have its own reason
    if changes[0] is State.RECONNECTING:  # it was faster than the server
        del changes[0]
    assert changes[:8] == ([State.WARMING, State.LIVE, State.RECONNECTING] * 3)[:8]
    assert camera.reconnects == 2


@pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg here (Debian: ffmpeg)")
@pytest.mark.parametrize("kind", ["mjpeg", "udp"])
def test_senders_over_http_and_udp_come_back(kind: str, tmp_path: Path) -> None:
    """No window or state goes across a cut: each life's frames have numbers of their own."""
    assert FFMPEG is not None
    port = free_port()
    url = f"http://127.0.0.1:{port}/cam" if kind == "mjpeg" else f"udp://127.0.0.1:{port}"
    parts = "multipart/x-mixed-replace;boundary=ffmpeg"
    send = {
        "mjpeg": ["mpjpeg", "-content_type", parts, "-listen", "1", url],
        "udp": ["mpegts", f"{url}?pkt_size=1316"],
    }[kind]
    lives = 4
    events: list[Event] = []
    backend = Numbers(window=5, map_frame=2)
    keep = Keep()
    fleet = Fleet(
        model_of(backend),
        {"door": url},
        sinks=lambda camera: [keep],
        on_event=events.append,
        reconnect=FAST,
        timeout_s=1.5,
    )
    (camera,) = fleet.cameras
    with fleet:
        for life in range(lives):
            clip = numbered_clip(
                tmp_path / f"{life}.{'mkv' if kind == 'mjpeg' else 'ts'}",
                *(0, SIZE),
                codec="mjpeg" if kind == "mjpeg" else "libx264",
                options={} if kind == "mjpeg" else {"g": "5", "bf": "0"},
                numbers=_life(life),
            )
            options = ["-v", "quiet", "-re", "-i", str(clip), "-c", "copy", "-f"]
            sender = subprocess.Popen([FFMPEG, *options, *send])
            try:
                until(lambda life=life: newest_are_of(life, keep.results))  # type: ignore[misc]
            finally:
                sender.kill()
                sender.wait()
            until(lambda: camera.state is State.RECONNECTING)
    changes = [state for state, _ in groupby(event.state for event in events)]
    if changes[0] is State.RECONNECTING:  # it was faster than the server
        del changes[0]
    recovered = [State.STALLED, State.WARMING, State.LIVE]  # where the machine was busy
    while found := [n for n in range(len(changes)) if changes[n : n + 3] == recovered]:
        del changes[found[0] : found[0] + 3]
    silent = [State.STALLED] if kind == "udp" else []  # nobody says that the sender is gone
    life_of_one = [State.WARMING, State.LIVE, *silent, State.RECONNECTING]
    assert changes == [*life_of_one * lives, State.ENDED]
    assert camera.reconnects == lives - 1
    assert lives_of(keep.results, backend) == set(range(lives))
    assert our_threads() == []


@pytest.mark.parametrize("kind", ["tcp", "rtsp"])
def test_a_sender_that_freezes_is_given_up_in_time(kind: str, tmp_path: Path) -> None:
    """It is stalled, then tried again: no frame that ffmpeg held back makes it live between."""
    timeout_s = 2.0
    numbers = list(range(300))
    clip = numbered_clip(
        tmp_path / ("clip.ts" if kind == "tcp" else "clip.mp4"),
        *(0, SIZE),
        options={"g": "5", "bf": "0"},
        numbers=numbers,
    )
    if kind == "tcp":
        if FFMPEG is None:
            pytest.skip("no ffmpeg here (Debian: ffmpeg)")
        url = f"tcp://127.0.0.1:{free_port()}"
        send = [FFMPEG, "-v", "quiet", "-re", "-i", str(clip), "-c", "copy", "-f", "mpegts"]
        sender: subprocess.Popen[Any] = subprocess.Popen([*send, f"{url}?listen=1"])
    else:
        server = RtspServer(clip)
        sender, url = server.process, f"rtsp://{server.address}/cam"
    events: list[Event] = []
    fleet = Fleet(
        model_of(Numbers()),
        {"door": url},
        on_event=events.append,
        reconnect=FAST,
        timeout_s=timeout_s,
    )
    (camera,) = fleet.cameras
    try:
        with fleet:
            until(lambda: camera.status().maps > 10)
            frozen = time.time()
            sender.send_signal(signal.SIGSTOP)
            until(lambda: camera.state is State.RECONNECTING)
    finally:
        sender.kill()
        sender.wait()
    after = [event for event in events if event.time > frozen]
    assert [event.state for event in after][:2] == [State.STALLED, State.RECONNECTING]
    assert "nothing for 2 s" in str(after[1].reason)
    assert after[1].time - frozen < 1.75 * timeout_s


def test_the_end_of_a_connection_while_a_server_says_nothing() -> None:
    connected, over = threading.Event(), threading.Event()

    def talk(connection: socket.socket) -> None:
        connected.set()
        over.wait(60)

    with serving(talk) as port:
        fleet = Fleet(model_of(Numbers()), {"door": f"rtsp://127.0.0.1:{port}/cam"}, timeout_s=30)
        with fleet:
            assert connected.wait(10)
            begin = time.monotonic()
        assert time.monotonic() - begin < 10
        assert fleet.cameras[0].state is State.ENDED
        over.set()
        until(lambda: not our_threads())


def drip(connection: socket.socket) -> None:
    """Send a true stream, one byte at a time."""
    connection.recv(4096)
    for byte in b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\n\r\n" + b"G" * 1000:
        connection.sendall(bytes([byte]))
        time.sleep(0.1)


def garbage(connection: socket.socket) -> None:
    connection.recv(4096)
    noise = random.Random(0).randbytes(100_000)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\n\r\n" + noise)


def giant(connection: socket.socket) -> None:
    """A picture of 20,000 x 20,000, and one of 16,000 x 16,000 that ffmpeg itself would take."""
    blank = number_image(0, (64, 64))
    jpeg = bytearray(cv2.imencode(".jpg", blank)[1].tobytes())
    at = jpeg.index(b"\xff\xc0") + 5
    sizes = (20_000, 16_000)
    jpegs = [bytes(jpeg[:at]) + struct.pack(">HH", n, n) + bytes(jpeg[at + 4 :]) for n in sizes]
    send_jpegs(connection, cycle(jpegs), 20)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc to measure memory in")
@pytest.mark.parametrize(
    ("talk", "expected"),
    [
        (lambda connection: time.sleep(3), r"sent nothing for 0.5 s"),
        (drip, r"sent nothing for 0.5 s"),
        (garbage, r"(not a video|cannot be reached)"),
        (giant, r"(too large|no picture|cannot be)"),
        (lambda connection: None, r"(ended before|cannot be reached|not a video)"),
    ],
)
def test_servers_that_are_no_cameras(
    talk: Callable[[socket.socket], None], expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = peak_megabytes()
    with serving(talk) as port:
        fleet = Fleet(
            model_of(Numbers()),
            {"door": f"http://me:geheim@127.0.0.1:{port}/cam"},
            reconnect=Reconnect(tries=1, first_pause_s=0.05),
            timeout_s=0.5,
        )
        begin = time.monotonic()
        with pytest.raises(SalstreamError, match=expected) as caught:
            fleet.run()
        assert time.monotonic() - begin < 8
    assert "geheim" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert peak_megabytes() - before < 100
    assert "geheim" not in capfd.readouterr().err


def peak_megabytes() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def test_corrupt_packets_are_left_out_and_the_stream_goes_on(tmp_path: Path) -> None:
    clip = numbered_clip(tmp_path / "clip.ts", 90, SIZE, options={"g": "5", "bf": "0"})
    data = bytearray(clip.read_bytes())
    chance = random.Random(3)
    for _ in range(40):
        data[chance.randrange(len(data) // 4, len(data) * 3 // 4)] ^= chance.randrange(1, 256)

    def talk(connection: socket.socket) -> None:
        for start in range(0, len(data), 1316):
            connection.sendall(data[start : start + 1316])
            time.sleep(2 * 1316 / len(data))

    keep = Keep()
    backend = Numbers(recurrent=False)
    with serving(talk) as port:
        fleet = Fleet(
            model_of(backend),
            {"door": f"tcp://127.0.0.1:{port}"},
            sinks=lambda camera: [keep],
            reconnect=Reconnect(tries=0),
            timeout_s=1.0,
        )
        with suppress(SalstreamError):
            fleet.run()
    numbers = [n for n in (read_number(result.frame) for result in keep.results) if n is not None]
    assert len(numbers) > 20
    assert numbers[-1] > 70
    assert our_threads() == []


class Changing(JpegLike):
    """Its pictures become wider, at the 20th frame and then every so many."""

    def __init__(self, count: int, fps: float, every: int = 1000) -> None:
        super().__init__(count, fps)
        self._every = every

    def _read(self) -> Iterator[Frame]:
        for frame in super()._read():
            wide = frame.index >= 20 and (frame.index - 20) // self._every % 2 == 0
            yield replace(frame, image=np.repeat(frame.image, 1 + wide, axis=1))


def test_a_warning_names_its_camera_and_is_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    cameras = {"door%s": lambda: Changing(60, 60, 2), "yard": lambda: Changing(60, 60, 2)}
    Fleet(model_of(Numbers(window=5)), cameras, reconnect=Reconnect(tries=0)).run()
    told = {vars(record)["camera"]: record.getMessage() for record in caplog.records}
    assert set(told) == set(cameras)
    assert len(caplog.records) == 2
    for camera, message in told.items():
        assert message.startswith(f"{camera}: frame ")
        assert "has another size" in message


def test_a_camera_that_changes_its_size() -> None:

    backend = Numbers(window=5, map_frame=2)
    keep = Keep()
    fleet = Fleet(
        model_of(backend),
        {"door": lambda: Changing(40, 60)},
        sinks=lambda camera: [keep],
        reconnect=Reconnect(tries=0),
    )
    fleet.run()
    for result in keep.results:
        seen = backend.seen[round(float(result.map[0, 0]) * 10_000)]
        assert {(number or 0) >= 20 for number in seen} == {result.index >= 20}
    assert {result.frame.shape[1] for result in keep.results} == {64, 128}


# One graph for several cameras, in batches


@pytest.mark.parametrize("recurrent", [False, True])
def test_batches_give_the_same_maps(tmp_path: Path, recurrent: bool) -> None:
    graph = tiny.save(tmp_path / "tiny.onnx", window=3, recurrent=recurrent, levels=2)
    model = SaliencyModel.open(graph, backend="onnxruntime:cpu")
    clips = {
        name: numbered_clip(tmp_path / f"{name}.mp4", count, numbers=range(begin, begin + count))
        for name, count, begin in (("a", 12, 0), ("b", 30, 100), ("c", 21, 500))
    }
    keeps = {name: Keep() for name in clips}
    fleet = Fleet(model, dict(clips), sinks=lambda camera: [keeps[camera.name]], batch=3)
    fleet.run()
    for name, clip in clips.items():
        alone = list(model.stream(clip))
        assert [r.index for r in keeps[name].results] == [r.index for r in alone]
        for result, expected in zip(keeps[name].results, alone, strict=True):
            np.testing.assert_allclose(result.map, expected.map, atol=1e-6)
            assert result.conspicuity is not None
            assert expected.conspicuity is not None
            np.testing.assert_allclose(result.conspicuity, expected.conspicuity, atol=1e-6)
