"""Files written whole or not at all."""

from __future__ import annotations

import tempfile
from pathlib import Path

from salstream.runtime.errors import SalstreamError


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file; one that is there already is replaced in one step.

    Raises:
        SalstreamError: It cannot be written; what was there is as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".salstream-") as folder:
            part = Path(folder) / path.name
            part.write_bytes(content)
            part.replace(path)
    except OSError as error:
        raise SalstreamError(f"cannot write {path}: {error.strerror}") from error


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, as :func:`write_bytes` does."""
    write_bytes(path, text.encode())
