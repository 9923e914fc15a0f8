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
    only one reading is likely; ``%`` and two hexadecimal digits are an escape already. The host
    is the first that there can be, and an ``@`` behind it must be one that paths and queries
    have; else the URL is refused.

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
    reading, doubtful = _read(scheme, after)
    if doubtful:
        raise UsageError(
            f"{shown} can be read in two ways: write # / ? @ in a user name or password as "
            "%23 %2F %3F %40, and @ in a path or query as %40"
        )
    login, place, rest = reading.split(after) if reading else (None, "", "")
    listens = scheme in ("udp", "tcp", "srt", "rtmp")
    host = place.partition(":")[0]
    if not reading or after.startswith("/") or not (host or listens):
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
    """Replace the passwords in URLs and GStreamer pipelines by ``***``.

    Where it is in doubt what the password is, more is replaced.
    """
    whole = _WHOLE.fullmatch(text)
    if whole and (" ! " not in text or _SCHEME.fullmatch(whole[1])):
        return _FIELDS_OF_URL.sub(r"\1***", _hide_passwords(text, whole=True))
    text = _hide_passwords(_FIELDS.sub(r"\1***", text), whole=False)
    return text if "***" in text or " ! " in text else _MISTYPED.sub(r"\1***", text)


_SCHEME: Final = re.compile("(?i)" + "|".join(SCHEMES))
_WHOLE: Final = re.compile(r"(?s)(?:[\w-]+\s*=\s*)?([A-Za-z][\w+.-]*)://.*")
# no password has the last one's: there the next URL begins, in a query or a pipeline
_ANY_URL: Final = re.compile(r"([A-Za-z][\w+.-]*)://")
_NEXT_URL: Final = re.compile(r"(?i)(?:rtsp|rtmp|https?|udp|tcp|srt|rtp|mms|ftp)[a-z]?://")
_PLACE: Final = (
    r"(?s)(?:^|@)(?=(?P<place>(?P<host>\[[^\s\[\]/@]+\]|[^\s:\[\]/?#@\\]+)?"
    r"(?::(?P<port>\d*))?)(?P<end>[{}]|\Z))"
)
_PLACE_OF_URL: Final = re.compile(_PLACE.format("/?#"))
_PLACE_IN_TEXT: Final = re.compile(_PLACE.format(r"/?#\s\"'"))

# What stands between a host and an @ that belongs to the path or the query
_PATH: Final = re.compile(r"/[\w./:~+%,;=!$&'()*-]*")
_QUERY: Final = re.compile(r"(?:/[\w./:~+%,-]*)?[?/][\w.-]+=[^\s?#]*")
# after host:digits, which may also be a user and the beginning of a password
_QUERY_AFTER_PORT: Final = re.compile(r"(?:/[\w./:~+%,-]*)?[?/][A-Za-z_]{3,}=\w[^\s?#]*")
_URL_INSIDE: Final = re.compile(rf"(?s)[/?][^\s#@]*?{_NEXT_URL.pattern.replace('(?i)', '(?i:')}).*")
_MAIL_DOMAIN: Final = re.compile(r"(?s)[^\s/?#:]+(?:[&#].*)?")  # what follows its @, in a query
_ESCAPED: Final = re.compile(r"[^:/?#@]*:(?=.*%)(?:[\w.~-]|%(?:2[0-9A-F]|3[A-F]|40|5[B-E]))*")
_DOMAIN: Final = re.compile(r".+\.[^\W\d]{2,}")
_FILE_NAME: Final = re.compile(
    r"(?i).*\.(?:jpe?g|mjpe?g|png|gif|webp|bmp|mp4|mkv|mov|avi|webm|flv|ts|m3u8|mpd|sdp|cgi|php|"
    r"asp|aspx|html?|h26[45])"
)
_USUAL_PORTS: Final = {"http": ("80", "8080"), "https": ("443", "8443"), "rtsp": ("554", "8554")}


@dataclass(frozen=True, slots=True)
class _Reading:
    """One way to read what follows ``://``.

    Attributes:
        at: Where the @ before the host is; -1: there is none.
        place: Host and port.
        host: May be empty.
        port: None: there is none; empty: only its colon is there.
        end: Where the place ends.
        likely: Whether it counts where there is another: it has a host, and no bare colon or ``#``
            makes a name without an @ look like the start of a login.
    """

    at: int
    place: str
    host: str
    port: str | None
    end: int
    likely: bool

    def split(self, after: str) -> tuple[str | None, str, str]:
        """Return user:password, host:port and the rest."""
        return (after[: self.at] if self.at >= 0 else None), self.place, after[self.end :]


def _readings(after: str, pattern: re.Pattern[str]) -> list[_Reading]:
    """Return the ways to read what follows ``://``, by the place of the host."""
    readings = []
    for found in pattern.finditer(after):
        at = found.end() - 1
        host, port = found["host"] or "", found["port"]
        if at >= 0 and not (":" in after[:at] or re.fullmatch(r"[^/?#]*", after[:at])):
            continue  # no login is there: neither a password nor a user name alone
        likely = bool(host) if at >= 0 else bool(port or (host and port is None))
        likely = likely and not (at < 0 and found["end"] == "#")
        readings.append(_Reading(at, found["place"], host, port, found.end("place"), likely))
    return readings


def _read(
    scheme: str, after: str, pattern: re.Pattern[str] = _PLACE_OF_URL
) -> tuple[_Reading | None, bool]:
    """Return the first reading of what follows ``://``, and whether another may be meant."""
    readings = _readings(after, pattern)
    for number, first in enumerate(readings):
        others = [other for other in readings[number + 1 :] if other.likely]
        clean = all(_in_rest(scheme, after, first, other) for other in others)
        if first.likely or (clean and (first.at < 0 or not others)):
            return first, not clean
    return None, False


def _in_rest(scheme: str, after: str, first: _Reading, other: _Reading) -> bool:
    """Whether the @ of another reading is one that paths and queries have."""
    between, behind = after[first.end : other.at], after[other.at + 1 :]
    if not between.startswith(("/", "?")):
        return False
    login, domain = after[: max(first.at, 0)], bool(_DOMAIN.fullmatch(first.host))
    named = re.match(r"[^\W\d][\w-]", first.host)
    query = _QUERY_AFTER_PORT if first.at < 0 and first.port is not None else _QUERY
    in_path, ends = bool(_PATH.fullmatch(between)), not after[other.end :].startswith("/")
    return bool(
        # a host for sure: no user name and no password has such a part
        _is_address(first.host)
        or (first.at >= 0 and named and first.port in ("554", "8080", "8443", "8554"))
        # who escapes these does so throughout; and what is redacted stays as it is
        or (named and _ESCAPED.fullmatch(login))
        or login.endswith(":***")
        or _URL_INSIDE.fullmatch(between)
        or (query.fullmatch(between) and _MAIL_DOMAIN.fullmatch(behind))
        or (in_path and ends and _FILE_NAME.fullmatch(other.place))  # such as path@2x.mjpg
        # such as tv.example/@channel/live
        or (domain and between == "/" and first.port is None is other.port)
        # the first colon is in the path, so that it begins no password
        or (domain and in_path and ":" not in after[: first.end])
        # such as http://host:8080/live@door
        or (first.at < 0 and in_path and ends and _is_usual(scheme, first, other))
    )


def _is_usual(scheme: str, first: _Reading, other: _Reading) -> bool:
    usual = first.port in _USUAL_PORTS.get(scheme, ())
    return usual and bool(re.fullmatch(r"\w+", other.place))


def _is_address(host: str) -> bool:
    """Whether a host is an IP address or localhost."""
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return host.lower() == "localhost"
    return True


def _hide_passwords(text: str, *, whole: bool) -> str:
    """Replace the passwords in a URL, if it is the whole text, or in all that a text has."""
    pieces, position = [], 0
    while found := _ANY_URL.search(text, position):
        following = _NEXT_URL.search(text, found.end())
        stop = following.start() if following else len(text)
        hidden = _hide_password(found[1].lower(), text[found.end() : stop], whole=whole)
        pieces += [text[position : found.end()], hidden]
        position = stop
    return "".join([*pieces, text[position:]])


def _hide_password(scheme: str, after: str, *, whole: bool) -> str:
    """Replace what may be the password in what follows ``://``."""
    pattern = _PLACE_OF_URL if whole else _PLACE_IN_TEXT
    reading, doubtful = _read(scheme, after, pattern)
    if reading and doubtful:
        at = max(other.at for other in _readings(after, pattern) if other.likely)
    else:
        at = reading.at if reading else after.rfind("@")
    user, colon, _ = after[: max(at, 0)].partition(":")
    if colon and (doubtful or not reading):  # it may as well end in a query, in a named secret
        fields = _FIELDS_OF_URL if whole else _FIELDS
        ends = [found.end() for found in fields.finditer(after) if found.start() < at]
        return f"{user}:***{after[max([at, *ends]) :]}"
    if colon:
        return f"{user}:***{after[at:]}"
    lacks_host = None if reading else re.match(r"[^\s/?#@]*?:", after)
    if not lacks_host:
        return after
    return lacks_host[0] + "***" + ("" if whole else re.sub(r"^\S*", "", after))


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
_FIELDS: Final = re.compile(_fields(r"\s&"))


# What was meant as a URL with a password: spaces in it, slashes and colons that are too many or
# too few, no scheme. Other texts are files, or have a port after the colon.
_MISTYPED: Final = re.compile(
    r"(?is)^((?:[\w-]+\s*=\s*)?"
    r"(?:[\w+.-]+(?:[:;][/\\]*|[/\\]{2,})|(?:rtsps?|rtmps?|https?|udp|tcp|srt|rtp|mms)[/\\])?"
    r"[^\s:/\\?#@\[]*:)(?!//).+(?=@(?:\[[^\]]*\]|[\w.-]+)(?::\d+)?(?:[/?#\s]|$))"
)
