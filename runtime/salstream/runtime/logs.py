"""Log lines that name their camera, and log lines as JSON, for programs that collect them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final

_FIELDS: Final = ("camera", "state", "reason")
_camera: ContextVar[str] = ContextVar("camera", default="")


@contextmanager
def about(camera: str) -> Iterator[None]:
    """Name a camera in every line that this thread logs inside the block."""
    token = _camera.set(camera)
    try:
        yield
    finally:
        _camera.reset(token)


def _name_camera(record: logging.LogRecord) -> bool:
    camera = _camera.get()
    if camera and not hasattr(record, "camera"):
        record.camera = camera
        record.msg, record.args = f"{camera}: {record.getMessage()}", ()
    return True


logging.getLogger("salstream").addFilter(_name_camera)


class JsonFormatter(logging.Formatter):
    """One object per line: ``time`` (UTC), ``level``, ``message``, and what is said of a camera."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = datetime.fromtimestamp(record.created, UTC)
        line = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)


def is_json() -> bool:
    """Whether log lines are JSON."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.root.handlers)


def use_json() -> None:
    """Make all log lines JSON."""
    for handler in logging.root.handlers:
        handler.setFormatter(JsonFormatter())
