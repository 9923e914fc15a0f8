"""What a user's text for a source says: its kind, and what of it may be shown."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, urlsplit
from urllib.request import url2pathname

from salstream.runtime.errors import UsageError

SCHEMES: Final = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "srt")


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """A URL, read once.

    Attributes:
        scheme: One of ``SCHEMES``.
        user: Without escapes; None: there is none.
        password: Without escapes; None: there is none.
        place: Host and port, as they were written.
        rest: Path, query and fragment, as they were written.
        shown: The whole URL without its secrets.
        login: User and password as URLs have them: what must be escaped is.
    """

    scheme: str
    user: str | None
    password: str | None
    place: str
    rest: str
    shown: str
    login: str

    @property
    def url(self) -> str:
        """The whole URL, secrets included, as FFmpeg must have it."""
        return f"{self.scheme}://{self.login}{self.place}{self.rest}"

    @property
    def bare_url(self) -> str:
        """The URL without user name and password."""
        return f"{self.scheme}://{self.place}{self.rest}"

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"


def parse_url(text: str) -> Address | None:
    """Read a URL; None: it is something else, such as a file or a GStreamer pipeline.

    What a password may hold (``#``, ``/``, ``?``, ``@``, spaces, …) need not be escaped where
    only one reading is likely; ``%`` and two hexadecimal digits are an escape already.

    Raises:
        UsageError: It is one of a scheme that is not known, without a host, or can be read in
            two ways.
    """
    scheme, found, after = text.partition("://")
    if not found or (" ! " in text and not _SCHEME.fullmatch(scheme)):
        return None
    scheme, shown = scheme.lower(), redact(text)
    if scheme not in SCHEMES:
        known = ", ".join(f"{known}://" for known in SCHEMES)
        raise UsageError(f"{shown} cannot be opened: expected one of {known}")
    login, place, rest, doubtful = _split(after)
    if doubtful:
        raise UsageError(
            f"{shown} can be read in two ways: write # / ? @ in a user name or password as "
            "%23 %2F %3F %40, and @ in a path as %40"
        )
    listens = scheme in ("udp", "tcp", "srt", "rtmp")
    host = place.partition(":")[0]
    if not _PLACE.fullmatch(place) or after.startswith("/") or not (host or listens):
        raise UsageError(
            f"{shown} has no host, or something else than a number after the host's colon: "
            f"expected {scheme}://user:password@host:port/path (# / ? @ in a password are "
            "%23 %2F %3F %40, and an IPv6 address stands in brackets)"
        )
    if login is None:
        return Address(scheme, None, None, place, rest, shown, "")
    user, colon, password = login.partition(":")
    escaped = _escape(user) + colon + _escape(password)
    if scheme == "rtmp" and not re.search(r"[/?#]", unquote(login)):
        escaped = unquote(login)  # FFmpeg's RTMP takes them literally
    return Address(
        scheme,
        unquote(user),
        unquote(password) if colon else None,
        place,
        rest,
        shown,
        f"{escaped}@",
    )


def has_scheme(text: str) -> bool:
    """Whether it is a URL.

    Raises:
        UsageError: It is one that cannot be read: see :func:`parse_url`.
    """
    return parse_url(text) is not None


def without_file_scheme(text: str) -> str:
    """Return the path that a ``file:`` URL names; any other text as it is."""
    if not text.lower().startswith("file:"):
        return text
    return url2pathname(urlsplit(text.replace("#", "%23").replace("?", "%3F")).path)


def redact(text: str) -> str:
    """Replace the passwords in URLs and GStreamer pipelines by ``***``."""
    whole = _WHOLE.fullmatch(text)
    if whole and (" ! " not in text or _SCHEME.fullmatch(whole[2])):
        text = whole[1] + _PASSWORD.sub(r"\1***", _hide_password(whole[3]))  # a URL in the URL
        text = _hide_digits(_FIELDS_OF_URL.sub(r"\1***", text))
    else:
        for pattern in _SECRETS:
            text = pattern.sub(r"\1***", text)
    return text if "***" in text or " ! " in text else _MISTYPED.sub(r"\1***", text)


# How likely the text behind an @ is the host: a name is least, an address most; a port adds to it.
_NO_HOST, _FILE, _NAME, _DOMAIN, _ADDRESS = -2, -1, 0, 1, 2

_SCHEME: Final = re.compile("(?i)" + "|".join(SCHEMES))
_WHOLE: Final = re.compile(r"(?s)((?:[\w-]+\s*=\s*)?([A-Za-z][\w+.-]*)://)(.*)")
_PLACE: Final = re.compile(r"(\[[^\s\[\]/@]*\]|[^\s:\[\]/?#@\\]*)(?::(\d*))?")
_AT_PLACE: Final = re.compile(r"@(?=(?:(\[[0-9a-fA-F:.%\w]+\]|[\w.-]+)(?::\d{0,5})?)(?:[/?#\s]|$))")
_IN_PATH: Final = re.compile(r"(?s)/.*(?:[?&][\w.-]+=|://)")  # of a query, or of a URL in a URL
_FILE_NAME: Final = re.compile(
    r"(?i).*\.(?:jpe?g|mjpe?g|png|gif|webp|bmp|mp4|mkv|mov|avi|webm|flv|ts|m3u8|mpd|sdp|cgi|php|"
    r"asp|aspx|html?|h26[45])"
)


def _likelihood(place: str) -> int:
    """Say how likely a text is a host, perhaps with a port."""
    found = _PLACE.fullmatch(place)
    if not found or not found[1].strip("."):
        return _NO_HOST
    host, port = found[1], found[2]
    if host.startswith("[") or host.lower() == "localhost" or _is_ip(host):
        kind = _ADDRESS
    elif _FILE_NAME.fullmatch(host):
        kind = _FILE
    else:
        kind = _DOMAIN if re.search(r"\.[^\W\d]{2,}$", host) else _NAME
    return kind + bool(port)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _split(after: str) -> tuple[str | None, str, str, bool]:
    """Split what follows ``://`` into user:password, host:port, the rest; and whether in doubt."""
    authority = re.match(r"[^/?#]*", after)[0]  # type: ignore[index]  # matches any text
    rest = after[len(authority) :]
    login, at, place = authority.rpartition("@")
    usual = (login if at else None, place, rest)
    likelihood = _likelihood(place)
    # a stream has no fragment that could follow its host, and a colon is followed by a port
    unusual = likelihood == _NO_HOST or rest.startswith("#") or place.endswith(":")
    others = [
        (found.start(), _likelihood(_place_at(after, found.end())))
        for found in _AT_PLACE.finditer(after, len(authority))
        if ":" in after[: found.start()]
        and (unusual or not _IN_PATH.match(after[len(authority) : found.start()]))
    ]
    if not others:
        return *usual, False
    best = max(likelihood for _, likelihood in others)
    starts = [start for start, likelihood in others if likelihood == best]
    if not unusual and likelihood > best:
        return *usual, False
    place = _place_at(after, starts[-1] + 1)
    split = after[: starts[-1]], place, after[starts[-1] + 1 + len(place) :]
    return *split, not unusual or len(starts) > 1


def _place_at(text: str, start: int) -> str:
    return re.compile(r"[^/?#\s]*").match(text, start)[0]  # type: ignore[index]


def _hide_password(after: str) -> str:
    """Replace the password in what follows ``://``."""
    login, place, rest, _ = _split(after)
    if login is None:
        if place.count(":") and not _PLACE.fullmatch(place):
            return f"{place.partition(':')[0]}:***"  # a password that lacks its host
        return after
    user, colon, _ = login.partition(":")
    return f"{user}:***@{place}{rest}" if colon else after


def _hide_digits(text: str) -> str:
    """Replace digits and a slash that may be a password, or else are a port and a path."""
    found = _DIGITS.search(text)
    doubtful = found and _likelihood(_place_at(text, found.end() + 1)) != _FILE
    return _DIGITS.sub(r"\1***", text) if doubtful else text


def _escape(text: str) -> str:
    """Escape what must be in a user name or password, but for what is escaped already."""
    pieces = re.split(r"(%[0-9A-Fa-f]{2})", text)
    return "".join(
        piece if number % 2 else quote(piece, safe="!$&'()*+,;=", errors="surrogateescape")
        for number, piece in enumerate(pieces)
    )


def _fields(stop: str) -> str:
    """Return a pattern of secrets with a name, such as ?token=… and password=…_channel=1.

    One word too many costs a less telling message, one too few a password.

    Args:
        stop: The characters that end a value.
    """
    return (
        r"(?i)((?:(?<![\w.-])(?=[\w.-]*(?:pas|psw|pw|secret|token|key|cred|sig|auth|hmac|jwt))"
        r"[\w.-]++|(?<=[?&])p)[ \t]*=[ \t]*)"
        r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|["'].+"""  # the last one is not closed
        rf"""|(?:\\.|(?!_[a-z]+=[^\s&=]|["'](?:\s|$))[^{stop}])+)"""
    )


_FIELDS_OF_URL: Final = re.compile(_fields("&"))
# digits and a slash that are a password all the same: of what else could be a port and a path
# with an @, only this has a host after it
_DIGITS: Final = re.compile(
    r"""(://[^\s:/?#]*:)\d+/[^\s?#]*(?=@(?:\[[^\s\]]*\]|[\w.-]+)(?::\d+)?(?:[/\s"']|$))"""
)
# user:password@host, even with @, / or # left bare in the password; digits and a slash after the
# colon are a port
_PASSWORD: Final = re.compile(r"(://[^\s:/?#]*:)(?:[^\s/?#]*|(?!\d+/)\S*)(?=@)")
_SECRETS: Final = (_PASSWORD, re.compile(_fields(r"\s&")), _DIGITS)


# What was meant as a URL with a password: spaces in it, slashes and colons that are too many or
# too few, no scheme. Other texts are files, or have a port after the colon.
_MISTYPED: Final = re.compile(
    r"(?is)^((?:[\w-]+\s*=\s*)?"
    r"(?:[\w+.-]+(?:[:;][/\\]*|[/\\]{2,})|(?:rtsps?|rtmps?|https?|udp|tcp|srt|rtp|mms)[/\\])?"
    r"[^\s:/\\?#@\[]*:)(?!//|\d+(?:[/?#]|$)).+(?=@(?:\[[^\]]*\]|[\w.-]+)(?::\d+)?(?:[/?#\s]|$))"
)
