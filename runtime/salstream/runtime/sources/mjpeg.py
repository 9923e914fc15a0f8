"""JPEG pictures over HTTP: multipart, one after the other, or one for each request.

Senders of motion JPEG get boundaries, lengths and line ends wrong in many ways. None of these is
needed: a JPEG's own markers say where it begins and ends.
"""

from __future__ import annotations

import errno
import queue
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException, HTTPResponse
from typing import Final, cast
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import (
    HTTPBasicAuthHandler,
    HTTPDigestAuthHandler,
    HTTPPasswordMgrWithDefaultRealm,
    HTTPSHandler,
    Request,
    build_opener,
)

import av.error

from salstream.runtime.errors import SalstreamError
from salstream.runtime.sources.address import Address

# A larger picture is refused before it takes memory.
MAX_BYTES: Final = 64 << 20
# A camera that gives one picture for each request is asked at most so often.
PERIOD_S: Final = 0.2

_CHUNK: Final = 1 << 16
_BOUNDARY: Final = b"salstream"
_NO_PICTURE: Final = b"\xff\xd8\xff\xd9"  # which no decoder takes

_PICTURES: Final = re.compile(
    r"multipart/.*|image/p?jpe?g|(?:video|image)/(?:x-)?(?:motion-?)?m?jpe?g"
)
_LOOKS_LIKE: Final = re.compile(rb"(?is)\xff\xd8\xff|\s*--.{0,500}content-type:\s*image/jpe?g")
_PLAYLIST: Final = re.compile(rb"\s*(?:\xef\xbb\xbf)?(?:#EXTM3U|<\?xml|<MPD)")
_HTTP_ERRORS: Final = {
    401: av.error.HTTPUnauthorizedError,
    403: av.error.HTTPForbiddenError,
    404: av.error.HTTPNotFoundError,
}


class Answer:
    """What a server sends; its body is read like a file, each part as soon as it comes.

    Attributes:
        kind: The content type, without parameters.
        multipart: Whether it says that it has several parts.
        sends_pictures: Whether it is JPEG, as it says itself or as it begins.
        is_stream: Whether it is neither a file nor a list of files, and says where it ends.
    """

    def __init__(self, response: HTTPResponse, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._response = response
        head = response.peek(1024)
        self.kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        self.multipart = self.kind.startswith("multipart/")
        says, looks = _PICTURES.fullmatch(self.kind), _LOOKS_LIKE.match(head)
        self.sends_pictures = bool(says or looks)
        closes = "close" in response.headers.get("Connection", "").lower()
        unlimited = response.length is None
        self.is_stream = unlimited and (response.chunked or closes) and not _PLAYLIST.match(head)
        # an end of the connection is the end only where that was said
        self._says_end = response.chunked or closes or not unlimited

    def read(self, size: int) -> bytes:
        """Return at most so many bytes; none: that was all."""
        try:
            data = self._response.read1(size)
        except HTTPException:
            data, self._says_end = b"", False
        if not data and not self._says_end:
            raise ConnectionResetError(errno.ECONNRESET, "the connection was closed")
        return data

    def close(self) -> None:
        """Let go of the connection."""
        self._response.close()


def request(address: Address, timeout_s: float) -> Answer | None:
    """Ask an HTTP server, and wait for its answer for so long altogether.

    Returns:
        Its answer; None: nothing that can be understood, so that FFmpeg may try.

    Raises:
        OSError: It is not there, or silent.
        av.FFmpegError: It refuses, in FFmpeg's terms.
    """
    # a socket's own timeout begins anew with each byte
    came: queue.SimpleQueue[Answer | Exception | None] = queue.SimpleQueue()
    late = threading.Event()

    def ask() -> None:
        try:
            answer: Answer | Exception | None = _request(address, timeout_s)
        except Exception as error:  # whatever it is, the caller gets it
            answer = error
        came.put(answer)
        if late.is_set() and isinstance(answer, Answer):
            answer.close()

    threading.Thread(target=ask, name="salstream-request", daemon=True).start()
    try:
        answer = came.get(timeout=timeout_s)
    except queue.Empty:
        late.set()
        answer = TimeoutError(errno.ETIMEDOUT, "no answer")
    if isinstance(answer, Exception):
        raise answer
    return answer


def _request(address: Address, timeout_s: float) -> Answer | None:
    passwords = HTTPPasswordMgrWithDefaultRealm()
    if address.user is not None:
        server = f"{address.scheme}://{address.place}/"
        passwords.add_password(None, server, address.user, address.password or "")
    # as FFmpeg does: cameras sign their certificates themselves
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    opener = build_opener(
        HTTPBasicAuthHandler(passwords),
        HTTPDigestAuthHandler(passwords),
        HTTPSHandler(context=trusting),
    )
    url = quote(address.bare_url, safe="!#$%&'()*+,/:;=?@[]~|{}")
    try:
        response = opener.open(Request(url, headers={"User-Agent": "salstream"}), timeout=timeout_s)
        return Answer(cast("HTTPResponse", response), timeout_s)
    except HTTPError as error:
        error.close()
        kind = _HTTP_ERRORS.get(error.code)
        failure: Exception = (
            kind(error.code, str(error.reason))
            if kind
            else OSError(errno.EIO, f"{error.code} {error.reason}")
        )
    except URLError as error:
        if isinstance(error.reason, ssl.SSLError) or not isinstance(error.reason, OSError):
            return None
        failure = error.reason
    except (HTTPException, ssl.SSLError, ValueError):
        return None  # no HTTP, or a way to log in that urllib does not know
    raise failure


class JpegStream:
    """The JPEG pictures of a server, read like a file: as multipart that has no faults.

    Args:
        answer: The server's first answer.
        ask: Requests the next answer, for servers that send one picture per request.
        name: For people.

    Raises:
        SalstreamError: When read: it sends no picture, or one that is too large.
        OSError: When read: the connection breaks, or no picture comes in time.
    """

    def __init__(self, answer: Answer, ask: Callable[[], Answer | None], name: str) -> None:
        self._answer = answer
        self._ask = ask
        self._name = name
        self._parts = self._read_parts()
        self._part = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Return at most so many bytes, as soon as there is a picture; none: that was all."""
        if not self._part:
            self._part = memoryview(next(self._parts, b""))
        data, self._part = self._part[:size], self._part[size:]
        return bytes(data)

    def close(self) -> None:
        """Let go of the connection."""
        self._answer.close()

    def _read_parts(self) -> Iterator[bytes]:
        for picture in self._read_pictures():
            head = b"--%s\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
            yield head % (_BOUNDARY, len(picture)) + picture + b"\r\n"

    def _read_pictures(self) -> Iterator[bytes]:
        asked_s = time.monotonic()
        while True:
            count = 0
            try:
                for picture in self._find(self._answer):
                    yield picture
                    count += 1
            except ConnectionResetError:
                if count > 1 or (count and self._answer.multipart):
                    raise
            self._answer.close()
            if not count:
                raise SalstreamError(
                    f"{self._name} sends no JPEG picture, but says that it is "
                    f"{self._answer.kind or 'one'}: check path and sender"
                )
            if count > 1 or self._answer.multipart:
                return
            period_s = min(PERIOD_S, self._answer.timeout_s / 2)
            time.sleep(max(0.0, asked_s + period_s - time.monotonic()))
            asked_s = time.monotonic()
            answer = self._ask()
            if answer is None:
                raise ConnectionResetError(errno.ECONNRESET, "no answer in HTTP")
            self._answer = answer

    def _find(self, answer: Answer) -> Iterator[bytes]:
        """Yield the pictures in an answer; what lies between them says nothing."""
        finder = JpegFinder()
        last_s = time.monotonic()
        while data := answer.read(_CHUNK):
            for picture in finder.feed(data):
                yield picture
                last_s = time.monotonic()
            if finder.held > MAX_BYTES:
                raise SalstreamError(
                    f"{self._name} has a picture of more than {MAX_BYTES >> 20} MB: make the "
                    "camera's pictures smaller"
                )
            if time.monotonic() - last_s > answer.timeout_s:
                raise TimeoutError(errno.ETIMEDOUT, "no picture")


class JpegFinder:
    """Finds whole JPEG pictures in bytes that come in pieces, by their markers.

    Segments are skipped by their lengths, so that a thumbnail in one is no picture. A picture
    that is cut off comes as one that cannot be decoded.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._at = 0  # in the picture that begins the data; 0: none begins
        self._in_scan = False

    @property
    def held(self) -> int:
        """Bytes of a picture that is not whole yet."""
        return len(self._data)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take more bytes and yield the pictures that are whole with them."""
        self._data += data
        while self._begin():
            end = self._end()
            if end is None:
                return
            whole = self._data[end - 2 : end] == b"\xff\xd9"
            yield bytes(self._data[:end]) if whole else _NO_PICTURE
            del self._data[:end]
            self._at = 0

    def _begin(self) -> bool:
        """Let the data begin with a picture, if there is one."""
        if not self._at:
            start = self._data.find(b"\xff\xd8\xff")
            del self._data[: start if start >= 0 else max(0, len(self._data) - 2)]
            if start < 0:
                return False
            self._at, self._in_scan = 2, False
        return True

    def _end(self) -> int | None:
        """Return where the picture ends, or is cut off; None: not yet."""
        data = self._data
        while True:
            if self._in_scan:
                found = _MARKER.search(data, self._at)
                self._at = found.start() if found else max(self._at, len(data) - 1)
                self._in_scan = not found
            if self._in_scan or len(data) < self._at + 2:
                return None
            mark, code = data[self._at : self._at + 2]
            if mark == code == _FILL:
                self._at += 1
                continue
            if code == _END:
                return self._at + 2
            if mark != _FILL or code < _FIRST or code in _ALONE:
                return self._at
            if len(data) < self._at + 4:
                return None
            length = int.from_bytes(data[self._at + 2 : self._at + 4])
            if len(data) < self._at + 2 + length:
                return None
            self._at += 2 + length
            self._in_scan = code == _SCAN


_FILL: Final = 0xFF  # before a marker, once or more often
_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_FIRST: Final = 0xC0
_ALONE: Final = range(0xD0, 0xD9)  # restarts, which stand in scans, and the begin of a picture
_END: Final = 0xD9
_SCAN: Final = 0xDA
