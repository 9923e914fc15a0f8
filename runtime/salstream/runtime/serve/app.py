"""What the page's server answers, address by address."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from importlib.resources import files
from typing import Final
from urllib.parse import parse_qsl, quote

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from salstream.runtime.errors import SalstreamError, UsageError
from salstream.runtime.live.camera import Camera, State
from salstream.runtime.results import Result
from salstream.runtime.serve import metrics
from salstream.runtime.serve.broadcast import Broadcast, step_back
from salstream.runtime.serve.guard import MOST_BYTES, Guard, middleware
from salstream.runtime.serve.pictures import View, jpeg, png

# Everything that is ever sent from a file; there is no way to ask for another.
_ASSETS: Final = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/camera.js": ("camera.js", "text/javascript"),
    "/chart.js": ("chart.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
MOST_WATCHERS: Final = 256  # fewer than connections: they leave places for probes and lists
MOST_SNAPSHOTS: Final = 4  # at once: each holds a whole PNG, tens of megabytes at 4K
_WELL: Final = (State.LIVE, State.ENDED)
_MAKERS: Final = 2
_SAMPLE_S: Final = 1.0
_LISTING_S: Final = 0.25  # however many ask, the figures are computed only so often
_SLOW_S: Final = 10.0  # a client that takes nothing for so long is cut off
_SNAPSHOT_S: Final = 60.0  # by then a client has its snapshot, or is cut off
_PATIENCE_S: Final = 1.0
_CHUNK: Final = 64 * 1024
_BOUNDARY: Final = "salstream-frame"


def application(
    cameras: Sequence[Camera],
    port: int,
    token: str | None,
    points: Callable[[str, Result], dict[str, object]] | None,
) -> web.Application:
    """Return the application that shows these cameras; for the arguments see ``serve``."""
    page = Page(cameras, points)
    guard = Guard(token, port, _asset("token.html").decode())
    app = web.Application(middlewares=[middleware(guard)], client_max_size=MOST_BYTES)
    app.on_response_prepare.append(guard.sign)
    app.cleanup_ctx.append(page.running)
    camera = "/api/cameras/{name}"
    for path, handler in {
        "/livez": page.alive,
        "/healthz": page.health,
        "/metrics": page.metrics,
        "/api/cameras": page.cameras,
        f"{camera}/stream": page.counted(page.stream),
        f"{camera}/pictures": page.counted(page.pictures),
        f"{camera}/snapshot.png": page.snapshot,
        f"{camera}/points": page.counted(page.points),
    }.items():
        app.router.add_get(path, handler, allow_head=False)
    for path, (name, kind) in _ASSETS.items():
        app.router.add_get(path, partial(_send, _asset(name), kind))
    return app


class Page:
    """The cameras and the answers about them."""

    def __init__(
        self, cameras: Sequence[Camera], points: Callable[[str, Result], dict[str, object]] | None
    ) -> None:
        self._points = points
        self._waiters = ThreadPoolExecutor(len(cameras), "salstream-page-wait")
        self._makers = ThreadPoolExecutor(_MAKERS, "salstream-page-make", step_back)
        self._broadcasts = {c.name: Broadcast(c, self._waiters, self._makers) for c in cameras}
        self._watchers = 0
        self._snapshots = 0
        self._listing = b""
        self._listed = float("-inf")
        self._registry = metrics.registry(cameras)

    async def running(self, app: web.Application) -> AsyncIterator[None]:
        """Sample the latencies as long as the application runs."""
        sampling = asyncio.create_task(self._sample())
        yield
        sampling.cancel()
        self._waiters.shutdown(cancel_futures=True)
        self._makers.shutdown(wait=False, cancel_futures=True)

    def counted(self, handler: Handler) -> Handler:
        """Return a handler that refuses when too many are watching already."""

        async def watch(request: web.Request) -> web.StreamResponse:
            if self._watchers >= MOST_WATCHERS:
                raise web.HTTPServiceUnavailable(text="too many are watching; try again later")
            self._watchers += 1
            try:
                return await handler(request)
            finally:
                self._watchers -= 1

        return watch

    async def alive(self, request: web.Request) -> web.Response:
        """Say that the process answers, whatever its cameras do."""
        return web.json_response({"alive": True})

    async def health(self, request: web.Request) -> web.Response:
        """Say 200 if every camera is live or came to its end, else 503 and which are not."""
        statuses = [broadcast.camera.status() for broadcast in self._broadcasts.values()]
        ill = {
            status.name: {"state": status.state, "reason": status.reason}
            for status in statuses
            if status.state not in _WELL
        }
        return web.json_response({"healthy": not ill, "ill": ill}, status=503 if ill else 200)

    async def metrics(self, request: web.Request) -> web.Response:
        """Give the figures for Prometheus."""
        return web.Response(
            body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def cameras(self, request: web.Request) -> web.Response:
        """List what is known of each camera, and the time here, which ``since`` refers to."""
        now = time.monotonic()
        if now - self._listed > _LISTING_S:
            listed = [self._describe(broadcast) for broadcast in self._broadcasts.values()]
            self._listing = json.dumps({"time": time.time(), "cameras": listed}).encode()
            self._listed = now
        return web.Response(body=self._listing, content_type="application/json")

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Show a view as MJPEG, for programs; a browser opens six of them at most."""
        broadcast, view = self._broadcast(request), View.of(request.query)
        self._check(broadcast, view)
        kind = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"
        answer = web.StreamResponse(headers={"Content-Type": kind})
        await answer.prepare(request)
        await answer.write(f"--{_BOUNDARY}\r\n".encode())
        number = 0
        while True:
            number, picture = await broadcast.made(number, view, partial(jpeg, view=view))
            head = f"Content-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
            async with _prompt(request):
                # The boundary follows at once: browsers show a picture when they see it.
                await answer.write(
                    b"%s%s\r\n--%s\r\n" % (head.encode(), picture, _BOUNDARY.encode())
                )

    async def pictures(self, request: web.Request) -> web.StreamResponse:
        """Answer each message, which has a view's options, with a picture that is newer.

        The one who looks sets the pace, so nothing waits in between. Where nothing new comes
        for a second the answer is an empty message, and the client asks again.
        """
        broadcast = self._broadcast(request)
        socket = await _open(request)
        number, shown = 0, View()
        async for message in socket:
            try:
                view = View.of(dict(parse_qsl(str(message.data), keep_blank_values=True)))
                self._check(broadcast, view)
                number = number if view == shown else 0
                shown = view
                async with asyncio.timeout(_PATIENCE_S):
                    number, picture = await broadcast.made(number, view, partial(jpeg, view=view))
            except TimeoutError:
                picture = b""
            except UsageError as error:
                await socket.close(code=1008, message=str(error).encode()[:120])
                break
            async with _prompt(request):
                await socket.send_bytes(picture)
        return socket

    async def snapshot(self, request: web.Request) -> web.StreamResponse:
        """Give a view of the newest result as PNG, at the frame's own size if that is sane."""
        broadcast, view = self._broadcast(request), View.of(request.query)
        newest = broadcast.camera.newest()
        if newest is None:
            raise SalstreamError(f"{broadcast.camera.name} has no picture yet")
        self._check(broadcast, view)
        if self._snapshots >= MOST_SNAPSHOTS:
            raise web.HTTPServiceUnavailable(text="too many snapshots at once; try again later")
        self._snapshots += 1
        making = asyncio.get_running_loop().run_in_executor(self._makers, png, newest[1], view)
        name = quote(f"{broadcast.camera.name}-{newest[1].index:06d}.png", safe="")
        try:
            async with _prompt(request, _SNAPSHOT_S):
                return await _download(request, name, await asyncio.shield(making))
        finally:
            # It is made to its end even where the client left, and takes its place until then.
            making.add_done_callback(self._snapshot_over)

    def _snapshot_over(self, made: asyncio.Future[bytes]) -> None:
        self._snapshots -= 1
        if not made.cancelled():
            made.exception()  # so that nobody complains that nobody asked

    async def points(self, request: web.Request) -> web.StreamResponse:
        """Send what ``points`` makes of each result as one line of JSON."""
        broadcast, make = self._broadcast(request), self._points
        name = broadcast.camera.name
        if make is None:
            raise web.HTTPNotFound(text="no points are made here")
        socket = await _open(request)

        async def send() -> None:
            number = 0
            while True:
                number, line = await broadcast.made(
                    number, "points", lambda result: json.dumps(make(name, result)).encode()
                )
                async with _prompt(request):
                    await socket.send_str(f"{line.decode()}\n")

        async def leave() -> None:
            async for _ in socket:
                pass

        tasks = [asyncio.create_task(send()), asyncio.create_task(leave())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
        return socket

    def _broadcast(self, request: web.Request) -> Broadcast:
        name = request.match_info["name"]
        try:
            return self._broadcasts[name]
        except KeyError:
            raise web.HTTPNotFound(text=f"there is no camera {name!r}") from None

    def _check(self, broadcast: Broadcast, view: View) -> None:
        """Say that there are no conspicuity maps before the answer begins."""
        newest = broadcast.camera.newest()
        if view.kind == "conspicuity" and newest is not None and newest[1].conspicuity is None:
            raise UsageError(
                f"{broadcast.camera.name} has no conspicuity maps; "
                "export the graph with: salstream export --conspicuity"
            )

    def _describe(self, broadcast: Broadcast) -> dict[str, object]:
        newest = broadcast.camera.newest()
        return dataclasses.asdict(broadcast.camera.status()) | {
            "conspicuity": newest is not None and newest[1].conspicuity is not None,
            "history": list(broadcast.history),
        }

    async def _sample(self) -> None:
        while True:
            for broadcast in self._broadcasts.values():
                broadcast.sample(broadcast.camera.status())
            await asyncio.sleep(_SAMPLE_S)


@asynccontextmanager
async def _prompt(request: web.Request, limit_s: float | None = None) -> AsyncIterator[None]:
    """Cut a client off that does not take what it is sent."""
    try:
        async with asyncio.timeout(_SLOW_S if limit_s is None else limit_s):
            yield
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError from None


async def _open(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(heartbeat=20, timeout=1, max_msg_size=1024, compress=False)
    await socket.prepare(request)
    return socket


async def _download(request: web.Request, name: str, picture: bytes) -> web.StreamResponse:
    answer = web.StreamResponse(
        headers={
            "Content-Type": "image/png",
            "Content-Length": str(len(picture)),
            "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
        }
    )
    await answer.prepare(request)
    for begin in range(0, len(picture), _CHUNK):  # or the connection would buffer it all again
        async with _prompt(request):
            await answer.write(picture[begin : begin + _CHUNK])
    return answer


async def _send(content: bytes, kind: str, request: web.Request) -> web.Response:
    return web.Response(body=content, content_type=kind, charset="utf-8")


def _asset(name: str) -> bytes:
    return files("salstream.runtime.serve").joinpath("page", name).read_bytes()
