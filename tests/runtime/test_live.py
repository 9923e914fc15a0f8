"""Cameras that fail, stall and come back, several through one model, against real servers."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clips import number_image, numbered_clip, read_number
from fakes import FakeBackend, numbered, spec
from salstream.runtime import Predictor, Result, SaliencyModel, SalstreamError, UsageError
from salstream.runtime.backends import Backend, Output
from salstream.runtime.live.camera import Camera, Event, State
from salstream.runtime.live.fleet import Fleet
from salstream.runtime.live.source import Reconnect, ReconnectingSource
from salstream.runtime.sources import Frame, Reader, Source
from salstream.runtime.spec import GraphSpec
from servers import FFMPEG, free_port

FAST = Reconnect(first_pause_s=0.05, longest_pause_s=0.2)
SIZE = (48, 64)


class Numbers(Backend):
    """Reads the numbers that the frames of its windows carry: a map's value is the run's number.

    A state is the numbers that it has seen.
    """

    name = "numbers"

    def __init__(
        self,
        window: int = 5,
        map_frame: int | None = None,
        recurrent: bool = True,
        seconds: float = 0,
    ) -> None:
        self.spec = GraphSpec(
            model="numbers",
            domain="test",
            height=SIZE[0],
            width=SIZE[1],
            window=window,
            map_frame=window - 1 if map_frame is None else map_frame,
        )
        self.recurrent = recurrent
        self.conspicuity = False
        self.runs: list[tuple[int | None, ...]] = []
        self.seen: list[tuple[int | None, ...]] = []
        self._seconds = seconds

    def run(self, frames: NDArray[np.uint8], state: Any) -> Output:
        time.sleep(self._seconds)
        window = tuple(read_number(frame) for frame in frames[0])
        self.runs.append(window)
        self.seen.append((state or ()) + window)
        saliency = np.full((1, *SIZE), (len(self.runs) - 1) / 10_000, np.float32)
        return Output(saliency, self.seen[-1] if self.recurrent else None)


class Keep:
    """An output that keeps everything."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.closed = False

    def write(self, result: Result) -> None:
        self.results.append(result)

    def close(self) -> None:
        self.closed = True


class Paced(Reader):
    """A camera of so many frames per second, which carry numbers."""

    def __init__(
        self, count: int, fps: float, begin: int = 0, fault: Exception | None = None
    ) -> None:
        super().__init__("paced", fps=fps, live=True)
        self._numbers = range(begin, begin + count)
        self._fault = fault

    def _read(self) -> Iterator[Frame]:
        begin = time.monotonic()
        for index, number in enumerate(self._numbers):
            time.sleep(max(0.0, begin + index / (self.fps or 1) - time.monotonic()))
            yield Frame(
                index, index / (self.fps or 1), numbered(number), captured_s=time.monotonic()
            )
        if self._fault is not None:
            raise self._fault


def model_of(backend: Backend) -> SaliencyModel:
    return SaliencyModel(Path("fake.onnx"), backend)


def our_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("salstream")]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counts, no paths


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


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
    assert all(a is not None and b is not None and a < b for a, b in itertools.pairwise(times))
    assert (times[5] or 0) - (times[4] or 0) > 0.01  # a pause lies between
    assert camera.reconnects == 1
    assert [(e.state, e.reason) for e in events] == [
        (State.WARMING, None),
        (State.RECONNECTING, "lost"),
        (State.WARMING, None),
    ]


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
                    time.sleep(0.6)
                yield frame

    events: list[Event] = []
    backend = Numbers(recurrent=False)
    keep = Keep()
    fleet = Fleet(
        model_of(backend),
        {"door": lambda: Stalling(20, 50)},
        sinks=lambda camera: [keep],
        on_event=events.append,
        reconnect=Reconnect(tries=0),
        timeout_s=0.4,
    )
    fleet.run()
    assert [event.state for event in events] == [
        State.WARMING, State.LIVE, State.STALLED, State.WARMING, State.LIVE, State.ENDED
    ]  # fmt: skip
    assert keep.closed
    assert our_threads() == []


def test_phases_follow_the_rate_that_is_measured() -> None:
    class Slower(Paced):
        """Says 60 frames per second and gives 120."""

        def _read(self) -> Iterator[Frame]:
            for frame in super()._read():
                yield Frame(frame.index, frame.index / 120, frame.image)

    backend = FakeBackend(spec(state_fps=6.0), recurrent=True)
    fleet = Fleet(model_of(backend), {"door": lambda: Slower(60, 60)}, reconnect=Reconnect(tries=0))
    fleet.run()
    predictor = fleet.members[0].predictor
    assert isinstance(predictor, Predictor)
    assert predictor.phases == 20


# Never behind


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
    assert 20 < status.maps < 60
    assert status.latency_ms["p50"] < 200
    latencies = fleet.members[0].timings.percentiles()["capture_to_map"]
    assert latencies["p50"] == pytest.approx(status.latency_ms["p50"], rel=0.1)
    for window_numbers in backend.runs:
        if window_numbers[0]:  # the first is repeated before itself
            first = window_numbers[0]
            assert window_numbers == tuple(range(first, first + window))


class JpegLike(Paced):
    """Its pictures are those of the servers."""

    def _read(self) -> Iterator[Frame]:
        for frame in super()._read():
            number = int(frame.image[0, 0, 0]) * 256 + int(frame.image[0, 0, 1])
            yield Frame(
                frame.index, frame.time, number_image(number, SIZE), False, frame.captured_s
            )


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
        assert len(results) == fleet.cameras[n].status().maps > 20
        for result in results:
            seen = backend.seen[round(float(result.map[0, 0]) * 10_000)]
            assert {(number or 0) // 1000 for number in seen} == {n}
            assert read_number(result.frame) == n * 1000 + result.index
    assert our_threads() == []


def test_a_slow_model_serves_cameras_fairly() -> None:
    backend = FakeBackend(spec(), seconds=0.02)
    rates = {"slow": 40, "fast": 120, "faster": 200, "other": 60}
    sources = {name: (lambda fps=fps: Paced(10_000, fps)) for name, fps in rates.items()}
    fleet = Fleet(model_of(backend), sources)
    with fleet:
        time.sleep(3)
    maps = [camera.status().maps for camera in fleet.cameras]
    assert min(maps) > 20
    assert max(maps) <= 1.1 * min(maps) + 1


def test_one_camera_s_failure_leaves_the_others_alone() -> None:
    class Torn(Keep):
        def write(self, result: Result) -> None:
            if result.index == 5:
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
    assert [r.index for r in keeps["good"].results] == list(range(60))
    assert [r.index for r in keeps["torn"].results] == list(range(5))
    assert [r.index for r in keeps["lost"].results] == list(range(10))
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


def test_the_model_s_failure_ends_the_run() -> None:
    class Broken(FakeBackend):
        def run(self, frames: NDArray[np.uint8], state: object) -> Output:
            raise SalstreamError("the graph failed")

    fleet = Fleet(model_of(Broken(spec())), {"a": lambda: Paced(9, 99), "b": lambda: Paced(9, 99)})
    with pytest.raises(SalstreamError, match=r"^the graph failed$"):
        fleet.run()
    assert our_threads() == []


def test_wrong_use() -> None:
    model = model_of(FakeBackend(spec()))
    with pytest.raises(UsageError, match="no camera"):
        Fleet(model, {})
    with pytest.raises(UsageError, match=r"rtps://me:\*\*\*@door"):
        Fleet(model, {"a": "rtps://me:geheim@door", "b": "rtsp://door"})
    with pytest.raises(UsageError, match="stride"):
        Fleet(model, {"a": 0}, stride=0)


# Real servers


@pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg here (Debian: ffmpeg)")
def test_a_stream_killed_ten_times_at_random_moments(tmp_path: Path) -> None:
    chance = random.Random(7)
    clips = [
        numbered_clip(
            tmp_path / f"{life}.ts", 0, SIZE, options={"g": "5", "bf": "0"}, numbers=_life(life)
        )
        for life in range(11)
    ]
    port = free_port()
    url = f"tcp://127.0.0.1:{port}"
    backend = Numbers(window=5, map_frame=2)
    keep = Keep()
    fleet = Fleet(
        model_of(backend),
        {"door": url},
        sinks=lambda camera: [keep],
        reconnect=FAST,
        timeout_s=1.0,
    )
    before = 0
    (camera,) = fleet.cameras
    with fleet:
        for life, clip in enumerate(clips):
            assert FFMPEG is not None
            send = [FFMPEG, "-v", "quiet", "-re", "-i", str(clip), "-c", "copy", "-f", "mpegts"]
            sender = subprocess.Popen([*send, f"{url}?listen=1"])
            try:
                maps = camera.status().maps
                until(lambda maps=maps: camera.status().maps > maps + 3)  # type: ignore[misc]
                time.sleep(chance.uniform(0, 0.4))
            finally:
                sender.kill()
                sender.wait()
            if life == 0:
                before = descriptors()
        until(lambda: camera.state is State.RECONNECTING)
        assert len(our_threads()) == 3
        assert descriptors() <= before
        assert camera.reconnects == 10
    lives = set()
    for result in keep.results:
        seen = backend.seen[round(float(result.map[0, 0]) * 10_000)]
        assert None not in seen
        (life,) = {(number or 0) // 200 for number in seen}
        assert (read_number(result.frame) or 0) // 200 == life
        lives.add(life)
    assert lives == set(range(11))
    times = [result.time or 0 for result in keep.results]
    assert times == sorted(times)
    assert our_threads() == []


def _life(life: int) -> list[int]:
    return list(range(200 * life, 200 * life + 150))
