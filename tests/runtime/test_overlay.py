"""Blending by tables against the formula."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from salstream.runtime.overlay import (
    COLORMAPS,
    Colormap,
    coloured,
    overlay,
    side_by_side,
    to_8_bits,
)


@pytest.mark.parametrize("opacity", [0.0, 0.3, 0.7, 1.0])
def test_overlay_blends_by_saliency(opacity: float) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    saliency = rng.random((40, 60), dtype=np.float32)
    colour = cv2.applyColorMap(to_8_bits(saliency), cv2.COLORMAP_TURBO).astype(float)
    weight = opacity * saliency[..., None]
    expected = image * (1 - weight) + colour * weight
    assert np.abs(overlay(image, saliency, opacity) - expected).max() < 2


@pytest.mark.parametrize("colormap", COLORMAPS)
def test_overlay_blends_with_each_colour_map(colormap: Colormap) -> None:
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    saliency = rng.random((40, 60), dtype=np.float32)
    level = to_8_bits(saliency)
    colour = (
        cv2.cvtColor(level, cv2.COLOR_GRAY2BGR)
        if colormap == "grey"
        else cv2.applyColorMap(level, getattr(cv2, f"COLORMAP_{colormap.upper()}"))
    )
    np.testing.assert_array_equal(coloured(saliency, colormap), colour)
    weight = 0.5 * saliency[..., None]
    expected = image * (1 - weight) + colour.astype(float) * weight
    assert np.abs(overlay(image, saliency, 0.5, colormap) - expected).max() < 2


def test_where_nothing_is_salient_the_frame_stays_untouched() -> None:
    image = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    np.testing.assert_array_equal(overlay(image, np.zeros((40, 60), np.float32)), image)


def test_8_bits_are_rounded() -> None:
    values = np.array([[0, 0.5 / 255, 0.49 / 255, 0.999, 1]], np.float32)
    assert to_8_bits(values).tolist() == [[0, 0, 0, 255, 255]]
    assert to_8_bits(np.linspace(0, 1, 256, dtype=np.float32)[None]).tolist() == [list(range(256))]


def test_side_by_side_shows_both() -> None:
    image = np.full((4, 6, 3), 9, np.uint8)
    picture = side_by_side(image, np.ones((4, 6), np.float32))
    assert picture.shape == (4, 12, 3)
    assert (picture[:, :6] == 9).all()
    assert (picture[:, 6:] == 255).all()
