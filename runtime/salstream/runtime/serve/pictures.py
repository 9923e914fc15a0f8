"""What a client may choose to see of a result, and the picture of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from salstream.runtime.errors import UsageError
from salstream.runtime.overlay import COLORMAPS, Colormap, coloured, overlay
from salstream.runtime.results import Result

Kind = Literal["overlay", "map", "side", "conspicuity"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

_JPEG_QUALITY: Final = 80
_LARGEST: Final = {"overlay": 1280, "map": 1280, "side": 960, "conspicuity": 640}
_LARGEST_PNG: Final = 4096
_OPACITY_STEPS: Final = 20  # few enough that clients share pictures


@dataclass(frozen=True, slots=True)
class View:
    """What to show of a result.

    Attributes:
        kind: ``overlay``; ``map`` alone; frame and map ``side`` by side; the ``conspicuity``
            maps row by row, two in each, shallow to deep.
        opacity: Of the overlay, in [0, 1].
        colormap: Of every map.
    """

    kind: Kind = "overlay"
    opacity: float = 0.7
    colormap: Colormap = "turbo"

    @classmethod
    def of(cls, query: Mapping[str, str]) -> View:
        """Read the options ``view``, ``opacity`` and ``colormap``.

        Raises:
            UsageError: One of them has no such value, or there is no such option.
        """
        unknown = set(query) - {"view", "opacity", "colormap", "token"}
        if unknown:
            raise UsageError(f"unknown option {min(unknown)!r}: expected view, opacity, colormap")
        kind, colormap = query.get("view", cls().kind), query.get("colormap", cls().colormap)
        if kind not in KINDS:
            raise UsageError(f"unknown view {kind!r}: expected one of {', '.join(KINDS)}")
        if colormap not in COLORMAPS:
            raise UsageError(
                f"unknown colormap {colormap!r}: expected one of {', '.join(COLORMAPS)}"
            )
        given = query.get("opacity", str(cls().opacity))
        try:
            opacity = float(given)
        except ValueError:
            opacity = -1
        if not 0 <= opacity <= 1:
            raise UsageError(f"cannot read the opacity {given!r}: expected a number from 0 to 1")
        opacity = round(opacity * _OPACITY_STEPS) / _OPACITY_STEPS
        return cls(kind, opacity, colormap)


def jpeg(result: Result, view: View) -> bytes:
    """Return the view as JPEG, of a size that suits a screen.

    Raises:
        UsageError: The result has no conspicuity maps.
    """
    image = draw(_fitted(result, _LARGEST[view.kind]), view)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()


def png(result: Result, view: View) -> bytes:
    """Return the view as PNG, of the frame's own size as it is shown, up to 4096.

    Raises:
        UsageError: The result has no conspicuity maps.
    """
    return cv2.imencode(".png", draw(_fitted(result, _LARGEST_PNG), view))[1].tobytes()


def draw(result: Result, view: View) -> NDArray[np.uint8]:
    """Return the view, uint8 BGR, (rows × frame height, columns × frame width, 3).

    Raises:
        UsageError: The result has no conspicuity maps.
    """
    if view.kind == "overlay":
        return overlay(result.frame, result.saliency, view.opacity, view.colormap)
    if view.kind == "map":
        return coloured(result.saliency, view.colormap)
    if view.kind == "side":
        return np.hstack([result.frame, coloured(result.saliency, view.colormap)])
    if result.conspicuity is None:
        raise UsageError(
            "the graph gives no conspicuity maps; export it with: salstream export --conspicuity"
        )
    maps = [
        coloured(replace(result, map=level).saliency, view.colormap) for level in result.conspicuity
    ]
    maps += [np.zeros_like(maps[0])] * (len(maps) % 2)
    return np.vstack([np.hstack(maps[i : i + 2]) for i in range(0, len(maps), 2)])


def _fitted(result: Result, largest: int) -> Result:
    """Return the result with its frame made small enough, of square pixels; the map follows."""
    height, width = result.frame.shape[0], result.frame.shape[1] * result.pixel_aspect
    scale = largest / max(height, width)
    if scale >= 1:
        return result.as_shown()
    size = max(1, round(width * scale)), max(1, round(height * scale))
    frame = cv2.resize(result.frame, size, interpolation=cv2.INTER_AREA)
    return replace(result, frame=np.asarray(frame, np.uint8), pixel_aspect=1.0)
