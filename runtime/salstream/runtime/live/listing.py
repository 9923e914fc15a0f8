"""Which cameras there are: from the command line and from a file with one per line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from salstream.runtime.errors import UsageError
from salstream.runtime.live.source import is_live
from salstream.runtime.sources.address import redact, without_file_scheme
from salstream.runtime.sources.images import is_picture, natural_order
from salstream.runtime.sources.patterns import literal, matches
from salstream.runtime.sources.pictures import listed

_NAMED: Final = re.compile(r"([A-Za-z0-9_-]+)\s*=\s*(\S.*)")
_MEANT_NAME: Final = re.compile(r"[^=:/!?&]*=.*|[^=:/!?&]+\s\S+://.*")


def read_cameras(sources: Sequence[str], listing: Path | None = None) -> dict[str, str | list[str]]:
    """Return sources by the camera's name, in their order.

    Each is ``name=source``, or a source alone, which is named ``camera1``, ``camera2``, … by its
    place. A name is made of letters, digits, ``-`` and ``_``. Several pictures, as of a pattern
    without quotes, are one source: a list of files in natural order.

    Args:
        sources: From the command line.
        listing: A file with one per line; what follows a ``#`` at the start or after a space
            says nothing.

    Raises:
        UsageError: There is none, two have the same name, or one cannot be read: it is said where.
    """
    entries = [("", text) for text in sources]
    if listing is not None:
        try:
            lines = listing.read_text("utf-8-sig").splitlines()
        except OSError as error:
            raise UsageError(f"{listing} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"{listing} is no list of cameras: it is not text") from error
        entries += [
            (f"{listing}, line {number}: ", said)
            for number, line in enumerate(lines, 1)
            if (said := re.split(r"(?:^|\s)#", line)[0].strip())
        ]
    if not entries:
        where = "" if listing is None else f" in {listing}"
        raise UsageError(
            f"there is no source{where}: give at least one, such as video.mp4 or rtsp://host/path"
        )
    if listing is None and (pictures := _pictures(sources)):
        return {"camera1": pictures}
    cameras: dict[str, str | list[str]] = {}
    for number, (where, text) in enumerate(entries, 1):
        name, parsed = _parse(where, text, number, from_file=bool(where))
        if name in cameras:
            raise UsageError(
                f"{where}two cameras have the name {name!r}: give one of them another, as in "
                f"{name}-2=SOURCE"
            )
        cameras[name] = parsed
    for name, source in cameras.items() if len(cameras) > 1 else ():
        if not (is_live(source) or _is_there(str(source))):
            raise UsageError(f"{name}: {redact(str(source))} does not exist; nothing was started")
    return cameras


def _pictures(sources: Sequence[str]) -> list[str]:
    """Return the pictures that all of several sources are; none if there is another source.

    Raises:
        UsageError: Pictures and other files are mixed.
    """
    paths = [Path(source) for source in sources]
    try:
        if len(paths) < 2 or not all(path.exists() for path in paths):
            return []
        pictures = [path for path in paths if path.is_file() and is_picture(path)]
    except OSError:
        return []
    others = [str(path) for path in paths if path not in set(pictures)]
    if pictures and others:
        raise UsageError(
            f"several pictures are one source, and {listed(others)} cannot be part of it: give "
            f"the pictures alone, as in '{pictures[0].parent}/*{pictures[0].suffix}', and run all "
            "others one after the other"
        )
    return [str(path) for path in sorted(set(pictures), key=natural_order)]


def _is_there(source: str) -> bool:
    try:
        return literal(source) is not None or bool(matches(source))
    except (OSError, ValueError):
        return False


def _parse(where: str, text: str, number: int, *, from_file: bool) -> tuple[str, str]:
    name, source = f"camera{number}", text
    if named := _NAMED.fullmatch(text):
        if from_file or not _is_there(text):
            name, source = named[1], named[2]
    elif (from_file or "://" in text) and _MEANT_NAME.fullmatch(text) and " ! " not in text:
        raise UsageError(
            f"{where}{redact(text)!r} is not a camera: expected name = source, with a name of "
            "letters, digits, - and _"
        )
    source = without_file_scheme(source)
    try:
        known = is_live(source)
    except UsageError as error:
        raise UsageError(f"{where}{error}") from error
    if from_file and not known and not _is_there(source):
        raise UsageError(
            f"{where}{redact(source)!r} is not a camera: expected a URL, a camera number, a "
            "device, a pipeline or a file that is there"
        )
    return name, source
