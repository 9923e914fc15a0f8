"""Log lines as JSON, for programs that collect them."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Final

_FIELDS: Final = ("camera", "state", "reason")


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
