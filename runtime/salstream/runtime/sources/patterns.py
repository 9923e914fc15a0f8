"""From a user's text to the files that it names: patterns, with what is there taken literally."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path
from typing import Final

_NUMBER: Final = re.compile(r"%(?:(%)|0?([0-9]*)d)")


def literal(text: str) -> Path | None:
    """Return what the text names without being a pattern; None: there is no such thing.

    ``~`` is the user's home, where there is no file or folder of that name.

    Raises:
        OSError: It may not be looked at.
    """
    for path in (Path(text), _at_home(text)):
        if path.exists() or path.is_symlink():
            return path
    return None


def is_numbered(text: str) -> bool:
    """Whether the text is a pattern with a number, such as ``frame%04d.png``."""
    return any(match[1] is None for match in _NUMBER.finditer(_split(text)[1]))


def is_pattern(text: str) -> bool:
    """Whether the text can match files of other names."""
    return is_numbered(text) or glob.has_magic(_split(text)[1])


def matches(text: str) -> list[Path]:
    """Return the files and folders that match a pattern, in no particular order.

    ``*``, ``?``, ``[…]`` and ``**`` as in a shell; ``%d`` and ``%04d`` for a number and ``%%``
    for a percent sign as in ffmpeg. A folder that is there is meant, whatever is in its name;
    and brackets that match nothing as a pattern are brackets.

    Raises:
        OSError: A folder may not be read.
    """
    folder, rest = _split(text)
    begin = glob.escape(folder)
    if is_numbered(text):
        return _numbered(folder, rest)
    for pattern in (rest, rest.replace("[", "[[]")):
        # Path.glob takes no absolute patterns
        found = glob.glob(os.path.join(begin, pattern), recursive=True)  # noqa: PTH118, PTH207
        if found:
            return [Path(name) for name in found]
    return []


def _at_home(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # there is no such user
        return Path(text)


def _split(text: str) -> tuple[str, str]:
    """Split a pattern into the folder that is there under just this name, and the rest."""
    parts = _at_home(text).parts
    known = 0
    while known < len(parts) and os.path.exists(os.path.join(*parts[: known + 1])):  # noqa: PTH110, PTH118
        known += 1
    folder, rest = parts[:known], parts[known:]
    return os.path.join("", *folder), os.path.join("", *rest)  # noqa: PTH118


def _numbered(folder: str, rest: str) -> list[Path]:
    expression, wild, end = "", "", 0
    for match in _NUMBER.finditer(rest):
        between = rest[end : match.start()]
        end = match.end()
        expression += re.escape(between)
        wild += glob.escape(between)
        if match[1]:
            expression, wild = expression + "%", wild + "%"
        else:  # zeros up to the width, and none beyond it
            width = int(match[2] or 1)
            expression += rf"(?:[0-9]{{{width}}}|[1-9][0-9]{{{width},}})"
            wild += "*"
    expression += re.escape(rest[end:])
    wild += glob.escape(rest[end:])
    found = glob.glob(wild, root_dir=folder or None)  # noqa: PTH207
    return [Path(folder, name) for name in found if re.fullmatch(expression, name)]
