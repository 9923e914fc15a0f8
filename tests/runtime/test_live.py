"""Cameras that fail, stall and come back, several through one model."""

from __future__ import annotations

import random
import socket
import subprocess
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from itertools import count, groupby, pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from clips import number_image, numbered_clip, read_number
from fakes import FakeBackend, numbered, spec
from live import FAST, SIZE, JpegLike, Keep, Numbers, Paced, model_of, our_threads, until
from salstream.runtime import Predictor, Result, SalstreamError, UsageError
from salstream.runtime.backends import Output
from salstream.runtime.errors import UnusableSource
from salstream.runtime.live.camera import Camera, Event, State
from salstream.runtime.live.fleet import Fleet
from salstream.runtime.live.source import Reconnect, ReconnectingSource, _Rate
from salstream.runtime.preprocess import prepare
from salstream.runtime.segments import Segments
from salstream.runtime.sources import Frame, Source
from salstream.runtime.sources.backlog import Backlog, Pace, StamplessBacklog
from salstream.runtime.sources.video import Video, open_url
from salstream.runtime.spec import GraphSpec
from servers import FFMPEG, free_port, send_jpegs, serving

# Coming back


def read_all(source: ReconnectingSource) -> tuple[list[Frame], SalstreamError | None]:
    frames: list[Frame] = []
    try:
        with source:
            for frame in source:
                frames.append(frame)
    except SalstreamError as error:
        return frames, error
    return frames, None


def test_a_source_goes_on_after_a_failure_with_a_cut() -> None:
    lives = iter([Paced(5, 100, 0, SalstreamError("lost")), Paced(5, 50, 100), Paced(0, 1)])
    events: list[Event] = []
    camera = Camera("door", "paced", events.append)
    frames, error = read_all(ReconnectingSource(lambda: next(lives), camera, FAST))
    assert error is None
    assert [frame.index for frame in frames] == list(range(10))
    assert [frame.cut for frame in frames] == [n in (0, 5) for n in range(10)]
    times = [frame.time for frame in frames]
    assert all(a is not None and b is not None and a < b for a, b in pairwise(times))
    assert (times[5] or 0) - (times[4] or 0) > 0.01  # a pause lies between
    assert camera.reconnects == 1
    assert [(e.state, e.reason) for e in events] == [
        (State.WARMING, None),
        (State.RECONNECTING, "lost"),
        (State.WARMING, None),
    ]


def test_times_go_on_when_the_camera_s_clock_jumps() -> None:
    class Jumping(Paced):
        def _read(self) -> Iterator[Frame]:
            for frame in super()._read():
                jump = {20: -95_443.7, 30: 95_443.7}.get(frame.index // 10 * 10, 0.0)
                yield replace(frame, time=(frame.time or 0.0) + jump)

    camera = Camera("door", "paced")
    source = ReconnectingSource(lambda: Jumping(50, 100), camera, Reconnect(tries=0))
    frames, error = read_all(source)
    assert error is None
    assert [frame.index for frame in frames if frame.cut] == [0, 20, 30, 40]
    times = [frame.time or 0.0 for frame in frames]
    assert all(0 < after - before < 0.5 for before, after in pairwise(times))
    assert camera.reconnects == 0


def test_segments_turn_over_when_times_go_back(tmp_path: Path) -> None:
    image, saliency = np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64), np.float32)
    segments = Segments(tmp_path / "door.mp4", 1.0)
    for time_s in (5000.0, 5000.5, 0.0, 0.5, 1.1):
        segments.write(Result(0, time_s, image, saliency))
        time.sleep(0.002)  # names tell milliseconds
    segments.close()
    assert len(list(tmp_path.glob("door-*.mp4"))) == 3


def test_what_seems_hopeless_is_tried_again_where_there_are_other_cameras() -> None:
    asked = count()

    def boots() -> Source:
        if next(asked) < 2:
            raise UnusableSource("door answered with something that is not a video")
        return Paced(10, 100)

    sources = {"door": boots, "yard": lambda: Paced(10, 100)}
    tries = Reconnect(tries=2, first_pause_s=0.01)
    fleet = Fleet(model_of(FakeBackend(spec())), sources, reconnect=tries)
    fleet.run()
    assert [camera.frames for camera in fleet.cameras] == [10, 10]
    asked = count()
    with pytest.raises(UnusableSource, match="not a video"):
        Fleet(model_of(FakeBackend(spec())), {"door": boots}, reconnect=tries).run()
    assert next(asked) == 1


def test_errors_of_the_system_are_failures_like_others() -> None:
    lives = iter([Paced(5, 100, fault=OSError("gone")), Paced(5, 100), Paced(0, 1)])
    asked = count()

    def open_it() -> Source:
        if next(asked) == 0:
            raise OSError("no such device")
        return next(lives)

    events: list[Event] = []
    camera = Camera("door", "usb", events.append)
    frames, error = read_all(ReconnectingSource(open_it, camera, FAST))
    assert (len(frames), error) == (10, None)
    reasons = [event.reason for event in events if event.state is State.RECONNECTING]
    assert reasons == ["no such device", "gone"]


def test_a_listener_that_raises_ends_no_camera(caplog: pytest.LogCaptureFixture) -> None:
    def listen(event: Event) -> None:
        raise RuntimeError("the listener's own")

    sources = {name: lambda: Paced(10, 100) for name in "ab"}
    fleet = Fleet(
        model_of(FakeBackend(spec())), sources, on_event=listen, reconnect=Reconnect(tries=0)
    )
    fleet.run()
    assert [camera.state for camera in fleet.cameras] == [State.ENDED] * 2
    assert "the listener's own" in caplog.text


def test_a_listener_that_hangs_holds_up_no_camera() -> None:
    go_on = threading.Event()

    def listen(event: Event) -> None:
        if event.camera == "a" and event.state is State.RECONNECTING:
            go_on.wait(10)

    cameras = {
        "a": partial(Paced, 20, 100, fault=SalstreamError("lost")),
        "b": partial(Paced, 10_000, 100),
    }
    fleet = Fleet(model_of(FakeBackend(spec(5))), cameras, on_event=listen, timeout_s=0.2)
    with fleet:
        first, other = fleet.cameras
        until(lambda: first.state is State.RECONNECTING)
        maps = other.status().maps
        until(lambda: other.status().maps > maps + 50, 5)
        go_on.set()


@pytest.mark.parametrize(
    ("source", "comes_back"),
    [
        ("rtsp://me:file:x@host/profile:1", True),
        ("rtspsrc location=rtsp://host ! appsink", True),
        ("filesrc location=a.mp4 ! decodebin ! appsink", False),
    ],
)
def test_what_comes_back(source: str, comes_back: bool) -> None:
    assert ReconnectingSource(source, Camera("door", source))._endless == comes_back


def test_giving_up() -> None:
    opened = 0

    def open_it() -> Source:
        nonlocal opened
        opened += 1
        raise SalstreamError("rtsp://me:***@door refused")

    camera = Camera("door", "paced")
    tried = Reconnect(tries=3, first_pause_s=0.01, longest_pause_s=0.02)
    frames, error = read_all(ReconnectingSource(open_it, camera, tried))
    assert (len(frames), opened) == (0, 4)
    assert str(error) == "rtsp://me:***@door refused (gave up after 3 tries)"
    opened = 0
    _, error = read_all(ReconnectingSource(open_it, camera, Reconnect(tries=0)))
    assert (opened, str(error)) == (1, "rtsp://me:***@door refused")


def test_a_camera_that_is_lost_at_once_each_time_is_no_success() -> None:
    """Pauses grow and the limit holds, although each connection brings frames."""
    opened: list[float] = []

    def open_it() -> Source:
        opened.append(time.monotonic())
        return Paced(3, 1000, fault=SalstreamError("lost"))

    tried = Reconnect(tries=4, first_pause_s=0.2, longest_pause_s=10)
    frames, error = read_all(ReconnectingSource(open_it, Camera("door", "paced"), tried))
    assert len(opened) == 5
    assert len(frames) == 15
    assert str(error) == "lost (gave up after 4 tries)"
    pauses = [after - before for before, after in pairwise(opened)]
    assert pauses[3] > 2 * pauses[0]


def test_pauses_grow_up_to_a_limit_and_differ() -> None:
    reconnect = Reconnect()
    for number, whole in ((1, 0.5), (2, 1), (4, 4), (7, 30), (100_000, 30)):
        pauses = [reconnect.pause_s(number) for _ in range(50)]
        assert whole / 2 <= min(pauses) < max(pauses) <= whole


def test_a_stall_is_a_cut_and_is_said() -> None:
    class Stalling(Paced):
        def _read(self) -> Iterator[Frame]:
            for frame in super()._read():
                if frame.index == 10:
                    time.sleep(1.6)
                yield replace(frame, captured_s=time.monotonic())

    events: list[Event] = []
    backend = FakeBackend(spec(5, 2))
    keep = Keep()
    fleet = Fleet(
        model_of(backend),
        {"door": lambda: Stalling(20, 50)},
        sinks=lambda camera: [keep],
        on_event=events.append,
        reconnect=Reconnect(tries=0),
        timeout_s=2.0,
    )
    fleet.run()
    states = [event.state for event in events]
    stall = states.index(State.STALLED)
    assert states[stall + 1] is State.WARMING
    assert states[-1] is State.ENDED
    for result in keep.results:
        window, _ = backend.asked(result.map)
        assert {number >= 10 for number in window} == {result.index >= 10}
    assert {result.index >= 10 for result in keep.results} == {False, True}
    assert keep.closed
    assert our_threads() == []


@pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg here (Debian: ffmpeg)")
@pytest.mark.parametrize("kind", ["mpegts", "flv"])
def test_pictures_that_stop_while_the_sound_goes_on(kind: str, tmp_path: Path) -> None:
    assert FFMPEG is not None
    path = tmp_path / "clip"
    make = [FFMPEG, "-v", "error", "-f", "lavfi", "-i", "testsrc=size=160x120:rate=25:duration=2"]
    make += ["-f", "lavfi", "-i", "sine=duration=30", "-c:v", "libx264", "-g", "5", "-bf", "0"]
    make += ["-pix_fmt", "yuv420p", "-c:a", "aac", "-f", kind, str(path)]
    subprocess.run(make, check=True, timeout=60)
    send = [FFMPEG, "-v", "quiet", "-re", "-i", str(path), "-c", "copy"]
    send += ["-max_interleave_delta", "1000", "-flush_packets", "1", "-f", kind, "-"]

    def talk(connection: socket.socket) -> None:
        with subprocess.Popen(send, stdout=subprocess.PIPE) as sender:
            assert sender.stdout is not None
            try:
                while piece := sender.stdout.read(1316):
                    connection.sendall(piece)
            finally:
                sender.kill()

    events: list[Event] = []
    with serving(talk) as port:
        fleet = Fleet(
            model_of(FakeBackend(spec())),
            {"door": f"tcp://127.0.0.1:{port}"},
            on_event=events.append,
            reconnect=FAST,
            timeout_s=2.0,
        )
        with fleet:
            until(lambda: fleet.cameras[0].state is State.RECONNECTING, 15)
    states = [event.state for event in events]
    assert states[:4] == [State.WARMING, State.LIVE, State.STALLED, State.RECONNECTING]
    assert "nothing for 2 s" in str(events[3].reason)
    until(lambda: our_threads() == [])


def test_a_camera_that_came_back_is_not_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow_prepare(frame: Frame, graph: GraphSpec) -> NDArray[np.uint8]:
        time.sleep(0.15)  # the stream's thread looks for stalls meanwhile
        return prepare(frame, graph)

    monkeypatch.setattr("salstream.runtime.live.fleet.prepare", slow_prepare)
    lives = iter([Paced(5, 5, fault=SalstreamError("lost")), Paced(5, 5)])
    events: list[Event] = []
    fleet = Fleet(
        model_of(FakeBackend(spec())),
        {"door": lambda: next(lives)},
        on_event=events.append,
        reconnect=Reconnect(tries=1, first_pause_s=1.2),
        timeout_s=1.0,
    )
    with fleet:
        until(lambda: fleet.cameras[0].status().maps > 7)
    assert [event.state for event in events] == [
        *(State.WARMING, State.LIVE, State.RECONNECTING),
        *(State.WARMING, State.LIVE, State.ENDED),
    ]


def test_a_camera_that_fails_twice_while_the_model_is_busy_becomes_live() -> None:
    go_on = threading.Event()

    class Busy(FakeBackend):
        def run(self, frames: NDArray[np.uint8], state: object) -> Output:
            if go_on.is_set() or fleet.cameras[0].status().maps < 5:
                return super().run(frames, state)
            go_on.wait(10)
            return super().run(frames, state)

    lost = SalstreamError("lost")
    lives = iter([Paced(30, 60, fault=lost), Paced(5, 60, fault=lost), Paced(10_000, 60)])
    fleet = Fleet(model_of(Busy(spec())), {"door": lambda: next(lives)}, reconnect=FAST)
    (camera,) = fleet.cameras
    with fleet:
        until(lambda: camera.reconnects == 2)
        assert camera.state is State.WARMING
        go_on.set()
        until(lambda: camera.state is State.LIVE)


def test_a_map_of_the_connection_before_makes_no_camera_live(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_on, prepare_on = threading.Event(), threading.Event()

    class Busy(FakeBackend):
        def run(self, frames: NDArray[np.uint8], state: object) -> Output:
            run_on.wait(10)
            return super().run(frames, state)

    def slow_prepare(frame: Frame, graph: GraphSpec) -> NDArray[np.uint8]:
        if states.count(State.WARMING) == 2:
            prepare_on.wait(10)
        return prepare(frame, graph)

    monkeypatch.setattr("salstream.runtime.live.fleet.prepare", slow_prepare)
    states: list[State] = []
    lives = iter([Paced(1, 60, fault=SalstreamError("lost")), Paced(1, 60)])
    fleet = Fleet(
        model_of(Busy(spec())),
        {"door": lambda: next(lives)},
        on_event=lambda event: states.append(event.state),
        reconnect=FAST,
    )
    with fleet:
        until(lambda: states.count(State.WARMING) == 2)
        run_on.set()
        until(lambda: fleet.cameras[0].status().maps == 1)
        time.sleep(0.1)
        assert State.LIVE not in states
        prepare_on.set()
        until(lambda: State.LIVE in states)


def test_frames_without_a_map_are_forgotten() -> None:
    images: list[weakref.ref[NDArray[np.uint8]]] = []

    class Short(Paced):
        def _read(self) -> Iterator[Frame]:
            for frame in super()._read():
                image = np.ones((48, 64, 3), np.uint8)
                images.append(weakref.ref(image))
                yield replace(frame, image=image)

    fleet = Fleet(
        model_of(FakeBackend(spec(16))),
        {"door": lambda: Short(10, 500, fault=SalstreamError("lost"))},
        start="skip",  # a connection is shorter than a window
        reconnect=Reconnect(first_pause_s=0.01, longest_pause_s=0.01),
    )
    with fleet:
        until(lambda: len(images) > 300)
        assert sum(image() is not None for image in images) < 100
    assert fleet.cameras[0].status().maps == 0


def test_phases_and_stride_follow_the_rate_that_is_measured() -> None:
    class Slower(Paced):
        """Says 60 frames per second and gives 120."""

        def _read(self) -> Iterator[Frame]:
            for frame in super()._read():
                yield Frame(frame.index, frame.index / 120, frame.image)

    backend = FakeBackend(spec(5, state_fps=6.0, window_fps=30.0), recurrent=True)
    fleet = Fleet(
        model_of(backend), {"door": lambda: Slower(600, 300)}, reconnect=Reconnect(tries=0)
    )
    fleet.run()
    predictor = fleet.members[0].predictor
    assert isinstance(predictor, Predictor)
    assert (predictor.phases, predictor.stride) == (20, 4)


@pytest.mark.parametrize("fps", [1, 5, 25, 60])
@pytest.mark.parametrize("pairs", [False, True])
def test_what_a_network_holds_back_is_no_other_rate(fps: int, pairs: bool) -> None:
    """Frames that are timed by their arrival: two at a time, and once all of 1.5 s at once."""
    rate = _Rate(None)
    told: set[float] = set()
    for number in range(30 * fps):
        due = (number - number % 2 if pairs else number) / fps
        measured = rate.add(11.5 if 10 < due < 11.5 else due)
        if measured is not None:
            told.add(measured)
    assert all(fps * 0.75 < measured < fps * 1.25 for measured in told)
    assert told


def test_a_pipeline_that_ends_was_a_camera_that_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV says the same of both."""

    class Pipeline:
        def __init__(self, *_: object) -> None:
            self._left = 3

        def isOpened(self) -> bool:  # noqa: N802 - OpenCV's
            return True

        def get(self, _: int) -> float:
            return 30.0

        def grab(self) -> bool:
            self._left -= 1
            return self._left >= 0

        def retrieve(self) -> tuple[bool, NDArray[np.uint8]]:
            return True, numbered(0)

        def release(self) -> None: ...

    monkeypatch.setattr(cv2, "VideoCapture", Pipeline)
    tried = Reconnect(tries=2, first_pause_s=0.01)
    for pipeline, frame_count in (
        ("rtspsrc location=rtsp://door ! decodebin ! appsink", 9),
        ("v4l2src device=/dev/video0 ! appsink", 9),
        ("filesrc location=a.mp4 ! decodebin ! appsink", 3),
        ("videotestsrc num-buffers=3 ! appsink", 3),
    ):
        frames, error = read_all(ReconnectingSource(pipeline, Camera("door", "pipe"), tried))
        assert len(frames) == frame_count
        assert (error is None) == (frame_count == 3)
        assert [frame.cut for frame in frames] == [n % 3 == 0 for n in range(frame_count)]


# Never behind


def test_a_slow_model_s_windows_keep_the_rate_of_training() -> None:
    """A camera of 60 frames per second, a model of 30 that takes 0.1 s."""
    backend = Numbers(16, seconds=0.1)
    backend.spec = replace(backend.spec, window_fps=30.0)
    fleet = Fleet(
        model_of(backend), {"door": lambda: JpegLike(240, 60)}, reconnect=Reconnect(tries=0)
    )
    fleet.run()
    (camera,) = fleet.cameras
    assert camera.status().dropped > 100
    apart = [
        {(after or 0) - (before or 0) for before, after in pairwise(run)} for run in backend.runs
    ]
    assert len(apart) > 10
    # the first frames are repeated before themselves
    assert all(steps - {0} <= {2} for steps in apart)
    assert apart[-5:] == [{2}] * 5


@pytest.mark.parametrize(("window", "recurrent"), [(16, False), (1, True)])
def test_a_slow_model_is_never_behind(window: int, recurrent: bool) -> None:
    backend = Numbers(window, recurrent=recurrent, seconds=0.1)
    keep = Keep()
    fleet = Fleet(
        model_of(backend),
        {"door": lambda: JpegLike(240, 60)},
        sinks=lambda camera: [keep],
        reconnect=Reconnect(tries=0),
    )
    fleet.run()
    (camera,) = fleet.cameras
    status = camera.status()
    assert status.frames == 240
    assert status.maps + status.dropped == 240
    assert len(keep.results) == status.maps
    assert 10 < status.maps < 60
    assert status.latency_ms["p50"] < 200
    latencies = fleet.members[0].timings.percentiles()["capture_to_map"]
    assert latencies["p50"] == pytest.approx(status.latency_ms["p50"], rel=0.1)
    for window_numbers in backend.runs:
        if window_numbers[0]:  # the first is repeated before itself
            first = window_numbers[0]
            assert window_numbers == tuple(range(first, first + window))


@contextmanager
def sent_at_30_hz(kind: str, folder: Path) -> Iterator[str]:
    """A sender of 300 numbered frames that waits for its reader; gives the URL."""
    if kind == "mjpeg":
        jpegs = (cv2.imencode(".jpg", number_image(n, SIZE))[1].tobytes() for n in range(300))
        with serving(lambda connection: send_jpegs(connection, jpegs, 30)) as port:
            yield f"http://127.0.0.1:{port}/"
        return
    if FFMPEG is None:
        pytest.skip("no ffmpeg here (Debian: ffmpeg)")
    clip = numbered_clip(folder / "clip.ts", 300, SIZE, fps=30, options={"g": "10", "bf": "0"})
    url = f"tcp://127.0.0.1:{free_port()}"
    send = [FFMPEG, "-v", "quiet", "-re", "-i", str(clip), "-c", "copy", "-f", "mpegts"]
    with subprocess.Popen([*send, f"{url}?listen=1"]) as sender:
        yield url
        sender.kill()


@pytest.mark.parametrize("kind", ["h264", "mjpeg"])
def test_a_slow_decoder_is_never_far_behind(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = Video._decode

    def slow_decode(video: Video, packet: av.Packet[Any] | None) -> list[av.VideoFrame]:
        time.sleep(0.08)
        return decode(video, packet)

    monkeypatch.setattr(Video, "_decode", slow_decode)
    came: list[tuple[float, float, float]] = []

    class Late(Keep):
        def write(self, result: Result) -> None:
            number = read_number(result.frame)
            if number is not None:
                latency_s = camera._latencies[-1] / 1000
                came.append((time.monotonic() - number / 30, latency_s, number))

    with sent_at_30_hz(kind, tmp_path) as url:
        fleet = Fleet(model_of(FakeBackend(spec())), {"door": url}, sinks=lambda camera: [Late()])
        (camera,) = fleet.cameras
        with fleet:
            until(lambda: bool(came) and came[-1][2] > 240, 20)
    status = camera.status()
    assert status.frames >= 240
    assert status.dropped > 100
    first = min(delay for delay, *_ in came)
    lags = [delay - first for delay, *_ in came]
    assert max(lags) < 2.5
    if kind == "mjpeg":
        return  # nobody can tell how old its frames are
    # what it says of itself is true
    assert [said for _, said, _ in came] == pytest.approx(
        [lag + came[0][1] for lag in lags], abs=0.5
    )


def test_a_late_sender_loses_no_frames() -> None:
    """One whose clock is slow, or that falls back for good, is not what decoding can catch up."""
    backlog = Backlog()
    for number in range(20_000):
        fell_back_s = 4.0 if number > 10_000 else 0.0
        drift_s = number * 1e-5
        lag_s = backlog.add(
            number / 30 + drift_s + fell_back_s, number / 30, waited=True, key=number % 30 == 0
        )
        assert not backlog.dropping
        assert lag_s < 0.01 or 10_000 < number < 10_020


@pytest.mark.parametrize("busy", [0.0, 0.02, 0.1])
def test_decoding_that_is_too_slow_is_seen_on_a_busy_machine(busy: float) -> None:
    """Some reads take long although their packet lies there: 80 ms for each, 30 in a second."""
    chance, backlog, now = random.Random(1), Backlog(), 0.0
    lags = []
    for number in range(1800):
        due = number / 30
        waited = due > now or chance.random() < busy
        now = max(now, due)
        backlog.add(now, due, waited=waited, key=number % 30 == 0)
        lags.append(now - due)
        now += 0.0005 if backlog.dropping else 0.08
    assert max(lags) < 4


def test_one_pause_of_a_network_is_no_new_clock() -> None:
    backlog, now, lags = Backlog(), 0.0, []
    for number in range(900):
        due = number / 30
        due = 14.0 if 10 < due < 14 else due  # all of four seconds at once
        waited = due > now
        now = max(now, due)
        lag = backlog.add(now, number / 30, waited=waited, key=number % 300 == 0)
        lags.append(abs(lag - (now - number / 30)))
        assert not backlog.dropping
        now += 0.005
    assert max(lags) < 0.1


def test_frames_that_come_in_pieces_wait_for_their_turn_and_not_for_a_clock() -> None:
    pace = Pace()
    waits = [pace.wait_s(5.0 + n / 30, n / 30) for n in range(60)]
    assert max(map(abs, waits)) < 1e-6
    assert pace.wait_s(7.0, 2.5) == pytest.approx(0.5)
    assert pace.wait_s(7.5, 60.0) == 0  # another clock
    assert pace.wait_s(7.5, 60.1) == pytest.approx(0.1)
    assert pace.wait_s(7.5, 3.0) == 0


@pytest.mark.parametrize("jump_s", [-60.0, -5.0, -2.0, 2.0, 5.0, 60.0])
def test_a_sender_s_new_clock_is_no_lateness(jump_s: float) -> None:
    backlog = Backlog()
    lags = [
        backlog.add(n / 30, n / 30 + (jump_s if n >= 300 else 0), waited=True, key=n % 30 == 0)
        for n in range(600)
    ]
    assert max(lags[:300]) < 0.01
    assert sum(lag > 0.01 for lag in lags) < 20
    if abs(jump_s) > 3:
        assert max(lags) < 0.01


def test_what_lies_unread_is_dropped_up_to_a_keyframe() -> None:
    backlog, now = Backlog(), 0.0
    dropping: list[bool] = []
    for number in range(3000):
        due = number / 30
        waited = due > now
        now = max(now, due)
        lag_s = backlog.add(now, due, waited=waited, key=number % 30 == 0)
        assert lag_s == pytest.approx(now - due, abs=0.05)
        if number and backlog.dropping != dropping[-1]:
            assert backlog.dropping or (number % 30 == 0 and lag_s <= 1)
        dropping.append(backlog.dropping)
        now += 0.001 if backlog.dropping else 0.045
    assert 500 < sum(dropping) < 1500


def test_a_sender_without_a_rate_is_not_dropped_for_ever() -> None:
    """Nothing ever has to be waited for: motion JPEG as fast as it is taken."""
    backlog, now = StamplessBacklog(), 100.0
    dropping: list[bool] = []
    for _ in range(1000):
        backlog.add(now, 0.0, waited=False, key=True)
        dropping.append(backlog.dropping)
        now += 0.001 if backlog.dropping else 0.02
    runs = [(state, len(list(run))) for state, run in groupby(dropping)]
    assert len(runs) > 2
    assert all(length < 600 for state, length in runs if state)


def _opened(url: str) -> Video:
    """Open a sender's address, once it listens."""
    end = time.monotonic() + 10
    while True:
        try:
            return open_url(url, 5.0)
        except SalstreamError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


@pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg here (Debian: ffmpeg)")
@pytest.mark.parametrize("order", ["0", "3"])
def test_frames_came_when_their_own_packet_did(tmp_path: Path, order: str) -> None:
    clip = numbered_clip(
        tmp_path / "clip.ts", 60, SIZE, fps=10, options={"g": "30", "bf": order, "b_strategy": "0"}
    )
    url = f"tcp://127.0.0.1:{free_port()}"
    assert FFMPEG is not None
    send = [FFMPEG, "-v", "quiet", "-re", "-i", str(clip), "-c", "copy", "-f", "mpegts"]
    arrivals: dict[int, float] = {}
    late: list[float] = []
    sender = subprocess.Popen([*send, f"{url}?listen=1"])
    try:
        with closing(_opened(url)) as video:
            packets = video._demuxer._rest

            def noted() -> Iterator[av.Packet[Any]]:
                for packet in packets:
                    arrivals[round(float((packet.pts or 0) * packet.time_base) * 100)] = (
                        time.monotonic()
                    )
                    yield packet

            video._demuxer._rest = noted()
            for frame in video:
                first = min(arrivals)
                own = arrivals.get(first + round((frame.time or 0.0) * 100))
                if own is not None and frame.captured_s is not None:
                    late.append(frame.captured_s - own)
                if len(late) == 40:
                    break
    finally:
        sender.kill()
        sender.wait()
    assert np.median(np.abs(late[15:])) < 0.05


# Several cameras


def test_cameras_have_their_own_windows_states_and_outputs() -> None:
    backend = Numbers(window=3, recurrent=True)
    keeps: dict[str, Keep] = {}

    def sinks(camera: Camera) -> list[Keep]:
        keeps[camera.name] = Keep()
        return [keeps[camera.name]]

    sources = {f"c{n}": lambda n=n: JpegLike(40, 80, n * 1000) for n in range(4)}
    fleet = Fleet(model_of(backend), sources, sinks=sinks, reconnect=Reconnect(tries=0))
    assert [camera.name for camera in fleet.cameras] == ["c0", "c1", "c2", "c3"]
    fleet.run()
    for n in range(4):
        results = keeps[f"c{n}"].results
        assert len(results) == fleet.cameras[n].status().maps > 10
        for result in results:
            seen = backend.seen[round(float(result.map[0, 0]) * 10_000)]
            assert {(number or 0) // 1000 for number in seen} == {n}
            assert read_number(result.frame) == n * 1000 + result.index
    assert our_threads() == []


def test_a_camera_reconnects_while_another_runs() -> None:
    backend = Numbers(window=3, recurrent=True)
    keeps = {"door": Keep(), "yard": Keep()}
    lost = SalstreamError("lost")
    faults = {1: lost, 2: lost, 3: None}
    lives = iter([JpegLike(20, 50, 1000 * life, fault) for life, fault in faults.items()])
    fleet = Fleet(
        model_of(backend),
        {"door": lambda: next(lives), "yard": lambda: JpegLike(150, 50)},
        sinks=lambda camera: [keeps[camera.name]],
        reconnect=FAST,
    )
    door, yard = fleet.cameras
    fleet.run()
    assert door.reconnects == 2
    for name, keep in keeps.items():
        lives_seen = set()
        for result in keep.results:
            seen = backend.seen[round(float(result.map[0, 0]) * 10_000)]
            (life,) = {(number or 0) // 1000 for number in seen}
            lives_seen.add(life)
        assert lives_seen == ({1, 2, 3} if name == "door" else {0})
    assert yard.reconnects == 0
    gaps = [b.index - a.index for a, b in pairwise(keeps["yard"].results)]
    assert sum(gaps) > 140
    assert max(gaps) < 10  # it went on meanwhile


def test_a_slow_model_serves_cameras_fairly() -> None:
    backend = FakeBackend(spec(), seconds=0.02)
    rates = {"slow": 40, "fast": 120, "faster": 200, "other": 60}
    sources = {name: (lambda fps=fps: Paced(10_000, fps)) for name, fps in rates.items()}
    fleet = Fleet(model_of(backend), sources)
    with fleet:
        time.sleep(3)
    maps = [camera.status().maps for camera in fleet.cameras]
    assert min(maps) > 5
    assert max(maps) <= 1.1 * min(maps) + 1


def test_one_camera_s_failure_leaves_the_others_alone() -> None:
    class Torn(Keep):
        def write(self, result: Result) -> None:
            if result.index >= 5:
                raise SalstreamError("cannot write: no space left on device")
            super().write(result)

    keeps = {"good": Keep(), "torn": Torn(), "lost": Keep()}
    events: list[Event] = []
    fleet = Fleet(
        model_of(FakeBackend(spec())),
        {
            "good": lambda: Paced(60, 60),
            "torn": lambda: Paced(60, 60),
            "lost": lambda: Paced(10, 60, fault=SalstreamError("lost")),
        },
        sinks=lambda camera: [keeps[camera.name]],
        on_event=events.append,
        reconnect=Reconnect(tries=0),
    )
    with pytest.raises(SalstreamError, match=r"2 of 3 cameras failed: torn: .*space.*; lost: lost"):
        fleet.run()
    assert fleet.cameras[0].status().frames == 60
    assert keeps["good"].results[-1].index == 59
    assert {r.index for r in keeps["torn"].results} <= set(range(5))
    assert keeps["lost"].results[-1].index == 9
    assert all(keep.closed for keep in keeps.values())
    last = {event.camera: event.state for event in events}
    assert last == {"good": State.ENDED, "torn": State.FAILED, "lost": State.FAILED}


def test_files_wait_for_the_model(tmp_path: Path) -> None:
    backend = Numbers(window=16, recurrent=False, seconds=0.005)
    keeps = {"a": Keep(), "b": Keep()}
    clips = {name: numbered_clip(tmp_path / f"{name}.mp4", 40) for name in keeps}
    fleet = Fleet(model_of(backend), dict(clips), sinks=lambda camera: [keeps[camera.name]])
    fleet.run()
    for keep in keeps.values():
        assert [read_number(r.frame) for r in keep.results] == list(range(40))
        first = backend.runs[round(float(keep.results[0].map[0, 0]) * 10_000)]
        assert first == tuple(range(15, -1, -1))  # files start in reverse
    assert [camera.status().dropped for camera in fleet.cameras] == [0, 0]


def test_a_file_behind_http_waits_and_is_read_once(tmp_path: Path) -> None:
    clip = numbered_clip(tmp_path / "clip.mp4", 40, container_options={"movflags": "faststart"})
    content = clip.read_bytes()

    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content)

    keep = Keep()
    with serving(talk) as port:
        fleet = Fleet(
            model_of(Numbers(seconds=0.01)),
            {"file": f"http://127.0.0.1:{port}/clip.mp4"},
            sinks=lambda camera: [keep],
        )
        fleet.run()
    assert [read_number(result.frame) for result in keep.results] == list(range(40))
    assert fleet.cameras[0].status().dropped == 0


def test_the_model_s_failure_ends_the_run() -> None:
    class Broken(FakeBackend):
        def run(self, frames: NDArray[np.uint8], state: object) -> Output:
            raise SalstreamError("the graph failed")

    fleet = Fleet(model_of(Broken(spec())), {"a": lambda: Paced(9, 99), "b": lambda: Paced(9, 99)})
    with pytest.raises(SalstreamError, match=r"^the graph failed$"):
        fleet.run()
    assert our_threads() == []


@pytest.mark.parametrize("cameras", ["a", "abcd"])
@pytest.mark.parametrize("managed", [False, True])
@pytest.mark.parametrize("nth", range(9))
def test_a_signal_while_threads_are_started_leaves_no_output_open(
    monkeypatch: pytest.MonkeyPatch, cameras: str, managed: bool, nth: int
) -> None:
    start, started = threading.Thread.start, count()

    def interrupted(thread: threading.Thread) -> None:
        if next(started) == nth:
            raise SystemExit(143)
        start(thread)

    keeps = {name: Keep() for name in cameras}
    fleet = Fleet(
        model_of(FakeBackend(spec())),
        {name: lambda: Paced(10, 100) for name in cameras},
        sinks=lambda camera: [keeps[camera.name]],
        reconnect=Reconnect(tries=0),
    )
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    try:
        if managed:
            with fleet:
                pass
        else:
            fleet.run()
    except SystemExit:
        pass
    assert all(keep.closed for keep in keeps.values())
    assert fleet.incomplete == []
    until(lambda: not our_threads())


def test_outputs_that_are_not_complete_are_known() -> None:
    closing_on = threading.Event()

    class Slow(Keep):
        def close(self) -> None:
            closing_on.wait(5)
            super().close()

    class Full(Keep):
        def close(self) -> None:
            raise SalstreamError("no space left on device")

    kinds = {"good": Keep, "slow": Slow, "full": Full}
    fleet = Fleet(
        model_of(FakeBackend(spec())),
        {name: lambda: Paced(10_000, 100) for name in [*kinds, "none"]},
        sinks=lambda camera: [kinds[camera.name]()] if camera.name in kinds else [],
    )
    with fleet:
        until(lambda: all(camera.state is State.LIVE for camera in fleet.cameras))
        begin = time.monotonic()
    assert time.monotonic() - begin < 3, "the slow one takes five seconds"
    assert fleet.incomplete == ["slow", "full"]
    closing_on.set()
    until(lambda: fleet.incomplete == ["full"])


def test_wrong_use() -> None:
    model = model_of(FakeBackend(spec()))
    with pytest.raises(UsageError, match="no camera"):
        Fleet(model, {})
    with pytest.raises(UsageError, match=r"rtps://me:\*\*\*@door"):
        Fleet(model, {"a": "rtps://me:geheim@door", "b": "rtsp://door"})
    with pytest.raises(UsageError, match="stride"):
        Fleet(model, {"a": 0}, stride=0)


# What a camera is said to do


@pytest.mark.parametrize("last", [State.FAILED, State.ENDED])
def test_nothing_follows_the_end(last: State) -> None:
    events: list[Event] = []
    camera = Camera("door", "paced", events.append)
    camera.enter(last, "no space left on device")
    for state in State:
        camera.enter(state, "too late")
    assert [(event.state, event.reason) for event in events] == [(last, "no space left on device")]
    assert camera.status().state is last
    assert camera.status().reason == "no space left on device"


def test_a_camera_whose_outputs_failed_stays_failed_while_its_source_comes_back() -> None:
    opening, open_on = threading.Event(), threading.Event()
    opened = count()

    def open_it() -> Source:
        if next(opened) == 0:
            return Paced(5, 100, fault=SalstreamError("lost"))
        opening.set()
        open_on.wait(10)
        return Paced(1000, 100)

    class Full(Keep):
        def write(self, result: Result) -> None:
            assert opening.wait(10)
            raise SalstreamError("no space left on device")

    fleet = Fleet(
        model_of(FakeBackend(spec())),
        {"door": open_it, "yard": lambda: Paced(1000, 100)},
        sinks=lambda camera: [Full()] if camera.name == "door" else [],
        reconnect=FAST,
    )
    door = fleet.members[0]
    with fleet:
        until(lambda: door.closed)
        open_on.set()
        until(lambda: door.captured_all)
        status = door.camera.status()
    assert (status.state, status.reason) == (State.FAILED, "no space left on device")


def test_listeners_hear_in_the_order_in_which_it_happens() -> None:
    hearing = threading.Event()
    heard: list[State] = []

    def listen(event: Event) -> None:
        if event.state is State.LIVE:
            hearing.set()
            time.sleep(0.2)  # writes to a slow log
        heard.append(event.state)

    camera = Camera("door", "paced", listen)
    other = threading.Thread(target=camera.enter, args=(State.LIVE,))
    other.start()
    assert hearing.wait(10)
    camera.enter(State.RECONNECTING, "lost")
    other.join()
    assert heard == [State.LIVE, State.RECONNECTING]


def test_a_listener_may_ask_and_change() -> None:
    def listen(event: Event) -> None:
        heard.append(camera.status().state)
        if event.state is State.STALLED:
            camera.enter(State.ENDED)

    heard: list[State] = []
    camera = Camera("door", "paced", listen)
    thread = threading.Thread(target=camera.enter, args=(State.STALLED,), daemon=True)
    thread.start()
    thread.join(10)
    assert heard == [State.STALLED, State.ENDED]
