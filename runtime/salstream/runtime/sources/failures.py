"""What is said where a source cannot be opened, and whether trying again may help."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import av
import av.error

from salstream.runtime.errors import SalstreamError, UnusableSource
from salstream.runtime.sources.address import redact
from salstream.runtime.sources.containers import hint_for


def failure(
    error: Exception,
    name: str,
    scheme: str | None,
    timeout_s: float,
    asked_s: float,
    path: Path | None = None,
) -> SalstreamError:
    """Return what to raise where a source cannot be opened."""
    if path is not None and (hint := hint_for(path)):
        return SalstreamError(f"{name} cannot be opened as a video: {hint}")
    waited_s = time.monotonic() - asked_s
    unusable = isinstance(error, _UNUSABLE) and not is_silence(error, timeout_s, waited_s)
    if scheme in ("rtsp", "rtsps") and isinstance(error, av.error.InvalidDataError):
        unusable = False  # a camera that is booting accepts and hangs up
    kind = UnusableSource if unusable else SalstreamError
    return kind(f"{redact(name)} {_why(error, scheme, timeout_s, waited_s)}")


def _why(error: Exception, scheme: str | None, timeout_s: float, waited_s: float) -> str:
    """Say in words for people what ffmpeg's error means, and what to do."""
    if scheme is None:
        return "cannot be opened as a video: it is damaged, cut off or no video at all"
    if is_silence(error, timeout_s, waited_s):
        return (
            f"sent nothing for {timeout_s:g} s: check address, port and network, and that the "
            "sender is running"
        )
    for kind, text in _NETWORK_ERRORS.items():
        if isinstance(error, kind):
            return text.format(scheme=scheme, timeout_s=timeout_s)
    return (
        f"cannot be reached ({text_of(error)}): check address and network, and that the sender is "
        "running"
    )


_NETWORK_ERRORS: Final[Mapping[type[Exception], str]] = {
    av.error.HTTPUnauthorizedError: (
        "asks for another user name or password (401): give them as "
        "{scheme}://user:password@host/path"
    ),
    av.error.HTTPForbiddenError: "forbids it (403): check what this user may see",
    av.error.HTTPNotFoundError: "has nothing at this path (404): check the path",
    ConnectionRefusedError: (
        "refused the connection: check address and port, and that the sender is running"
    ),
    av.error.InvalidDataError: "answered with something that is not a video: check the path",
    av.error.EOFError: "ended before its first frame: check the path",
    av.error.ProtocolNotFoundError: "cannot be opened: this PyAV was built without {scheme}",
}


# What the same sender will answer again.
_UNUSABLE: Final = (
    av.error.HTTPUnauthorizedError,
    av.error.HTTPForbiddenError,
    av.error.InvalidDataError,
    av.error.ProtocolNotFoundError,
)


def is_silence(error: Exception, timeout_s: float, waited_s: float) -> bool:
    """Whether a network source said nothing for too long."""
    # some protocols give the wait that PyAV interrupted another name
    return isinstance(error, av.error.ExitError | TimeoutError) or waited_s >= timeout_s


def text_of(error: Exception) -> str:
    """Return the system's or ffmpeg's words for an error."""
    return str(getattr(error, "strerror", None) or type(error).__name__).lower()
