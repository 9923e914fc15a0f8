"""Which cameras there are: from the command line and from a file with one per line."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from salstream.runtime.errors import UsageError
from salstream.runtime.live.source import is_live
from salstream.runtime.sources import redact

_NAMED: Final = re.compile(r"([A-Za-z0-9_-]+)\s*=\s*(\S.*)")
_MEANT_NAME: Final = re.compile(r"[^=:/!?&]*=.*|[^=:/!?&]+\s\S+://.*")


def read_cameras(sources: Sequence[str], listing: Path | None = None) -> dict[str, str]:
    """Return sources by the camera's name, in their order.

    Each is ``name=source``, or a source alone, which is named ``camera1``, ``camera2``, … by its
    place. A name is made of letters, digits, ``-`` and ``_``.

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
            f"there is no camera{where}: give at least one source, such as rtsp://host/path"
        )
    cameras: dict[str, str] = {}
    for number, (where, text) in enumerate(entries, 1):
        name, source = _parse(where, text, number, from_file=bool(where))
        if name in cameras:
            raise UsageError(
                f"{where}two cameras have the name {name!r}: give one of them another, as in "
                f"{name}-2=SOURCE"
            )
        cameras[name] = source
    for name, source in cameras.items() if len(cameras) > 1 else ():
        if not (is_live(source) or glob.has_magic(source) or Path(source).exists()):
            raise UsageError(f"{name}: {redact(source)} does not exist; nothing was started")
    return cameras


def _parse(where: str, text: str, number: int, *, from_file: bool) -> tuple[str, str]:
    name, source = f"camera{number}", text
    if named := _NAMED.fullmatch(text):
        if from_file or not Path(text).exists():
            name, source = named[1], named[2]
    elif (from_file or "://" in text) and _MEANT_NAME.fullmatch(text) and " ! " not in text:
        raise UsageError(
            f"{where}{redact(text)!r} is not a camera: expected name = source, with a name of "
            "letters, digits, - and _"
        )
    try:
        known = is_live(source)
    except UsageError as error:
        raise UsageError(f"{where}{error}") from error
    if from_file and not known and not Path(source).exists():
        raise UsageError(
            f"{where}{redact(source)!r} is not a camera: expected a URL, a camera number, a "
            "device, a pipeline or a file that is there"
        )
    return name, source
