"""The page's address and its thread: bound at the start, gone within a second at the end."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from salstream.runtime.errors import SalstreamError, UsageError
from salstream.runtime.live.camera import Camera
from salstream.runtime.results import Result

if TYPE_CHECKING:
    from aiohttp import web

MOST_CLIENTS: Final = 400
SHORTEST_TOKEN: Final = 16

_MOST_REFUSALS: Final = 64  # connections that may wait for their 503 at once
_SEND_BUFFER: Final = 128 * 1024  # a reader that is slow is at most this far behind
_SILENCE_S: Final = 15.0  # a connection on which nobody asks is closed
_SHUTDOWN_S: Final = 0.1
_TOO_MANY: Final = b'{"error": "too many clients; try again in a moment"}'
_REFUSAL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 10\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(_TOO_MANY), _TOO_MANY)
)


def serve(
    cameras: Sequence[Camera],
    address: str = "127.0.0.1:8080",
    *,
    token: str | None = None,
    points: Callable[[str, Result], dict[str, object]] | None = None,
) -> Server:
    """Show cameras on a page, from a thread of its own, until the server is closed.

    Args:
        cameras: Each with a name of its own.
        address: ``[HOST:]PORT``; without a host this machine only, port 0 is any free one.
        token: What a client must know; needed on every address but this machine's own.
        points: What of a result goes to the readers of points, from the camera's name and the
            result, as ``live.points.record`` makes it; without it they get an error.

    Raises:
        UsageError: Two cameras of one name, an address that is none, a token that is missing
            or short.
        SalstreamError: The address cannot be had, or the extra ``serve`` is not installed.
    """
    try:
        from salstream.runtime.serve.app import application
    except ImportError as error:
        raise SalstreamError(
            "the page needs aiohttp and prometheus-client; install them with: "
            "pip install 'salstream[serve]'"
        ) from error
    _check_names([camera.name for camera in cameras])
    if token is not None and len(token) < SHORTEST_TOKEN:
        raise UsageError(f"the token is too short: at least {SHORTEST_TOKEN} characters, please")
    listener = _listen(address, token)
    port = listener.getsockname()[1]
    return Server(listener, lambda: application(cameras, port, token, points))


class Server:
    """A page that is being served.

    Attributes:
        url: Where it is, for a browser on this machine.
    """

    def __init__(self, listener: socket.socket, make: Callable[[], web.Application]) -> None:
        host, port = listener.getsockname()[:2]
        ip = ipaddress.ip_address(host.partition("%")[0])
        if ip.is_unspecified:
            host = "127.0.0.1" if ip.version == 4 else "::1"
        self.url = f"http://{f'[{host}]' if ip.version == 6 else host}:{port}/"
        self._listener = listener
        self._make = make
        self._end = asyncio.Event()
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(started)), name="salstream-page", daemon=True
        )
        self._thread.start()
        self._loop = started.result()

    def close(self) -> None:
        """End it, every client cut off; safe to call again."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()

    async def _serve(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        from aiohttp import web

        from salstream.runtime.serve.broadcast import step_back
        from salstream.runtime.serve.guard import Connection

        limits: dict[str, Any] = {
            "max_line_size": 4096,
            "max_field_size": 4096,
            "max_headers": 64,
            "read_bufsize": 64 * 1024,
            "keepalive_timeout": _SILENCE_S,
            "lingering_time": 1.0,
            "access_log": None,
        }
        loop = asyncio.get_running_loop()
        try:
            step_back()
            runner = web.AppRunner(
                self._make(), handler_cancellation=True, shutdown_timeout=_SHUTDOWN_S
            )
            await runner.setup()
            handlers = runner.server
            assert handlers is not None
            refusals: set[_Refusal] = set()

            def connection() -> asyncio.Protocol:
                if len(handlers.connections) >= MOST_CLIENTS:
                    return _Refusal(refusals)
                return Connection(handlers, loop=loop, **limits)

            listening = await loop.create_server(connection, sock=self._listener, backlog=256)
        except Exception as error:  # `serve` raises it
            self._listener.close()
            started.set_exception(error)
            return
        started.set_result(loop)
        await self._end.wait()
        with suppress(NotImplementedError):  # who was accepted just now is let in, to be cut off
            loop.remove_reader(self._listener)
            await asyncio.sleep(0.01)
        listening.close()
        await runner.cleanup()


class _Refusal(asyncio.Protocol):
    """Says to one client too many that there are too many; hears it out first, but not long."""

    def __init__(self, all_of_them: set[_Refusal]) -> None:
        self._all = all_of_them

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if len(self._all) >= _MOST_REFUSALS:
            transport.abort()
            return
        self._all.add(self)
        asyncio.get_running_loop().call_later(2, transport.abort)

    def data_received(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(_REFUSAL)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.discard(self)


def _check_names(names: list[str]) -> None:
    if not names:
        raise UsageError("there is no camera to show")
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two cameras are named {name!r}; give each a name of its own")
        if name in ("", ".", "..") or not name.isprintable():
            raise UsageError(f"a camera cannot be named {name!r}: the name is part of an address")


def _listen(address: str, token: str | None) -> socket.socket:
    match = re.fullmatch(r"(?:(\[[^\[\]/\s]+\]|[^:\[\]/\s]+)?:)?(\d{1,5})", address.strip())
    if match is None or int(match[2]) > 65535:
        raise UsageError(f"cannot read the address {address!r}: expected [HOST:]PORT, such as 8080")
    host, port = (match[1] or "127.0.0.1").strip("[]"), int(match[2])
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        loopback = ipaddress.ip_address(str(place[0]).partition("%")[0]).is_loopback
        if not loopback and token is None:
            raise UsageError(
                f"{host} can be reached from other machines, and needs a token; "
                "give one (--token-file), or serve on 127.0.0.1"
            )
        listener = socket.create_server(place[:2], family=family, backlog=256)
    except (OSError, UnicodeError) as error:  # the latter for what can be no host's name
        reason = getattr(error, "strerror", None) or str(error)
        raise SalstreamError(f"cannot serve on {address}: {reason}; choose another") from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)  # clients inherit it
    return listener
