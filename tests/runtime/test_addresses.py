"""Addresses as people type them: what is bare in a password is understood, and never shown."""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import string
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from urllib.parse import quote, unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from salstream.runtime.errors import SalstreamError, UsageError
from salstream.runtime.live.listing import read_cameras
from salstream.runtime.sources import open_source, redact
from salstream.runtime.sources.address import SCHEMES, Address, parse_url
from servers import serving

AS_THEY_ARE = [
    ("http://host/path@2x.mjpg", None, None, "host", "/path@2x.mjpg"),
    ("http://host:8080/path@2x.mjpg", None, None, "host:8080", "/path@2x.mjpg"),
    ("http://me:pw@host/path@2x.mjpg", "me", "pw", "host", "/path@2x.mjpg"),
    ("http://host/a?b=c@d", None, None, "host", "/a?b=c@d"),
    ("http://host?b=c@d", None, None, "host", "?b=c@d"),
    ("http://me:pw@host/a?b=c@d.com", "me", "pw", "host", "/a?b=c@d.com"),
    ("http://host:80/a:b@c", None, None, "host:80", "/a:b@c"),
    ("http://[::1]:8080/x?y=[1]", None, None, "[::1]:8080", "/x?y=[1]"),
    ("http://host.example/@user/live", None, None, "host.example", "/@user/live"),
    ("http://me:pw@host.example/@user/live", "me", "pw", "host.example", "/@user/live"),
    (
        "http://host/x?src=rtsp://a:b@10.0.0.5/1",
        None,
        None,
        "host",
        "/x?src=rtsp://a:b@10.0.0.5/1",
    ),
    ("http://host:/x", None, None, "host:", "/x"),
    ("http://host:8080/v?mail=me@host.com&n=1", None, None, "host:8080", "/v?mail=me@host.com&n=1"),
    ("http://10.0.0.5:81/@user/live", None, None, "10.0.0.5:81", "/@user/live"),
    ("http://[fe80::1]:81/a@b/c", None, None, "[fe80::1]:81", "/a@b/c"),
    ("rtsp://me:pw@10.0.0.5/a@b.com/c", "me", "pw", "10.0.0.5", "/a@b.com/c"),
    ("rtsp://me:pw@cam:554/a@b.com/c", "me", "pw", "cam:554", "/a@b.com/c"),
    ("rtsp://me:pw%40@cam/a@b.com/c", "me", "pw@", "cam", "/a@b.com/c"),
    ("rtsp://me@cam/a?b=c@d.com", "me", None, "cam", "/a?b=c@d.com"),
    ("srt://:9000?streamid=me@host.com", None, None, ":9000", "?streamid=me@host.com"),
    (
        "rtsp://host/user=me_password=x_channel=1",
        None,
        None,
        "host",
        "/user=me_password=x_channel=1",
    ),
    ("rtsp://me:pa%23ss%40@cam:554/1", "me", "pa#ss@", "cam:554", "/1"),
    ("udp://@239.0.0.1:1234", "", None, "239.0.0.1:1234", ""),
    ("udp://:1234?fifo_size=100", None, None, ":1234", "?fifo_size=100"),
    ("srt://:9000?mode=listener", None, None, ":9000", "?mode=listener"),
]
PLACE = "127.0.0.1:9"  # where nobody listens


@pytest.mark.parametrize(
    ("text", "user", "password", "place", "rest"),
    [
        *AS_THEY_ARE,
        ("rtsp://me:pa%23ss@cam/1", "me", "pa#ss", "cam", "/1"),
        ("rtsp://me:pa#ss@cam/1", "me", "pa#ss", "cam", "/1"),
        ("rtsp://me:pa/ss@cam/1", "me", "pa/ss", "cam", "/1"),
        ("rtsp://me:pa?ss@cam/1", "me", "pa?ss", "cam", "/1"),
        ("rtsp://me:12#ss@cam/1", "me", "12#ss", "cam", "/1"),
        ("rtsp://me:/@cam/1", "me", "/", "cam", "/1"),
        ("rtsp://me:#?/@cam:554", "me", "#?/", "cam:554", ""),
        ("rtsp://me:a@b@cam/1", "me", "a@b", "cam", "/1"),
        ("rtsp://me:a:b@cam/1", "me", "a:b", "cam", "/1"),
        ("rtsp://me:a b@cam/1", "me", "a b", "cam", "/1"),
        ("rtsp://me:a ! b@cam/1", "me", "a ! b", "cam", "/1"),
        ("rtsp://me:[a]'\"\\@cam/1", "me", "[a]'\"\\", "cam", "/1"),
        ("rtsp://mé:pä%C3%9F@cam/1", "mé", "päß", "cam", "/1"),
        ("rtsp://me:100%@cam/1", "me", "100%", "cam", "/1"),
        ("rtsp://me:50%off@cam/1", "me", "50%off", "cam", "/1"),
        ("rtsp://me:a%25b@cam/1", "me", "a%b", "cam", "/1"),
        ("rtsp://ad#min:a/b@10.0.0.5:554/1", "ad#min", "a/b", "10.0.0.5:554", "/1"),
        ("rtsp://me@home:a@cam/1", "me@home", "a", "cam", "/1"),
        ("rtsp://me:a#b@cam/x?u=me@host.com", "me", "a#b", "cam", "/x?u=me@host.com"),
        ("rtsp://me:a/b@cam/x?u=me@host.com#1", "me", "a/b", "cam", "/x?u=me@host.com#1"),
        ("rtsp://me:a#b@[fe80::1]:554/1", "me", "a#b", "[fe80::1]:554", "/1"),
        ("https://me:a#b@cam/path@2x.mjpg", "me", "a#b", "cam", "/path@2x.mjpg"),
        ("rtsp://me:@cam/1", "me", "", "cam", "/1"),
        ("rtsp://me@cam:554/1", "me", None, "cam:554", "/1"),
    ],
)
def test_addresses_are_read_as_they_were_meant(
    text: str, user: str | None, password: str | None, place: str, rest: str
) -> None:
    address = parse_url(text)
    assert address is not None
    assert (address.user, address.password, address.place) == (user, password, place)
    assert address.rest == rest
    assert redact(address.shown) == address.shown
    if (text, user, password, place, rest) in AS_THEY_ARE:
        assert address.url == text
    again = parse_url(address.url)  # escaped once, it stays as it is
    assert again is not None
    assert (again.url, again.user, again.password) == (address.url, user, password)


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://me:12/geheim@10.0.0.5/1",
        "rtsp://me:a@b/geheim@10.0.0.5/1",
        "rtsp://me:a@b/geheim@cam/1",
        "rtsp://ad/min:geheim@10.0.0.5/1",
        "rtsp://me:12?geheim@10.0.0.5/1",
        "rtsp://me:a#geheim@cam/geheim@home/1",
        "rtsp://me:12?geh]eim@camera/x",
        "http://me:1?,[@?geheim@camera/live",
        "rtsp://me:12/geheim@camera/x",
        "rtsp://me:2024/geheim@camera",
        "rtsp://me:12/geheim@camera/x?u=me@host.com",
        "rtsp://me:geheim@camera/x@host.com/1",
        "rtsp://me:geheim@camera/x?u=me@host.com:80/1",
        "rtmp://:12/geheim@camera/x",
        "rtsp://me:9?V=(geheim@a.co",
        "rtsp://me:49/a=geheim@camera",
        "rtsp://me:@6:716/:#geheim@cam/1",
    ],
)
def test_two_readings_are_explained(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_source(text)
    assert "two ways" in str(caught.value)
    assert "%23 %2F %3F %40" in str(caught.value)
    assert "geheim" not in str(caught.value)
    with pytest.raises(UsageError, match="two ways"):
        read_cameras([f"door={text}", "yard=0"])


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://me:geheim",
        "rtsp://me:geheim/1",
        "rtsp://me:ge heim",
        "rtsp:///me:geheim@host/1",
        "rtsp://fe80::1/1",
        "http:///x",
        "https://:443/x",
        "rtsp://me:geheim@host:port/1",
    ],
)
def test_no_host(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_source(text)
    assert "has no host" in str(caught.value)
    assert "%23" in str(caught.value)
    assert "heim" not in str(caught.value)


SECRETS = st.text(
    st.sampled_from(string.printable.strip() + " " + "#/?@:%" * 8 + "éßñ密🔑"),
    min_size=1,
    max_size=14,
)


@settings(max_examples=300)
@given(SECRETS, st.sampled_from(SCHEMES))
@example("12/a", "rtsp")
@example("12#a", "rtsp")
@example("@a/", "rtsp")
@example("#@a:1/", "http")
@example(" ! ", "rtsp")
@example("%4", "rtsp")
@example("a=b&c=d", "http")
def test_any_password_is_understood_or_explained(secret: str, scheme: str) -> None:
    text = f"{scheme}://user:{secret}@{PLACE}/cam"
    shown = f"{scheme}://user:***@{PLACE}/cam"
    assert redact(text) == shown
    assert redact(f"door = {text}") == f"door = {shown}"
    try:
        address = parse_url(text)
    except UsageError as error:
        assert str(error).startswith(f"{shown} can be read in two ways")
        return
    assert address is not None
    assert (address.user, address.place, address.rest) == ("user", PLACE, "/cam")
    assert address.shown == shown
    assert repr(address) == f"Address({shown!r})"
    plain = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", secret)
    assert address.password == unquote(plain)
    login = address.url.partition("://")[2].rpartition("@")[0]
    assert not re.search(r"[/?#]", login)  # nothing that FFmpeg would take for the host's end


_DIGITS_FIRST = st.builds(
    "{}{}{}".format, st.integers(0, 99999), st.sampled_from("?/#@:"), st.text(max_size=6)
)
_ANY_TEXT = st.text(
    st.sampled_from(string.printable[:95] + "#/?@:%" * 4 + "éßñ密🔑"), min_size=1, max_size=12
)
_PRINTABLE = (_DIGITS_FIRST | _ANY_TEXT).filter(str.isprintable)
_HOSTS = st.builds(
    str.__add__,
    st.sampled_from(
        [
            "cam",
            "camera",
            "door-1",
            "NVR",
            "cam.example",
            "a.b.example.com",
            "host.com",
            "10.0.0.5",
            "192.168.1.20",
            "localhost",
            "[::1]",
            "[2001:db8::5]",
            "[fe80::1%eth0]",
        ]
    ),
    st.sampled_from(["", "", ":9", ":80", ":554", ":65535"]),
)
# an @ that only a path or a query has
_CLEAR_RESTS = ["", "/", "/cam/1", "?x=1", "/path@2x.mjpg", "/x?u=me@host.com", "?u=me@b&n=1:2"]
_OTHER_RESTS = ["/a@b", "/a:b@c", "/12:3@4/5", "/@user/live", "/x@10.0.0.9:80/z", "/live:1/0"]
_QUERIES = ["/x?u=me@host.com/y", "/x?src=rtsp://a:b@10.0.0.5/1", "/user=me@h/x:1"]
_RESTS = st.sampled_from([*_CLEAR_RESTS, *_OTHER_RESTS, *_QUERIES])


def _said(text: str) -> list[str]:
    """Everything that is said about a URL, in all forms in which it can be given."""
    pipelines = [f"rtspsrc location={text} ! appsink", f'rtspsrc location="{text}" ! a. ! b']
    said = [redact(form) for form in (text, f"door={text}", f"door = {text}", *pipelines)]
    for read in (parse_url, lambda text: read_cameras([f"door={text}"])):
        try:
            address = read(text)
        except UsageError as error:
            said.append(str(error))
        else:
            said += [address.shown, repr(address)] if isinstance(address, Address) else []
    return said


@settings(max_examples=150)
@given(_PRINTABLE, st.sampled_from(SCHEMES), _HOSTS, _RESTS)
@example("12?ab]c", "rtsp", "camera", "/x")
@example("1?,[@?", "http", "camera", "/live")
@example("pa#ss", "rtsp", "camera", "/x?u=me@host.com")
@example("12/ab", "rtsp", "camera", "/x@10.0.0.9:80/z")
@example("2024/ab", "http", "camera", "?x=1")
def test_any_host_is_the_one_that_was_meant(secret: str, scheme: str, host: str, rest: str) -> None:
    text = f"{scheme}://user:{secret}@{host}{rest}"
    said = _said(text)
    if len(secret) >= 3 and secret not in f"{scheme}://user:***@{host}{rest}":
        assert not [line for line in said if secret in line.partition(" can be read")[0]]
    plain = unquote(re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", secret))
    try:
        address = parse_url(text)
    except UsageError as error:
        assert "%23 %2F %3F %40" in str(error)
    else:
        assert address is not None
        assert (address.user, address.password) == ("user", plain)
        assert (address.place, address.rest) == (host, rest)


@given(_PRINTABLE, st.sampled_from(SCHEMES), _HOSTS, st.sampled_from(_CLEAR_RESTS))
def test_escaped_passwords_are_always_accepted(
    secret: str, scheme: str, host: str, rest: str
) -> None:
    address = parse_url(f"{scheme}://user:{quote(secret, safe='')}@{host}{rest}")
    assert address is not None
    assert (address.user, address.password) == ("user", secret)
    assert (address.place, address.rest) == (host, rest)
    assert address.shown == f"{scheme}://user:***@{host}{rest}"


@pytest.mark.parametrize("scheme", ["rtsp", "rtsps", "rtmp", "http", "https"])
@pytest.mark.parametrize("secret", ["ge#heim", "ge/heim?", "g@e:heim%", "ge heim[é]"])
def test_a_refused_connection_never_shows_the_password(
    scheme: str, secret: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SalstreamError) as caught:
        open_source(f"{scheme}://user:{secret}@{PLACE}/cam")
    said = [str(caught.value), capfd.readouterr().err]
    error: BaseException | None = caught.value
    while error is not None:
        said += [repr(error), str(error)]
        error = error.__cause__ or error.__context__
    assert said[0].startswith(f"{scheme}://user:***@{PLACE}/cam refused the connection")
    assert "heim" not in " ".join(said)


def test_the_command_line_never_shows_the_password() -> None:
    cameras = [f"door=rtsp://me:ge#heim@{PLACE}/1", f"yard=http://me:ge/heim@{PLACE}/1"]
    command = [sys.executable, "-c", "from salstream.runtime.cli import main; main()", "run"]
    done = subprocess.run(
        [*command, *cameras, "--reconnect", "0", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("refused the connection") >= 2
    assert f"rtsp://me:***@{PLACE}/1" in done.stdout
    assert "heim" not in done.stdout + done.stderr


def test_urls_in_urls_and_spaces_in_fields() -> None:
    shown = redact("http://host:1984/api?src=rtsp://me:geheim@10.0.0.5/1&x=1")
    assert shown == "http://host:1984/api?src=rtsp://me:***@10.0.0.5/1&x=1"
    assert (
        redact("http://h/v?user=me&password=ge heim&n=1") == "http://h/v?user=me&password=***&n=1"
    )


# What a server is given


def _digest(method: str, said: dict[str, str], password: str) -> str:
    def md5(text: str) -> str:
        return hashlib.md5(text.encode()).hexdigest()

    who = md5(f"{said['username']}:{said['realm']}:{password}")
    between = [said[name] for name in ("nonce", "nc", "cnonce", "qop") if name in said]
    return md5(":".join([who, *between, md5(f"{method}:{said['uri']}")]))


def _asks_for_password(connection: socket.socket, *, digest: bool, password: str) -> None:
    """An HTTP or RTSP server that says 404 to who knows the password, else 401."""
    lines = connection.makefile("rb")
    request: list[str] = []
    for raw in lines:
        if line := raw.decode("latin-1").strip():
            request.append(line)
            continue
        method, _, protocol = request[0].split(" ")
        fields = dict(line.split(": ", 1) for line in request[1:])
        request = []
        answer, known = fields.get("Authorization", ""), False
        if digest and answer:
            said = dict(re.findall(r'(\w+)="?([^",]*)"?', answer))
            known = said["response"] == _digest(method, said, password)
        elif answer:
            known = answer == "Basic " + base64.b64encode(f"me:{password}".encode()).decode()
        status = "404 Not Found" if known else "401 Unauthorized"
        challenge = 'Digest realm="r", nonce="n"' if digest else 'Basic realm="r"'
        if method == "OPTIONS":
            status = "200 OK"
        connection.sendall(
            f"{protocol} {status}\r\nCSeq: {fields.get('CSeq', 0)}\r\nContent-Length: 0\r\n"
            f"WWW-Authenticate: {challenge}\r\n\r\n".encode()
        )
        if protocol.startswith("HTTP"):
            return


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
@pytest.mark.parametrize("digest", [False, True])
@pytest.mark.parametrize(
    ("typed", "password"),
    [
        ("pa#ss", "pa#ss"),
        ("pa%23ss", "pa#ss"),
        ("p@:/ %?", "p@:/ %?"),
        ("ü[x]'\\", "ü[x]'\\"),
        ("a+b&c", "a+b&c"),
    ],
)
def test_servers_get_the_password(scheme: str, digest: bool, typed: str, password: str) -> None:
    talk: Callable[[socket.socket], None]
    talk = partial(_asks_for_password, digest=digest, password=password)
    with serving(talk) as port:
        for attempt, status in ((typed, "(404)"), (f"{typed}x", "(401)")):
            with pytest.raises(SalstreamError) as caught:
                open_source(f"{scheme}://me:{attempt}@127.0.0.1:{port}/1", timeout_s=5)
            assert status in str(caught.value)
            assert f"{scheme}://me:***@127.0.0.1:{port}/1" in str(caught.value)
