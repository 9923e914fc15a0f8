"""OpenCV without its own warnings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV's own warnings off standard error: ours say it in one sentence."""
    # OpenCV 5 moved these functions
    logging: Any = cv2.utils.logging if hasattr(cv2.utils, "logging") else cv2
    level = logging.getLogLevel()
    logging.setLogLevel(0)
    try:
        yield
    finally:
        logging.setLogLevel(level)
