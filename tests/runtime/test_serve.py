"""What the page's server answers, and that nobody who watches holds anybody up."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from socket import SocketIO
from urllib.parse import quote, urlsplit

import aiohttp
import cv2
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from clips import number_image, read_number
from salstream.runtime import Result, SalstreamError, UsageError
from salstream.runtime.live.camera import Camera, State
from salstream.runtime.live.points import JsonLines, record
from salstream.runtime.overlay import COLORMAPS
from salstream.runtime.serve import app, serve, server
from salstream.runtime.serve.broadcast import Broadcast, step_back
from salstream.runtime.serve.pictures import View, draw, jpeg
from watching import Player, ask, moving, playing, show

MOVING = [moving(index) for index in range(30)]


@pytest.fixture
def still() -> Camera:
    """A camera that gave one result with conspicuity maps."""
    camera = Camera("door", "rtsp://10.0.0.5/1")
    camera.publish(moving(3, levels=4), 0.04)
    camera.enter(State.LIVE)
    return camera


def decoded(picture: bytes) -> NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image, np.uint8)


def sentence(body: bytes) -> str:
    said: str = json.loads(body)["error"]
    return said


async def parts(answer: aiohttp.ClientResponse) -> list[bytes]:
    """Return the next picture of a stream, as a list so that callers can extend one."""
    while not (line := await answer.content.readline()).startswith(b"Content-Length"):
        assert line, "the stream ended"
    length = int(line.split(b":")[1])
    await answer.content.readline()
    return [await answer.content.readexactly(length)]


def viewer(page: server.Server, what: str = "stream", headers: str = "") -> SocketIO:
    """Open a stream of `door` on a connection that takes little without being read."""
    place = urlsplit(page.url)
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    link.settimeout(5)
    link.connect((place.hostname, place.port))
    link.sendall(
        f"GET /api/cameras/door/{what} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode()
    )
    with link:
        return link.makefile("rwb", 0)


def next_picture(stream: SocketIO) -> bytes:
    while not (line := stream.readline()).startswith(b"Content-Length"):
        assert line, "the stream ended"
    stream.readline()
    length, picture = int(line.split(b":")[1]), b""
    while len(picture) < length:
        some = stream.read(length - len(picture))
        assert some, "the stream ended"
        picture += some
    return picture


UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
)


# What is known of the cameras


def test_the_listing_says_what_every_camera_does(still: Camera) -> None:
    dead = Camera("roof", "/dev/video2")
    dead.enter(State.FAILED, "/dev/video2 does not exist")
    with closing(show(still, dead)) as page:
        status, headers, body = ask(page, "/api/cameras")
    listing = json.loads(body)
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert abs(listing["time"] - time.time()) < 5
    door, roof = listing["cameras"]
    assert (door["name"], door["state"], door["maps"], door["conspicuity"]) == (
        *("door", "live", 1),
        True,
    )
    assert door["latency_ms"] == {"p50": 40.0, "p95": 40.0, "p99": 40.0}
    assert (roof["state"], roof["reason"]) == ("failed", "/dev/video2 does not exist")
    assert roof["latency_ms"] == {}
    assert not roof["conspicuity"]


def test_the_history_has_a_gap_where_no_map_came(still: Camera) -> None:
    with ThreadPoolExecutor(1) as pool:
        broadcast = Broadcast(still, pool, pool)
        broadcast.sample(still.status())
        broadcast.sample(still.status())
        still.publish(moving(4), 0.08)
        broadcast.sample(still.status())
    assert list(broadcast.history) == [[40.0, 40.0, 40.0], None, [60.0, 78.0, 79.6]]


@pytest.mark.parametrize(
    ("states", "ill"),
    [
        ([State.LIVE, State.LIVE], []),
        ([State.LIVE, State.ENDED], []),
        ([State.LIVE, State.FAILED], ["b"]),
        ([State.STALLED, State.RECONNECTING], ["a", "b"]),
        ([State.CONNECTING, State.WARMING], ["a", "b"]),
    ],
)
def test_health_names_the_cameras_that_do_not_work(states: list[State], ill: list[str]) -> None:
    cameras = [Camera("a", ""), Camera("b", "")]
    for camera, state in zip(cameras, states, strict=True):
        camera.enter(state, "why")
    with closing(show(*cameras)) as page:
        status, _, body = ask(page, "/healthz")
        assert ask(page, "/livez")[0] == 200
    assert status == (503 if ill else 200)
    assert sorted(json.loads(body)["ill"]) == ill


def test_prometheus_reads_the_figures(still: Camera) -> None:
    awkward = Camera('ya"rd\\', "")
    still.frames, still.dropped, still.reconnects = 12, 3, 2
    with closing(show(still, awkward)) as page:
        _, headers, body = ask(page, "/metrics")
    assert headers["Content-Type"].startswith("text/plain; version=")
    families = {each.name: each for each in text_string_to_metric_families(body.decode())}
    counted = {
        name: {sample.labels["camera"]: sample.value for sample in families[name].samples}
        for name in ("salstream_frames", "salstream_dropped_frames", "salstream_reconnects")
    }
    assert counted["salstream_frames"] == {"door": 12, 'ya"rd\\': 0}
    assert counted["salstream_dropped_frames"]["door"] == 3
    assert counted["salstream_reconnects"]["door"] == 2
    latency = {s.labels["quantile"]: s.value for s in families["salstream_latency_seconds"].samples}
    assert latency == {"0.5": 0.04, "0.95": 0.04, "0.99": 0.04}
    states = {
        sample.labels["state"]
        for sample in families["salstream_state"].samples
        if sample.value and sample.labels["camera"] == "door"
    }
    assert states == {"live"}
    assert families["salstream_maps"].type == "counter"


# Pictures


def test_a_snapshot_is_what_the_result_gives(still: Camera) -> None:
    newest = still.newest()
    assert newest is not None
    result = newest[1]
    with closing(show(still)) as page:

        def snapshot(query: str) -> NDArray[np.uint8]:
            status, headers, body = ask(page, f"/api/cameras/door/snapshot.png?{query}")
            assert (status, headers["Content-Type"]) == (200, "image/png")
            assert "door-000003.png" in headers["Content-Disposition"]
            return decoded(body)

        np.testing.assert_array_equal(snapshot(""), result.overlay(0.7))
        np.testing.assert_array_equal(snapshot("opacity=0.25"), result.overlay(0.25))
        side = snapshot("view=side&colormap=grey")
        np.testing.assert_array_equal(side[:, :320], result.frame)
        np.testing.assert_array_equal(side, result.figure()[:, [*range(320), *range(1600, 1920)]])
        maps = {name: snapshot(f"view=map&colormap={name}") for name in COLORMAPS}
        levels = snapshot("view=conspicuity&colormap=grey")
    assert len({image.tobytes() for image in maps.values()}) == len(COLORMAPS)
    panels = np.split(result.figure(), 6, axis=1)[1:5]
    np.testing.assert_array_equal(levels, np.vstack([np.hstack(panels[:2]), np.hstack(panels[2:])]))


def test_a_letterboxed_conspicuity_map_lies_where_the_saliency_lies() -> None:
    saliency = np.zeros((60, 80), np.float32)
    saliency[30:, 40:] = 1
    frame = np.zeros((100, 400, 3), np.uint8)
    result = Result(0, None, frame, saliency, np.stack([saliency] * 3), letterbox=(60, 80))
    grey = draw(result, View("conspicuity", colormap="grey"))
    assert grey.shape == (200, 800, 3), "two rows of two, the last one black"
    np.testing.assert_array_equal(grey[:100, :400], draw(result, View("map", colormap="grey")))
    assert not grey[100:, 400:].any()


@pytest.mark.parametrize(
    ("kind", "size", "expected"),
    [
        ("overlay", (3000, 4000), (960, 1280)),
        ("overlay", (4000, 1000), (1280, 320)),
        ("side", (3000, 4000), (720, 1920)),
        ("overlay", (100, 60), (100, 60)),
        ("overlay", (1, 5000), (1, 1280)),
    ],
)
def test_large_frames_are_made_to_fit(
    kind: str, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    result = Result(0, None, np.zeros((*size, 3), np.uint8), np.zeros((9, 16), np.float32))
    assert decoded(jpeg(result, View.of({"view": kind}))).shape == (*expected, 3)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("view=inside", "unknown view 'inside'"),
        ("opacity=1.01", "the opacity '1.01'"),
        ("opacity=-1", "the opacity '-1'"),
        ("opacity=nan", "the opacity 'nan'"),
        ("opacity=", "the opacity ''"),
        ("opacity=much", "a number from 0 to 1"),
        ("colormap=pink", "expected one of turbo"),
        ("colourmap=hot", "unknown option 'colourmap'"),
        ("view=conspicuity", "no conspicuity maps"),
    ],
)
@pytest.mark.parametrize("what", ["stream", "snapshot.png"])
def test_a_bad_choice_is_a_sentence(what: str, query: str, said: str) -> None:
    camera = Camera("door", "")
    camera.publish(MOVING[0], 0.01)
    with closing(show(camera)) as page:
        status, _, body = ask(page, f"/api/cameras/door/{what}?{query}")
    assert status == 400
    assert said in sentence(body)


def test_a_camera_that_is_not_there_or_has_no_picture(still: Camera) -> None:
    empty = Camera("empty", "")
    with closing(show(still, empty)) as page:
        for what in ("stream", "pictures", "snapshot.png", "points"):
            status, _, body = ask(page, f"/api/cameras/window/{what}")
            assert (status, sentence(body)) == (404, "there is no camera 'window'")
        status, _, body = ask(page, "/api/cameras/empty/snapshot.png")
        assert (status, sentence(body)) == (503, "empty has no picture yet")
        status, _, body = ask(page, "/api/cameras/door/points")
        assert (status, sentence(body)) == (404, "no points are made here")


@pytest.mark.parametrize("name", ["a/b", "Tür 2 ☂", "<img src=x>", "50 %", "a?b#c", "..x", "a;b"])
def test_any_name_can_be_asked_for(name: str) -> None:
    camera = Camera(name, "")
    camera.publish(MOVING[0], 0.01)
    with closing(show(camera)) as page:
        path = f"/api/cameras/{quote(name, safe='')}/snapshot.png"
        status, headers, _ = ask(page, path)
    assert status == 200
    assert "\n" not in headers["Content-Disposition"]


def test_a_stream_shows_each_new_result() -> None:
    camera = Camera("door", "")

    async def watch(url: str) -> list[bytes]:
        pictures: list[bytes] = []
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{url}api/cameras/door/stream?view=map") as answer,
        ):
            assert answer.content_type == "multipart/x-mixed-replace"
            while len(pictures) < 8:
                pictures += await parts(answer)
        return pictures

    with closing(show(camera)) as page, playing(Player(camera, MOVING, fps=30)):
        pictures = asyncio.run(watch(page.url))
    assert len(set(pictures)) == 8
    assert decoded(pictures[0]).shape == (180, 320, 3)


def test_a_picture_is_made_once_for_all_who_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = Camera("door", "")
    made: list[tuple[int, View]] = []

    def counted(result: Result, view: View) -> bytes:
        made.append((result.index, view))
        return jpeg(result, view)

    monkeypatch.setattr(app, "jpeg", counted)

    async def watch(url: str, clients: int) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def one(number: int) -> None:
                kind = ("overlay", "map")[number % 2]
                address = f"{url}api/cameras/door/stream?view={kind}"
                async with session.get(address) as answer:
                    for _ in range(10):
                        await parts(answer)

            await asyncio.gather(*(one(number) for number in range(clients)))

    numbered = [moving(index) for index in range(200)]
    with closing(show(camera)) as page, playing(Player(camera, numbered, fps=30)):
        asyncio.run(watch(page.url, 20))
    assert len(made) >= 20
    assert len(made) == len(set(made)), "a picture was made twice"


def test_while_a_picture_is_made_newer_results_replace_each_other() -> None:
    camera = Camera("door", "")
    may_go_on = threading.Event()
    seen: list[int] = []

    def slow(result: Result) -> bytes:
        seen.append(result.index)
        may_go_on.wait(5)
        return b"%d" % result.index

    async def watch(broadcast: Broadcast) -> list[tuple[int, bytes]]:
        clients = [asyncio.create_task(broadcast.made(0, "view", slow)) for _ in range(5)]
        await asyncio.sleep(0.05)
        for index in range(1, 50):
            camera.publish(moving(index), 0.01)
        late = asyncio.create_task(broadcast.made(0, "view", slow))
        clients[0].cancel()
        await asyncio.sleep(0.05)
        may_go_on.set()
        answers = await asyncio.gather(*clients[1:], late)
        answers.append(await broadcast.made(1, "view", slow))
        return answers

    camera.publish(moving(0), 0.01)
    with ThreadPoolExecutor(1) as waiters, ThreadPoolExecutor(2) as makers:
        answers = asyncio.run(watch(Broadcast(camera, waiters, makers)))
    assert answers == [*[(1, b"0")] * 5, (50, b"49")]
    assert seen == [0, 49]


def test_the_views_that_are_remembered_are_few() -> None:
    camera = Camera("door", "")
    camera.publish(MOVING[0], 0.01)

    async def watch(broadcast: Broadcast) -> None:
        for number in range(100):
            await broadcast.made(0, number, lambda _: b"x" * 1000)

    with ThreadPoolExecutor(2) as pool:
        broadcast = Broadcast(camera, pool, pool)
        asyncio.run(watch(broadcast))
    assert len(broadcast._made) <= 8


# WebSockets


def test_pictures_come_as_they_are_asked_for(still: Camera) -> None:
    async def talk(url: str) -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{url}api/cameras/door/pictures") as link,
        ):
            await link.send_str("view=overlay")
            overlay = await link.receive_bytes()
            begin = time.monotonic()
            await link.send_str("view=overlay")
            assert await link.receive_bytes() == b"", "nothing new came"
            assert 0.5 < time.monotonic() - begin < 3
            await link.send_str("view=map&opacity=0.2")
            other = await link.receive_bytes()
            assert (decoded(overlay) != decoded(other)).any(), "another view of the same result"
            still.publish(MOVING[9], 0.01)
            await link.send_str("view=map&opacity=0.2")
            assert await link.receive_bytes() not in (b"", other)
            await link.send_str("view=nonsense")
            end = await link.receive()
            assert (end.type, end.data) == (aiohttp.WSMsgType.CLOSE, 1008)
            assert "unknown view" in str(end.extra)

    with closing(show(still)) as page:
        asyncio.run(talk(page.url))


def test_points_are_the_lines_that_a_file_gets(still: Camera) -> None:
    async def talk(url: str) -> list[str]:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{url}api/cameras/door/points") as link,
        ):
            lines = []
            for index in (7, 8, 9):
                lines.append(await link.receive_str())
                still.publish(moving(index), 0.01)
        return lines

    begin = time.time()
    with closing(serve([still], "127.0.0.1:0", points=partial(record, threshold=0.25))) as page:
        lines = asyncio.run(talk(page.url))
    file = io.BytesIO()
    written = JsonLines(file, "door", 0.25)
    for index in (3, 7, 8):
        written.write(moving(index))
    assert all(line.endswith("\n") for line in lines)
    said = [json.loads(line) for line in lines]
    expected = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [list(line) for line in said] == [list(line) for line in expected]
    times = [line.pop("at") for line in (*said, *expected)]
    assert times == sorted(times)
    assert begin - 0.001 <= times[0] <= times[-1] <= time.time() + 0.001
    assert said == expected


def test_points_that_fail_end_the_connection_and_nothing_else(still: Camera) -> None:
    def points(camera: str, result: Result) -> dict[str, object]:
        raise ValueError(result.index)

    async def talk(url: str) -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{url}api/cameras/door/points") as link,
        ):
            assert (await link.receive()).type in (
                aiohttp.WSMsgType.CLOSE,
                aiohttp.WSMsgType.CLOSED,
                aiohttp.WSMsgType.ERROR,
            )

    with closing(serve([still], "127.0.0.1:0", points=points)) as page:
        asyncio.run(talk(page.url))
        assert ask(page, "/api/cameras/door/snapshot.png")[0] == 200


# Many clients, slow ones, silent ones


_WATCH = """
import asyncio, json, sys, time
import aiohttp

async def one(session, address, begin):
    pictures, first = 0, None
    async with session.get(address) as answer:
        while time.monotonic() - begin < 3:
            while not (line := await answer.content.readline()).startswith(b"Content-Length"):
                assert line
            await answer.content.readexactly(2 + int(line.split(b":")[1]))
            pictures += 1
            first = first or time.monotonic() - begin
    return first, pictures

async def main(url):
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        begin = time.monotonic()
        addresses = [f"{url}api/cameras/{'ab'[n % 2]}/stream" for n in range(200)]
        print(json.dumps(await asyncio.gather(*(one(session, a, begin) for a in addresses))))

asyncio.run(main(sys.argv[1]))
"""


def test_200_clients_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """They are a process of their own, as the figures shall be the server's."""
    cameras = [Camera("a", ""), Camera("b", "")]
    players = [Player(camera, MOVING, fps=10) for camera in cameras]
    with closing(show(*cameras)) as page, playing(*players):
        time.sleep(1)
        alone = [gap for player in players for gap in player.gaps]
        before = psutil.Process().memory_info().rss
        for player in players:
            player.gaps.clear()
        command = [sys.executable, "-c", _WATCH, page.url]
        watched = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        crowded = [gap for player in players for gap in player.gaps]
        grown = (psutil.Process().memory_info().rss - before) / 2**20
    first, came = zip(*json.loads(watched.stdout), strict=True)
    with capsys.disabled():
        print(
            f"\n200 clients, 2 cameras at 10 fps: first picture after {max(first):.2f} s at most, "
            f"{np.median(came) / 3:.1f} pictures a second each; the cameras' period "
            f"{np.median(alone) * 1e3:.1f} ms alone (p99 {np.percentile(alone, 99) * 1e3:.1f}), "
            f"{np.median(crowded) * 1e3:.1f} ms with them "
            f"(p99 {np.percentile(crowded, 99) * 1e3:.1f}); memory +{grown:.0f} MB"
        )
    assert len(came) == 200
    assert min(came) > 1
    assert len(crowded) > 30, "the cameras were held up: they have 60 results in this time"
    assert grown < 200


def test_one_client_too_many_is_told_so(monkeypatch: pytest.MonkeyPatch, still: Camera) -> None:
    monkeypatch.setattr(server, "MOST_CLIENTS", 10)
    with closing(show(still)) as page:
        place = urlsplit(page.url)
        there = (place.hostname or "", place.port or 0)
        held = [socket.create_connection(there, 5) for _ in range(10)]
        for link in held:  # each has been accepted when it is answered
            link.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200 OK" in link.recv(4096)
        refused = [ask(page, "/api/cameras") for _ in range(30)]
        assert {status for status, _, _ in refused} == {503}
        assert all(headers["Retry-After"] == "10" for _, headers, _ in refused)
        assert sentence(refused[0][2]).startswith("too many clients")
        held[0].sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in held[0].recv(4096), "those who are in stay in"
        for link in held:
            link.close()
        time.sleep(0.1)
        assert ask(page, "/api/cameras")[0] == 200


def test_many_who_watch_leave_room_for_those_who_ask(
    monkeypatch: pytest.MonkeyPatch, still: Camera
) -> None:
    monkeypatch.setattr(app, "MOST_WATCHERS", 5)
    with closing(show(still)) as page:
        held = [viewer(page) for _ in range(5)]
        for link in held:
            next_picture(link)
        status, _, body = ask(page, "/api/cameras/door/stream")
        assert (status, sentence(body)) == (503, "too many are watching; try again later")
        assert ask(page, "/livez")[0] == 200
        held[0].close()
        time.sleep(0.1)
        with closing(viewer(page)) as link:
            assert next_picture(link)
        for link in held[1:]:
            link.close()


def test_a_slow_reader_sees_what_is_newest_and_holds_nobody_up() -> None:
    """Its first pictures are those that lie in the buffers; they are few."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 24, (480, 640, 3), dtype=np.uint8)
    blank = np.zeros((12, 16), np.float32)
    results = [
        Result(n, None, np.asarray(number_image(n, (480, 640)) + noise - 12, np.uint8), blank)
        for n in range(150)
    ]
    camera = Camera("door", "")

    with (
        closing(show(camera)) as page,
        playing(Player(camera, results, fps=20)),
        closing(viewer(page)) as slow,
        closing(viewer(page)) as quick,
    ):
        next_picture(slow)
        begin = time.monotonic()
        ahead: list[int] = []
        while time.monotonic() - begin < 2:
            ahead.append(read_number(decoded(next_picture(quick))) or 0)
        behind: list[int] = []
        while not behind or behind[-1] < ahead[-1]:
            behind.append(read_number(decoded(next_picture(slow))) or 0)
    assert len(ahead) > 20, "the quick one was held up"
    assert ahead == sorted(set(ahead))
    assert behind == sorted(set(behind))
    assert len(behind) < len(ahead) / 2, "the slow one was given all of them"


def noisy(index: int = 0) -> Result:
    """Return a result whose PNG is larger than what fits into buffers, some 2.4 MB."""
    frame = np.random.default_rng(index).integers(0, 256, (900, 900, 3), dtype=np.uint8)
    return Result(index, None, frame, np.zeros((12, 16), np.float32))


def snapshots_end(page: server.Server) -> bool:
    """Wait until a snapshot can be had."""
    end = time.monotonic() + 8
    while (status := ask(page, "/api/cameras/door/snapshot.png")[0]) != 200:
        assert status == 503
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("leaves", [True, False])
def test_snapshots_at_once_are_few(
    leaves: bool, monkeypatch: pytest.MonkeyPatch, still: Camera
) -> None:
    """However slowly they are taken; then those who come next get theirs."""
    monkeypatch.setattr(app, "_SNAPSHOT_S", 60.0 if leaves else 1.5)
    still.publish(noisy(), 0.01)
    with closing(show(still)) as page:
        links = [viewer(page, f"snapshot.png?opacity=0.{n}") for n in range(10)]
        said = [link.readline() for link in links]
        assert sum(b" 200 " in line for line in said) == 4
        assert sum(b" 503 " in line for line in said) == 6
        status, _, body = ask(page, "/api/cameras/door/snapshot.png")
        assert (status, sentence(body)) == (503, "too many snapshots at once; try again later")
        assert ask(page, "/api/cameras")[0] == 200
        if leaves:
            for link in links:
                link.close()
        assert snapshots_end(page)
        for link in links:
            link.close()


def test_who_leaves_takes_a_place_until_the_snapshot_is_made(
    monkeypatch: pytest.MonkeyPatch, still: Camera
) -> None:
    """Or the work of all who came and went would pile up."""
    may_go_on = threading.Event()
    begun: list[View] = []

    def slow(result: Result, view: View) -> bytes:
        begun.append(view)
        may_go_on.wait(10)
        return b"picture"

    monkeypatch.setattr(app, "png", slow)
    with closing(show(still)) as page:
        for number in range(20):
            viewer(page, f"snapshot.png?opacity={number / 20}").close()
        time.sleep(0.3)
        assert ask(page, "/api/cameras/door/snapshot.png")[0] == 503
        may_go_on.set()
        assert snapshots_end(page)
    assert len(begun) <= 5


@pytest.mark.parametrize("what", ["stream", "points", "pictures"])
def test_who_takes_nothing_is_cut_off(
    what: str, monkeypatch: pytest.MonkeyPatch, still: Camera
) -> None:
    monkeypatch.setattr(app, "_SLOW_S", 0.3)
    big = moving(0, (900, 1200))

    def points(camera: str, result: Result) -> dict[str, object]:
        return {"long": "x" * 500_000}

    with (
        closing(serve([still], "127.0.0.1:0", points=points)) as page,
        playing(Player(still, [big], fps=40)),
        closing(viewer(page, what, "" if what == "stream" else UPGRADE)) as link,
    ):
        if what == "pictures":  # asks and asks, and reads no answer
            link.write(b"\x81\x80\0\0\0\0" * 500)
        time.sleep(1)
        came = 0
        with suppress(ConnectionResetError):
            while came < 2_000_000 and (some := link.read(65536)):
                came += len(some)
    assert 0 < came < 1_500_000


@pytest.mark.parametrize("said", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_who_says_nothing_whole_is_sent_away(
    said: bytes, monkeypatch: pytest.MonkeyPatch, still: Camera
) -> None:
    """Be it in silence, or one byte at a time."""
    monkeypatch.setattr(server, "_SILENCE_S", 0.5)
    with closing(show(still)) as page:
        place = urlsplit(page.url)
        with socket.create_connection((place.hostname or "", place.port or 0), 0.1) as link:
            link.sendall(said)
            for _ in range(30):
                try:
                    if not link.recv(4096):
                        break
                except TimeoutError:
                    link.sendall(b"x" if said else b"")
                except ConnectionResetError:
                    break
            else:
                pytest.fail("it still listens")


# Beginning and end


def test_close_ends_it_within_a_second(still: Camera, capsys: pytest.CaptureFixture[str]) -> None:
    page = serve([still], "127.0.0.1:0", points=lambda _, result: {"index": result.index})
    kinds = {"stream": "", "stream?view=map": "", "points": UPGRADE, "pictures": UPGRADE}
    links = [viewer(page, what, headers) for what, headers in kinds.items()]
    for link in links:
        assert b" 200 " in (line := link.readline()) or b" 101 " in line
    place = urlsplit(page.url)
    silent = socket.create_connection((place.hostname or "", place.port or 0), 5)
    links.append(silent.makefile("rwb", 0))
    silent.close()
    begin = time.monotonic()
    page.close()
    took = time.monotonic() - begin
    page.close()
    with capsys.disabled():
        print(f"\nclosed in {took:.3f} s with {len(links)} clients")
    assert took < 1
    for link in links:
        with suppress(ConnectionResetError):
            while link.read(65536):
                pass
        link.close()
    while [t for t in threading.enumerate() if t.name.startswith("salstream-page")]:
        assert time.monotonic() - begin < 3, "a thread is left"
        time.sleep(0.01)
    with pytest.raises(ConnectionRefusedError):
        ask(page, "/livez")


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_nothing_is_left_over(still: Camera) -> None:
    def left() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    with closing(show(still)) as page:
        ask(page, "/")
    before = left()
    for _ in range(5):
        with closing(show(still)) as page:
            ask(page, "/api/cameras/door/snapshot.png")
            with closing(viewer(page)) as link:
                next_picture(link)
    end = time.monotonic() + 3
    while left() != before:
        assert time.monotonic() < end, (left(), before)
        time.sleep(0.01)


def test_the_same_port_can_be_served_again_at_once(still: Camera) -> None:
    page = show(still)
    ask(page, "/")
    page.close()
    with closing(serve([still], urlsplit(page.url).netloc)) as again:
        assert again.url == page.url
        assert ask(again, "/")[0] == 200


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("", "expected [HOST:]PORT"),
        ("8080 ", None),
        ("127.0.0.1", "expected [HOST:]PORT"),
        ("127.0.0.1:99999", "expected [HOST:]PORT"),
        ("http://127.0.0.1:8080", "expected [HOST:]PORT"),
        ("::1:8080", "expected [HOST:]PORT"),
        ("127.0.0.1:-1", "expected [HOST:]PORT"),
        ("no.such.host.invalid:80", "cannot serve on no.such.host.invalid:80"),
        ("192.0.2.1:0", "needs a token"),
        ("a" * 70 + ":0", "cannot serve on aaa"),
        ("0.0.0.0:0", "needs a token"),
        ("[::]:0", "needs a token"),
    ],
)
def test_an_address_that_cannot_be_served(address: str, said: str | None, still: Camera) -> None:
    if said is None:
        address = f"{free_port()} "
        serve([still], address).close()
        return
    with pytest.raises(SalstreamError) as caught:
        serve([still], address)
    assert said in str(caught.value)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_a_port_in_use_is_one_sentence(still: Camera) -> None:
    with closing(show(still)) as page:
        place = urlsplit(page.url).netloc
        with pytest.raises(SalstreamError, match=f"cannot serve on {place}: Address already"):
            serve([still], place)
        assert ask(page, "/")[0] == 200


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "no camera"),
        (["a", "b", "a"], "two cameras are named 'a'"),
        ([".."], "cannot be named '..'"),
        ([""], "cannot be named ''"),
        (["a\nb"], "cannot be named"),
    ],
)
def test_names_that_cannot_be_told_apart(names: Sequence[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        serve([Camera(name, "") for name in names], "0")
    assert said in str(caught.value)


ORDINARY_USER = """
import ctypes, faulthandler, os, sys
faulthandler.dump_traceback_later(20, exit=True)
if len(sys.argv) == 1:
    os.nice(10 - os.nice(0))
    assert ctypes.CDLL(None).prctl(24, 23, 0, 0, 0) == 0  # PR_CAPBSET_DROP, CAP_SYS_NICE
    os.execv(sys.executable, [sys.executable, "-c", *sys.orig_argv[2:], "again"])
from salstream.runtime.live.camera import Camera
from salstream.runtime.serve import serve
page = serve([Camera("door", "")], "127.0.0.1:0")
print(os.getpriority(os.PRIO_PROCESS, page._thread.native_id))
page.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a priority on Linux only")
def test_who_may_not_raise_its_priority_is_served_all_the_same() -> None:
    """As under `nice`, without rights over priorities."""
    command = [sys.executable, "-c", ORDINARY_USER]
    if os.geteuid() != 0:  # has no such right to drop
        command = ["nice", "-n", "10", *command, "again"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) >= 10


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a priority on Linux only")
def test_stepping_back_never_raises_a_priority() -> None:
    found: list[int] = []

    def step(niceness: int) -> None:
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, niceness)
        step_back()
        found.append(os.getpriority(os.PRIO_PROCESS, thread))

    now = os.getpriority(os.PRIO_PROCESS, 0)
    for niceness in (now, 12, 19):
        thread = threading.Thread(target=step, args=(max(now, niceness),))
        thread.start()
        thread.join()
    assert found == [max(5, now), max(12, now), 19]


def test_an_error_at_the_start_is_the_caller_s(
    monkeypatch: pytest.MonkeyPatch, still: Camera
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no page today")

    monkeypatch.setattr(app, "Page", fail)
    raised: list[BaseException] = []

    def start() -> None:
        try:
            serve([still], "127.0.0.1:0")
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=start, daemon=True)  # it could wait for ever
    thread.start()
    thread.join(20)
    assert [str(error) for error in raised] == ["no page today"]


def test_without_the_extra_it_says_so(monkeypatch: pytest.MonkeyPatch, still: Camera) -> None:
    monkeypatch.delitem(sys.modules, "salstream.runtime.serve.app")
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(SalstreamError, match=r"pip install 'salstream\[serve\]'"):
        serve([still], "0")
