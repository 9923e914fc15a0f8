"""Who may come in, what every answer carries, and how a refusal reads."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
from typing import Final
from urllib.parse import parse_qs, urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from salstream.runtime.errors import SalstreamError, UsageError

logger = logging.getLogger("salstream")

# Nothing is secret here, and the form that asks for the token needs its looks.
OPEN: Final = ("/livez", "/page.css", "/icon.svg")
MOST_BYTES: Final = 4096  # of a request's body: the form with the token is the only one

_FRESH: Final = web.RequestKey("fresh", bool)
_BEGUN: Final = web.RequestKey("begun", bool)
_BODY_S: Final = 5.0
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "salstream",
}


class Guard:
    """Lets in who knows the token, or, without one, whoever is on this machine.

    The token comes as ``Authorization: Bearer``, by the form, or once as ``?token=``; the last
    two are answered with a cookie that proves it and does not contain it.

    Args:
        token: None on a loopback address that needs none.
        port: Sets the cookie apart from another page's on the same machine.
        form: HTML that asks for the token, with ``{note}`` in it.
    """

    def __init__(self, token: str | None, port: int, form: str) -> None:
        self._token = token
        self._cookie = f"salstream-{port}"
        self._proof = hmac.digest(_bytes(token or ""), b"salstream page", "sha256").hex()
        self._form = form

    async def sign(self, request: web.Request, response: web.StreamResponse) -> None:
        """Put on what every answer carries."""
        request[_BEGUN] = True
        response.headers.update(_HEADERS)
        if request.get(_FRESH, False):
            cookie = f"{self._cookie}={self._proof}; Path=/; HttpOnly; SameSite=Strict"
            response.headers.add("Set-Cookie", cookie)

    async def enter(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a request, or say in one sentence why not."""
        try:
            return self._foreign(request) or await self._admitted(request, handler)
        except ConnectionError:
            raise  # the client is gone
        except Exception as error:
            if request.get(_BEGUN, False):
                logger.warning("the page stops answering %s: %s", request.path, error)
                raise ConnectionResetError from error
            return _explained(request, error)

    def _foreign(self, request: web.Request) -> web.Response | None:
        """Refuse pages of other sites that a browser here has open."""
        host = request.headers.get("Host", "")
        # A foreign name that leads to this machine (DNS rebinding). Against one that has a
        # token there is nothing to gain: the browser has no cookie for that name.
        if self._token is None and not _local(host):
            return refuse(403, "this page answers to localhost only; give it a token")
        # WebSockets are open to every site, unless the server looks.
        origin = request.headers.get("Origin")
        own = origin is None or origin.lower().partition("://")[2] == host.lower()
        if not own and "Upgrade" in request.headers:
            return refuse(403, "this page does not answer to other sites")
        return None

    async def _admitted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._token is None or request.path in OPEN:
            return await handler(request)
        if request.path == "/" and request.method == "POST":
            return await self._log_in(request)
        given = request.query.get("token")
        if given is not None and self._right(given):
            request[_FRESH] = True
            # The address without the token is what history and bookmarks shall see.
            return _onward() if request.path == "/" else await handler(request)
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        proof = request.cookies.get(self._cookie, "")
        if (scheme.lower() == "bearer" and self._right(bearer.strip())) or hmac.compare_digest(
            _bytes(proof), _bytes(self._proof)
        ):
            return await handler(request)
        wrong = given is not None or scheme != ""
        return self._ask(request, "This token is not the right one." if wrong else "")

    async def _log_in(self, request: web.Request) -> web.StreamResponse:
        async with asyncio.timeout(_BODY_S):
            fields = parse_qs((await request.read()).decode(errors="replace"))
        if not self._right(fields.get("token", [""])[0].strip()):
            return self._ask(request, "This token is not the right one.")
        request[_FRESH] = True
        return _onward()

    def _right(self, given: str) -> bool:
        return hmac.compare_digest(_bytes(given), _bytes(self._token or ""))

    def _ask(self, request: web.Request, note: str) -> web.Response:
        if "text/html" not in request.headers.get("Accept", ""):
            answer = refuse(401, "this needs the token: send Authorization: Bearer TOKEN")
        else:
            text = self._form.replace("{note}", note)
            answer = web.Response(status=401, text=text, content_type="text/html")
        answer.headers["WWW-Authenticate"] = "Bearer"
        answer.force_close()  # who does not know it holds no connection
        return answer


class Connection(web.RequestHandler):
    """Says what cannot be read as HTTP, without repeating it, to the client or in the log."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what the parser refused; the rest is not expected, and logged."""
        if request.writer.output_size:
            raise ConnectionResetError from exc  # the client left, or `enter` has said why
        if status != 400:
            return super().handle_error(request, status, exc, message)
        answer = refuse(status, "this cannot be read as an HTTP request")
        answer.force_close()
        return answer


def refuse(status: int, sentence: str, headers: dict[str, str] | None = None) -> web.Response:
    """Return an error as JSON."""
    return web.json_response({"error": sentence}, status=status, headers=_HEADERS | (headers or {}))


def _explained(request: web.Request, error: Exception) -> web.Response:
    match error:
        case web.HTTPException():
            kept = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
            return refuse(error.status, error.text or error.reason, kept)
        case UsageError():
            return refuse(400, str(error))
        case SalstreamError():
            return refuse(503, str(error))
        case TimeoutError():
            return refuse(408, "the request took too long to come")
    logger.error("the page could not answer %s", request.path, exc_info=error)
    return refuse(500, "something went wrong here; the log says what")


def middleware(guard: Guard) -> Middleware:
    """Return the guard as aiohttp wants it."""

    @web.middleware
    async def enter(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await guard.enter(request, handler)

    return enter


def _onward() -> web.Response:
    return web.Response(status=303, headers={"Location": "/"})


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")  # headers may hold what is no text


def _local(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
