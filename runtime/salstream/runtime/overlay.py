"""Saliency drawn over a frame, or beside it."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Map = NDArray[np.float32]
Colormap = Literal["turbo", "viridis", "cividis", "inferno", "hot", "grey"]
COLORMAPS: Final[tuple[Colormap, ...]] = get_args(Colormap)


def overlay(
    image: Image, saliency: Map, opacity: float = 0.7, colormap: Colormap = "turbo"
) -> Image:
    """Colour a frame by its saliency: untouched at 0, mostly the map's colour at 1.

    Args:
        image: uint8 BGR, (height, width, 3).
        saliency: float32 in [0, 1], (height, width).
        opacity: Weight of the colour where the saliency is 1, in [0, 1].
        colormap: One of ``COLORMAPS``.

    Returns:
        uint8 BGR, (height, width, 3).
    """
    colour, rest = _blend_tables(opacity, colormap)
    level = to_8_bits(saliency)
    shine_through = cv2.multiply(image, cv2.applyColorMap(level, rest), scale=1 / 255)
    return np.asarray(cv2.add(shine_through, cv2.applyColorMap(level, colour)), np.uint8)


def coloured(saliency: Map, colormap: Colormap = "turbo") -> Image:
    """Return the map in the colours of a colour map, uint8 BGR, (height, width, 3)."""
    return np.asarray(cv2.applyColorMap(to_8_bits(saliency), _colours(colormap)), np.uint8)


def square(image: Image, pixel_aspect: float) -> Image:
    """Return a picture as it is shown, with square pixels: its height is kept.

    Args:
        image: uint8, (height, width, 3).
        pixel_aspect: Width of its pixels divided by their height.
    """
    height, width = image.shape[:2]
    shown = max(1, round(width * pixel_aspect))
    if shown == width:
        return image
    smaller = cv2.INTER_AREA if shown < width else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (shown, height), interpolation=smaller), np.uint8)


def to_8_bits(saliency: Map) -> Image:
    """Return the map as uint8, 1 becoming 255, rounded to the nearest."""
    return np.asarray(cv2.convertScaleAbs(saliency, alpha=255), np.uint8)


def side_by_side(image: Image, *maps: Map) -> Image:
    """Return a frame and its maps in a row, uint8 BGR, (height, (1 + maps) × width, 3)."""
    grey = [cv2.cvtColor(to_8_bits(saliency), cv2.COLOR_GRAY2BGR) for saliency in maps]
    return np.asarray(np.hstack([image, *grey]), np.uint8)


@lru_cache(maxsize=32)
def _blend_tables(opacity: float, colormap: Colormap) -> tuple[Image, Image]:
    """Return, by level of saliency, the colour times its weight, and the frame's weight.

    Tables, (256, 1, 3) each, make blending two look-ups, a product and a sum.
    """
    levels = np.arange(256, dtype=np.uint8)[:, None]
    weight = opacity * levels[:, :, None] / 255
    colour = np.rint(_colours(colormap) * weight).astype(np.uint8)
    rest = np.rint(255 * (1 - weight)).astype(np.uint8)
    return colour, np.repeat(rest, 3, axis=2)


@lru_cache
def _colours(colormap: Colormap) -> Image:
    """Return the colour of each level of saliency, uint8 BGR, (256, 1, 3)."""
    levels = np.arange(256, dtype=np.uint8)[:, None]
    if colormap == "grey":
        return np.repeat(levels[:, :, None], 3, axis=2)
    scheme: int = getattr(cv2, f"COLORMAP_{colormap.upper()}")
    return np.asarray(cv2.applyColorMap(levels, scheme), np.uint8)
