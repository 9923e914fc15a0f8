"""Requests that should not pass, and do not."""

from __future__ import annotations

import hmac
import json
import logging
import socket
from collections.abc import Iterator
from contextlib import closing
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from salstream.runtime import SalstreamError, UsageError
from salstream.runtime.live.camera import Camera
from salstream.runtime.serve import Server, serve
from watching import ask, moving, say, show

TOKEN = "correct-horse-battery"
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
}
EVERYTHING = (
    *("/", "/page.css", "/page.js", "/camera.js", "/chart.js", "/icon.svg"),
    *("/livez", "/healthz", "/metrics", "/api/cameras", "/api/cameras/door/snapshot.png"),
)
CLOSED = tuple(path for path in EVERYTHING if path not in ("/page.css", "/icon.svg", "/livez"))


def door() -> Camera:
    camera = Camera("door", "")
    camera.publish(moving(3), 0.01)
    return camera


@pytest.fixture(scope="module")
def page() -> Iterator[Server]:
    """Open to whoever is on this machine."""
    with closing(show(door())) as server:
        yield server


@pytest.fixture(scope="module")
def closed() -> Iterator[Server]:
    """Open to those who know the token."""
    with closing(show(door(), token=TOKEN)) as server:
        yield server


@pytest.fixture(autouse=True)
def _nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whoever can reach the port must not be able to fill the log."""
    with caplog.at_level(logging.WARNING):
        yield
    assert [record.getMessage() for record in caplog.records] == []


def raw(path: bytes) -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def status_of(answer: bytes) -> int:
    """Return the status, 0 for a connection that was closed without one."""
    return int(answer.split(b" ", 2)[1]) if answer else 0


# Files


TRAVERSALS = [
    b"/../../../../etc/passwd",
    b"/..",
    b"/.",
    b"//etc/passwd",
    b"/etc/passwd",
    b"/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    b"/..%2f..%2f..%2fetc%2fpasswd",
    b"/%2e%2e%2f%2e%2e%2fetc/passwd",
    b"/..%252f..%252fetc%252fpasswd",
    b"/....//....//etc/passwd",
    b"/..\\..\\..\\etc\\passwd",
    b"/..%5c..%5cetc%5cpasswd",
    b"/..%c0%af..%c0%afetc/passwd",
    b"/..%ef%bc%8f..%ef%bc%8fetc/passwd",
    b"/page.css/../app.py",
    b"/page.css/../../app.py",
    b"/page.css%00.html",
    b"/page.html",
    b"/token.html",
    b"/%00",
    b"/\x00",
    b"/etc/passwd\x00.css",
    b"/page/page.css",
    b"/static/page.css",
    b"/app.py",
    b"/__init__.py",
    b"/api/../page.py",
    b"/api/cameras/../../../etc/passwd",
    b"/api/cameras/..%2f..%2fetc%2fpasswd/snapshot.png",
    b"/api/cameras/%2fetc%2fpasswd/stream",
    b"/api/cameras/%2e%2e/snapshot.png",
    b"/api/cameras/door/../../../app.py",
    b"/api/cameras/door/snapshot.png/../../../../etc/passwd",
    b"/api/cameras/door/snapshot.png%2f..%2f..",
    b"/api/cameras/door%00/snapshot.png",
    b"file:///etc/passwd",
    b"http://localhost/etc/passwd",
    b"http://example.org/page.css/../app.py",
    b"*",
    b"etc/passwd",
    b"/C:/Windows/win.ini",
    b"/~root/.bashrc",
    b"/proc/self/environ",
]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leads_to_a_file(page: Server, path: bytes) -> None:
    answer = say(page, raw(path))
    assert status_of(answer) in (400, 403, 404), answer[:300]
    assert b"root:" not in answer
    assert b"import" not in answer


PIECES = [
    *("..", ".", "/", "//", "\\", "~", ";", "%2e", "%2f", "%5c", "%00", "%252e", "%c0%ae"),
    *("etc", "passwd", "page", "api", "cameras", "door", "app.py", ".css"),
]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.sampled_from(PIECES),
        max_size=9,
    )
)
def test_no_path_made_of_such_pieces_does(page: Server, pieces: list[str]) -> None:
    path = "/" + "".join(pieces)
    answer = say(page, raw(path.encode()))
    assert status_of(answer) in (200, 400, 404)
    if status_of(answer) == 200:  # the page itself, or the list of cameras
        served = answer.partition(b"\r\n\r\n")[2]
        assert served.startswith((b"<!doctype html>", b'{"time"')), path
    assert b"root:" not in answer


def test_what_is_served_is_what_lies_in_the_package(page: Server) -> None:
    import salstream.runtime.serve as package

    folder = Path(package.__file__).parent / "page"
    names = {path.name for path in folder.iterdir()} - {"token.html"}
    for name in names:
        path = "/" if name == "page.html" else f"/{name}"
        assert ask(page, path)[2] == (folder / name).read_bytes()
    assert len(names) == 6


# What every answer says, and what a browser with other pages open can do


@pytest.mark.parametrize("path", [*EVERYTHING, "/nothing", "/api/cameras/x/stream"])
def test_every_answer_is_guarded(page: Server, path: str) -> None:
    _, headers, _ = ask(page, path, {"Origin": page.url.rstrip("/")})
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "*" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Server"] == "salstream"
    assert not [name for name in headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:1234", 200),
        ("salstream.localhost:8080", 200),
        ("127.0.0.1:8080", 200),
        ("127.1.2.3", 200),
        ("[::1]:8080", 200),
        ("evil.example", 403),
        ("evil.example:8080", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("notlocalhost", 403),
        ("192.168.0.1", 403),
        ("0.0.0.0", 403),
        ("[::1", 403),
        ("", 403),
        ("127.0.0.1@evil.example", 403),
    ],
)
def test_a_foreign_name_for_this_machine_is_refused(page: Server, host: str, status: int) -> None:
    """A page of another site could lead its own name here, and would then read everything."""
    for path in ("/", "/api/cameras", "/page.css", "/api/cameras/door/snapshot.png"):
        assert ask(page, path, {"Host": host})[0] == status


def test_a_request_without_a_host_is_refused(page: Server) -> None:
    assert status_of(say(page, b"GET /api/cameras HTTP/1.0\r\n\r\n")) == 403


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://localhost:1", "null", "junk", "http://["]
)
@pytest.mark.parametrize("what", ["pictures", "points"])
def test_other_sites_get_no_websocket(page: Server, what: str, origin: str) -> None:
    """A browser asks no permission for them, so the server has to look."""
    path = f"/api/cameras/door/{what}"
    assert ask(page, path, UPGRADE | {"Origin": origin})[0] == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD"])
def test_nothing_can_be_changed(page: Server, method: str) -> None:
    for path in ("/api/cameras", "/metrics", "/api/cameras/door/stream"):
        assert ask(page, path, method=method)[0] == 405
    if method != "HEAD":
        assert ask(page, "/", method=method)[0] == 405


# Too much


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /?" + b"token=" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"a" * 100_000 + b": x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"\r\n" * 10_000 + b"x",
        bytes(range(256)) * 100,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=lambda value: f"{value[:12]!r}-{len(value)}",
)
def test_what_is_too_long_or_no_http_is_refused(page: Server, request_: bytes) -> None:
    answer = say(page, request_, 3)
    assert status_of(answer) in (0, 400, 414, 431), answer[:200]
    assert len(answer) < 2_000
    assert ask(page, "/api/cameras")[0] == 200


def test_a_long_body_is_not_read(closed: Server) -> None:
    status, _, body = ask(closed, "/", method="POST", body="token=" + "x" * 1_000_000)
    assert status == 413
    assert len(body) < 200
    endless = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    endless += b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    assert status_of(say(closed, endless, 3)) == 413


def test_a_long_message_ends_its_websocket(page: Server) -> None:
    lines = [f"{name}: {value}\r\n" for name, value in (UPGRADE | {"Host": "localhost"}).items()]
    hello = f"GET /api/cameras/door/pictures HTTP/1.1\r\n{''.join(lines)}\r\n".encode()
    long = b"\x81\xff" + (1 << 20).to_bytes(8, "big") + bytes(4) + bytes(1 << 20)
    answer = say(page, hello + long, 3)
    assert status_of(answer) == 101
    assert b"\x88" in answer.partition(b"\r\n\r\n")[2], "a closing frame"
    assert ask(page, "/api/cameras")[0] == 200


# The token


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer \xff\xfe",
    ],
)
def test_without_the_right_token_nothing_is_shown(
    closed: Server, path: str, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    status, answered, body = ask(closed, path, headers)
    assert status == 401
    assert answered["WWW-Authenticate"] == "Bearer"
    assert "needs the token" in json.loads(body)["error"]
    assert "Set-Cookie" not in answered


@pytest.mark.parametrize("path", CLOSED)
def test_with_it_everything_is(closed: Server, path: str) -> None:
    well = {"/healthz": 503}  # its camera never said that it is live
    assert ask(closed, path, {"Authorization": f"Bearer {TOKEN}"})[0] == well.get(path, 200)
    assert ask(closed, path, {"Authorization": f"bearer {TOKEN}"})[0] == well.get(path, 200)


def test_websockets_and_streams_need_it_too(closed: Server) -> None:
    for what in ("pictures", "points", "stream"):
        assert ask(closed, f"/api/cameras/door/{what}", UPGRADE)[0] == 401


def test_a_token_in_the_address_becomes_a_cookie(closed: Server) -> None:
    status, headers, _ = ask(closed, f"/?token={TOKEN}")
    assert (status, headers["Location"]) == (303, "/"), "the address without the token"
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    ((name, morsel),) = SimpleCookie(cookie).items()
    assert name == f"salstream-{urlsplit(closed.url).port}"
    sent = {"Cookie": f"{name}={morsel.value}"}
    assert ask(closed, "/", sent)[0] == 200
    assert ask(closed, "/api/cameras", sent)[0] == 200
    for wrong in (morsel.value[:-1], morsel.value[::-1], "", TOKEN):
        assert ask(closed, "/api/cameras", {"Cookie": f"{name}={wrong}"})[0] == 401
    with closing(show(door(), token=TOKEN + "2")) as other:
        port = urlsplit(other.url).port
        assert ask(other, "/", {"Cookie": f"salstream-{port}={morsel.value}"})[0] == 401


def test_a_token_in_the_address_of_a_picture_shows_it(closed: Server) -> None:
    path = "/api/cameras/door/snapshot.png"
    status, headers, body = ask(closed, f"{path}?view=map&token={TOKEN}")
    assert (status, body[:4]) == (200, b"\x89PNG")
    assert "HttpOnly" in headers["Set-Cookie"]
    assert ask(closed, f"{path}?token=wrong")[0] == 401


def test_a_browser_is_asked_for_it(closed: Server) -> None:
    browser = {"Accept": "text/html,*/*;q=0.8"}
    status, headers, body = ask(closed, "/", browser)
    assert (status, headers.get_content_type()) == (401, "text/html")
    assert b'<form class="token" method="post" action="/">' in body
    assert b"not the right one" not in body
    form = browser | {"Content-Type": "application/x-www-form-urlencoded"}
    status, headers, body = ask(closed, "/", form, "POST", "token=wrong")
    assert status == 401
    assert b"This token is not the right one." in body
    assert "Set-Cookie" not in headers
    status, headers, _ = ask(closed, "/", form, "POST", f"token={TOKEN}")
    assert (status, headers["Location"]) == (303, "/")
    assert "HttpOnly" in headers["Set-Cookie"]


def test_what_cannot_be_read_as_a_form_is_no_token(closed: Server) -> None:
    for body in ("", "token", "&&&", "a=1&" * 50, "token=%ff%fe"):
        assert ask(closed, "/", method="POST", body=body)[0] in (400, 401)


def test_tokens_are_compared_in_constant_time(
    closed: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[bytes] = []
    compare = hmac.compare_digest

    def noted(given: bytes, right: bytes) -> bool:
        compared.append(given)
        return compare(given, right)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    ask(closed, "/", {"Authorization": "Bearer first"})
    ask(closed, "/?token=second")
    ask(closed, "/", method="POST", body="token=third")
    ask(closed, "/", {"Cookie": f"salstream-{urlsplit(closed.url).port}=fourth"})
    assert {b"first", b"second", b"third", b"fourth"} <= set(compared)


def test_behind_a_proxy_any_name_goes_with_the_token(closed: Server) -> None:
    headers = {"Host": "cameras.example.org", "Authorization": f"Bearer {TOKEN}"}
    assert ask(closed, "/api/cameras", headers)[0] == 200


def test_other_addresses_need_a_token_and_short_ones_do_not_count() -> None:
    with pytest.raises(UsageError, match="can be reached from other machines, and needs a token"):
        serve([door()], "0.0.0.0:0")
    for token in ("", "short", "x" * 15):
        with pytest.raises(UsageError, match="at least 16 characters"):
            serve([door()], "127.0.0.1:0", token=token)
    with closing(serve([door()], "0.0.0.0:0", token=TOKEN)) as server:
        assert urlsplit(server.url).hostname == "127.0.0.1"
        assert ask(server, "/api/cameras")[0] == 401


def test_the_address_of_ipv6() -> None:
    try:
        server = serve([door()], "[::1]:0")
    except SalstreamError:
        pytest.skip("no IPv6 here")
    with closing(server):
        assert server.url.startswith("http://[::1]:")
        with socket.create_connection(("::1", urlsplit(server.url).port or 0), 5) as link:
            link.sendall(b"GET /livez HTTP/1.1\r\nHost: [::1]\r\n\r\n")
            assert b" 200 " in link.recv(4096)
