"""What a user's text for a source says: its kind, and what of it may be shown."""

from __future__ import annotations

import re
from typing import Final

from salstream.runtime.errors import UsageError

SCHEMES: Final = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "srt")


def has_scheme(text: str) -> bool:
    """Whether it is a URL.

    Raises:
        UsageError: It is one, of a scheme that is not known.
    """
    if " ! " in text:
        return False  # a GStreamer pipeline, perhaps with a URL in it
    scheme, found, _ = text.partition("://")
    if found and scheme.lower() not in SCHEMES:
        known = ", ".join(f"{known}://" for known in SCHEMES)
        raise UsageError(f"{redact(text)} cannot be opened: expected one of {known}")
    return bool(found)


def redact(text: str) -> str:
    """Replace the passwords in URLs and GStreamer pipelines by ``***``."""
    for pattern in _SECRETS:
        text = pattern.sub(r"\1***", text)
    return text if "***" in text or " ! " in text else _MISTYPED.sub(r"\1***", text)


_SECRETS: Final = (
    # user:password@host, even with @, / or # left bare in the password; digits and a slash
    # after the colon are a port
    re.compile(r"(://[^\s:/?#]*:)(?:[^\s/?#]*|(?!\d+/)\S*)(?=@)"),
    # ?token=…, user=me_password=…_channel=1, and user-pw="…" in a pipeline. One word too many
    # costs a less telling message, one too few a password.
    re.compile(
        r"(?i)((?:(?<![\w.-])(?=[\w.-]*(?:pas|psw|pw|secret|token|key|cred|sig|auth|hmac|jwt))"
        r"[\w.-]++|(?<=[?&])p)[ \t]*=[ \t]*)"
        r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|["'].+"""  # the last one is not closed
        r"""|(?:\\.|(?!_[a-z]+=[^\s&=]|["'](?:\s|$))[^\s&])+)"""
    ),
    # digits and a slash that are a password all the same: of what else could be a port and a
    # path with an @, only this has a host after it
    re.compile(
        r"""(://[^\s:/?#]*:)\d+/[^\s?#]*(?=@(?:\[[^\s\]]*\]|[\w.-]+)(?::\d+)?(?:[/\s"']|$))"""
    ),
)


# What was meant as a URL with a password: spaces in it, slashes and colons that are too many or
# too few, no scheme. Other texts are files, or have a port after the colon.
_MISTYPED: Final = re.compile(
    r"(?is)^((?:[\w-]+\s*=\s*)?"
    r"(?:[\w+.-]+(?:[:;][/\\]*|[/\\]{2,})|(?:rtsps?|rtmps?|https?|udp|tcp|srt|rtp|mms)[/\\])?"
    r"[^\s:/\\?#@\[]*:)(?!//|\d+(?:[/?#]|$)).+(?=@(?:\[[^\]]*\]|[\w.-]+)(?::\d+)?(?:[/?#\s]|$))"
)
