"""From a user's text to the files that it names: patterns, with what is there taken literally."""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import Final

_NUMBER: Final = re.compile(r"%(?:(%)|(0?)([1-9][0-9]*)?d)")


def literal(text: str) -> Path | None:
    """Return what the text names without being a pattern; None: there is no such thing.

    ``~`` is the user's home, where there is no file or folder of that name.

    Raises:
        OSError: It may not be looked at.
    """
    path = Path(text)
    if path.exists() or path.is_symlink():
        return path
    if text.startswith("~"):
        try:
            home = path.expanduser()
        except RuntimeError:
            return None  # there is no such user
        return home if home.exists() else None
    return None


def is_numbered(text: str) -> bool:
    """Whether the text is a pattern with a number, such as ``frame%04d.png``."""
    return any(match[1] is None for match in _NUMBER.finditer(text))


def matches(text: str) -> list[Path]:
    """Return the files and folders that match a pattern, in no particular order.

    ``*``, ``?``, ``[…]`` and ``**`` as in a shell; ``%d`` and ``%04d`` for a number and ``%%``
    for a percent sign as in ffmpeg. A folder that is there is meant, whatever is in its name;
    and brackets that match nothing as a pattern are brackets.

    Raises:
        OSError: A folder may not be read.
    """
    if text.startswith("~"):
        text = str(Path(text).expanduser()) if text[1:2] in ("", "/") else text
    if is_numbered(text):
        return _numbered(text)
    for pattern in (text, text.replace("[", "[[]")):
        found = glob.glob(_keeping_folders(pattern), recursive=True)  # noqa: PTH207
        if found:  # Path.glob takes no absolute patterns
            return [Path(name) for name in found]
    return []


def _keeping_folders(pattern: str) -> str:
    """Escape the folders of a pattern that are there under just this name."""
    begin = Path()
    parts = []
    for part in Path(pattern).parts:
        begin = begin / part
        parts.append(glob.escape(part) if begin.exists() else part)
    return str(Path(*parts)) if parts else pattern


def _numbered(text: str) -> list[Path]:
    expression, wild, end = "", "", 0
    for match in _NUMBER.finditer(text):
        between = text[end : match.start()]
        end = match.end()
        number = "%"
        if match[1] is None:
            width = int(match[3] or 1)
            # as printf writes it: leading zeros up to the width, and none beyond it
            number = rf"(?:[0-9]{{{width}}}|[1-9][0-9]{{{width},}})"
            if match[3] and not match[2]:
                number = rf"(?= *[0-9])[ 0-9]{{{width}}}|[1-9][0-9]{{{width},}}"
                number = f"(?:{number})"
        expression += re.escape(between) + number
        wild += glob.escape(between) + ("%" if match[1] else "*")
    expression += re.escape(text[end:])
    wild += glob.escape(text[end:])
    found = glob.glob(wild)  # noqa: PTH207
    return [Path(name) for name in found if re.fullmatch(expression, name, re.DOTALL)]
