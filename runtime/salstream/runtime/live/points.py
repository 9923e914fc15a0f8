"""What a map says in a few numbers, for other programs: as an object that JSON takes."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from salstream.runtime.errors import SalstreamError, UsageError
from salstream.runtime.preprocess import placement
from salstream.runtime.results import Result
from salstream.runtime.sinks import StopStream


def points(result: Result, threshold: float = 0.5) -> dict[str, Any]:
    """Return the peak, the centre of mass and the regions of a map.

    They are found in the map as the graph gave it, and told in pixels of the frame: (0, 0) is
    the upper left corner of its upper left pixel.

    Args:
        result: Of one frame.
        threshold: What belongs to a region is at least this much, in (0, 1].

    Returns:
        ``index``, ``time`` (seconds), ``file`` (name of a picture; null: a video), ``width`` and
        ``height`` (of the frame); ``peak`` (``x``, ``y``, ``value``); ``centre`` (``x``, ``y``),
        null for a map of zeros; and ``regions``, largest first, each with its box (``x``, ``y``,
        ``width``, ``height``) and its ``mass``, the share of the whole map that lies in it.
    """
    saliency, scale_y, scale_x = _of_frame(result)
    row, column = np.unravel_index(int(saliency.argmax()), saliency.shape)
    total = float(saliency.sum(dtype=np.float64))
    rows, columns = saliency.sum(1, dtype=np.float64), saliency.sum(0, dtype=np.float64)
    centre = None
    if total > 0:
        y = float(rows @ (np.arange(len(rows)) + 0.5)) / total
        x = float(columns @ (np.arange(len(columns)) + 0.5)) / total
        centre = {"x": round(x * scale_x, 2), "y": round(y * scale_y, 2)}
    return {
        "index": result.index,
        "time": _finite(result.time),
        "file": result.name,
        "width": result.frame.shape[1],
        "height": result.frame.shape[0],
        "peak": {
            "x": round((float(column) + 0.5) * scale_x, 2),
            "y": round((float(row) + 0.5) * scale_y, 2),
            "value": round(float(saliency[row, column]), 4),
        },
        "centre": centre,
        "regions": _regions(saliency, threshold, total, scale_y, scale_x),
    }


def record(camera: str, result: Result, threshold: float = 0.5) -> dict[str, Any]:
    """Return what a line of JSON says, in a file and to readers of the page.

    Args:
        camera: Its name.
        result: Of one of its frames.
        threshold: As in :func:`points`.

    Returns:
        ``camera``, ``at`` (now, seconds since 1970) and all that :func:`points` gives.
    """
    return {"camera": camera, "at": round(time.time(), 3), **points(result, threshold)}


def check_threshold(threshold: float) -> None:
    """Refuse a threshold that is not in (0, 1].

    Raises:
        UsageError: It is not.
    """
    if not 0 < threshold <= 1:
        raise UsageError(f"a threshold lies above 0 and at most at 1, got {threshold:g}")


def _finite(time_s: float | None) -> float | None:
    """Return a time that JSON can say, to the microsecond."""
    return None if time_s is None or not math.isfinite(time_s) else round(time_s, 6)


def _of_frame(result: Result) -> tuple[NDArray[np.float32], float, float]:
    """Return the part of the map that lies on the frame, and the frame's pixels per value."""
    saliency = result.map
    height, width = result.frame.shape[:2]
    if result.letterbox is not None:
        down, right = (m / n for m, n in zip(saliency.shape, result.letterbox, strict=True))
        top, left, inner_height, inner_width = placement(
            (height, width), result.letterbox, result.pixel_aspect
        )
        rows = slice(
            round(top * down), max(round(top * down) + 1, round((top + inner_height) * down))
        )
        columns = slice(
            round(left * right), max(round(left * right) + 1, round((left + inner_width) * right))
        )
        saliency = saliency[rows, columns]
    return saliency, height / saliency.shape[0], width / saliency.shape[1]


def _regions(
    saliency: NDArray[np.float32], threshold: float, total: float, scale_y: float, scale_x: float
) -> list[dict[str, float]]:
    above = (saliency >= threshold).astype(np.uint8)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    masses = np.bincount(labels.ravel(), saliency.ravel(), count)
    regions = [
        {
            "x": round(float(x) * scale_x, 2),
            "y": round(float(y) * scale_y, 2),
            "width": round(float(width) * scale_x, 2),
            "height": round(float(height) * scale_y, 2),
            "mass": round(float(mass) / total, 4) if total > 0 else 0.0,
        }
        for (x, y, width, height, _), mass in list(zip(boxes, masses, strict=True))[1:]
    ]
    return sorted(regions, key=lambda region: -region["mass"])


class JsonLines:
    """One line of JSON per result: its :func:`record`.

    Args:
        out: A file, which grows, or a binary stream. Several cameras may share it.
        camera: The name in each line.
        threshold: Of the regions, in (0, 1].

    Raises:
        UsageError: The threshold is out of range.
        SalstreamError: The file cannot be written.
    """

    def __init__(self, out: Path | BinaryIO, camera: str, threshold: float = 0.5) -> None:
        check_threshold(threshold)
        self._camera = camera
        self._threshold = threshold
        self._owned = isinstance(out, Path)
        if isinstance(out, Path):
            try:
                out.parent.mkdir(parents=True, exist_ok=True)
                # unbuffered and appending: each line is one write, whoever else writes there
                self._out: BinaryIO = out.open("ab", buffering=0)
            except OSError as error:
                raise SalstreamError(f"cannot write {out}: {error.strerror}") from error
        else:
            self._out = out

    def write(self, result: Result) -> None:
        """Write one line."""
        line = json.dumps(record(self._camera, result, self._threshold)).encode() + b"\n"
        try:
            self._out.write(line)
            self._out.flush()
        except BrokenPipeError as error:  # the reader has seen enough
            raise StopStream from error
        except OSError as error:
            raise SalstreamError(f"cannot write the lines of JSON: {error.strerror}") from error

    def close(self) -> None:
        """Close the file; a stream stays open."""
        if self._owned:
            self._out.close()
