"""Which library is at fault where an exception comes that nobody expected."""

from __future__ import annotations

import sys
import traceback
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType


def library_at_fault(error: BaseException) -> str | None:
    """Return the library that is missing or broken; None: the exception is of another kind.

    That is one that cannot be imported, whatever its modules raise, or that lacks a name which it
    should have.
    """
    names = [error.name] if isinstance(error, ImportError) else []
    names += [
        frame.f_globals.get("__name__")
        for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__)))
        if frame.f_code.co_name == "<module>"  # while the module was being imported
    ]
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        names.append(error.obj.__name__)
    for name in names:
        library = (name or "").partition(".")[0]
        if library not in ("", "__main__", "salstream", *sys.stdlib_module_names):
            return library
    return None


def is_missing(library: str) -> bool:
    """Whether a library is not there at all."""
    if sys.modules.get(library, sys) is None:  # somebody has ruled it out
        return True
    try:
        return find_spec(library) is None
    except (ImportError, ValueError):
        return False


def reason(error: BaseException) -> str:
    """Return in a line what an exception says, or the one that it came from."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()] or [""]
    text = lines[0].strip()[:200]
    return text if isinstance(error, ImportError) and text else f"{type(error).__name__}: {text}"


def explain(error: BaseException) -> str:
    """Return the sentence for an exception that no part of salstream has explained."""
    library = library_at_fault(error)
    if library is not None:
        state = "is not installed" if is_missing(library) else f"is broken ({reason(error)})"
        return f"{library} {state}: 'salstream doctor' shows how to fix it"
    where = traceback.extract_tb(error.__traceback__)[-1:]
    place = "".join(f" at {Path(entry.filename).name}, line {entry.lineno}" for entry in where)
    return (
        f"salstream failed{place} ({_without_secrets(reason(error))}): check the installation with "
        "'salstream doctor'; if that finds nothing, report it, with what SALSTREAM_TRACEBACK=1 "
        "shows"
    )


def _without_secrets(text: str) -> str:
    try:
        from salstream.runtime.sources.address import redact
    except Exception:  # whatever a broken library raises
        return "…"
    return redact(text)
