"""Engines on disk: an engine and its sidecar appear together, and a cache keeps them.

Several processes may build at once, and each may be killed at any moment.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import logging
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import platformdirs
from filelock import FileLock, Timeout

from salstream.runtime.errors import SalstreamError
from salstream.runtime.sidecar import Sidecar, read_engine, sidecar_path

# Writing takes seconds: a temporary file this old is nobody's any more.
LEFTOVER_S: Final = 3600.0

logger = logging.getLogger("salstream")


def write_engine(path: Path, engine: bytes, sidecar: Sidecar) -> None:
    """Write an engine and its sidecar.

    Whoever is killed on the way leaves the old pair, the new one, or no engine at all; a
    temporary file that was left behind goes with the first build an hour later.

    Raises:
        SalstreamError: They cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            _remove_leftovers(path)
            with _part(path, engine) as new, _part(path, sidecar.to_json().encode()) as beside:
                # A sidecar alone is no engine: first the old engine goes, last the new one comes.
                path.unlink(missing_ok=True)
                beside.replace(sidecar_path(path))
                new.replace(path)
    except OSError as error:
        raise SalstreamError(f"cannot write {path}: {error.strerror}") from error


class EngineCache:
    """Engines by what they were built from, in the user's cache folder.

    Args:
        recipe: Everything that decides what the engine is like.
    """

    def __init__(self, recipe: Mapping[str, Any]) -> None:
        key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
        self.path = cache_folder() / f"{key}.engine"

    def building(self) -> contextlib.ExitStack:
        """Hold the entry while it is looked up and built: a second process waits.

        Raises:
            SalstreamError: The cache cannot be written to.
        """
        held = contextlib.ExitStack()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(_locked(self.path.with_suffix(".build")))
        except OSError as error:
            raise SalstreamError(
                f"cannot write the cache {self.path.parent}: {error.strerror}; --no-cache does "
                "without it"
            ) from error
        return held

    def find(self) -> tuple[bytes, Sidecar] | None:
        """Return the engine, if it is there and whole."""
        if not self.path.exists():
            return None
        try:
            return read_engine(self.path)
        except SalstreamError as error:
            logger.warning("building again, because an engine in the cache is damaged: %s", error)
            return None

    def store(self, engine: bytes, sidecar: Sidecar) -> None:
        """Keep an engine."""
        write_engine(self.path, engine, sidecar)


def cache_folder() -> Path:
    """Return where the cache lies; it may be deleted at any time."""
    return platformdirs.user_cache_path("salstream") / "engines"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold what is written at ``path``; the system frees it when its holder dies.

    The lock lies beside it, as an empty, hidden file: there everybody finds it who can write
    there, whatever their environment says.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("another process is building %s; waiting for it", path.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _part(path: Path, content: bytes) -> Iterator[Path]:
    """Write a temporary file beside ``path``; gone at the end, if nobody renamed it."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield part
    finally:
        part.unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    """Remove what builds of ``path`` that were killed have left."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > LEFTOVER_S:
                part.unlink()
