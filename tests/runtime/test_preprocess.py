"""Frames reach the model's size whole, and maps find back to the frame."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import spec
from salstream.runtime import Result
from salstream.runtime.preprocess import placement, prepare
from salstream.runtime.sources import Frame

sides = st.integers(1, 3000)


@pytest.mark.parametrize("size", [(3, 5), (4, 6), (9, 11), (33, 70), (1080, 1920)])
def test_a_plain_frame_stays_plain_and_becomes_rgb(size: tuple[int, int]) -> None:
    image = np.empty((*size, 3), np.uint8)
    image[:] = (10, 120, 250)
    prepared = prepare(Frame(0, None, image), spec())
    assert prepared.shape == (4, 6, 3)
    assert prepared.flags.c_contiguous
    assert (prepared == (250, 120, 10)).all()


def test_shrinking_averages_instead_of_picking() -> None:
    """A chessboard of single pixels becomes grey, as averaging over areas has it."""
    graph = dataclasses.replace(spec(), height=30, width=40)
    board = (np.indices((240, 320)).sum(axis=0) % 2 * 255).astype(np.uint8)
    image = np.repeat(board[:, :, None], 3, axis=2)
    prepared = prepare(Frame(0, None, image), graph)
    assert np.abs(prepared.astype(int) - 128).max() <= 1
    photo = cv2.GaussianBlur(np.random.default_rng(0).random((211, 333, 3)), (0, 0), 12)
    photo = ((photo - photo.min()) / np.ptp(photo) * 255).astype(np.uint8)
    area = cv2.resize(photo, (40, 30), interpolation=cv2.INTER_AREA)
    assert np.abs(prepare(Frame(0, None, photo), graph)[..., ::-1].astype(float) - area).mean() < 3


@given(frame=st.tuples(sides, sides), size=st.tuples(sides, sides))
def test_a_letterboxed_frame_keeps_its_proportions(
    frame: tuple[int, int], size: tuple[int, int]
) -> None:
    top, left, height, width = placement(frame, size)
    assert top >= 0
    assert left >= 0
    assert 1 <= height <= size[0] - top
    assert 1 <= width <= size[1] - left
    assert height == size[0] or width == size[1]
    scale = min(size[0] / frame[0], size[1] / frame[1])
    assert abs(height - frame[0] * scale) <= 1
    assert abs(width - frame[1] * scale) <= 1
    assert abs((size[0] - height) - 2 * top) <= 1
    assert abs((size[1] - width) - 2 * left) <= 1


def test_a_letterboxed_map_is_cut_back_to_the_frame() -> None:
    graph = dataclasses.replace(spec(), height=64, width=80, fit="letterbox")
    wide = np.full((90, 320, 3), 200, np.uint8)
    prepared = prepare(Frame(0, None, wide), graph)
    assert prepared[:20].max() == prepared[-20:].max() == 0
    assert prepared[21:43].min() == 200
    # A map of half the size, salient where the frame lies.
    saliency = cv2.resize((prepared[..., 0] > 0).astype(np.float32), (40, 32))
    result = Result(0, None, wide, np.asarray(saliency, np.float32), letterbox=graph.size)
    assert result.saliency.shape == (90, 320)
    assert result.saliency.min() > 0.6
    assert result.saliency.mean() > 0.95
