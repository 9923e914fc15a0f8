"""How a frame gets into the network's input: whole, in proportion, on black."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from salstream.training.esan.model import SIZE


def placement(
    frame_size: tuple[int, int], size: tuple[int, int] = SIZE
) -> tuple[int, int, int, int]:
    """Return where a frame lies in the input: top, left, height and width, in pixels.

    It is as large as its proportions allow. The paper pads 'the surrounding pixels' and
    says no more; here the frame is in the middle.

    Args:
        frame_size: Height and width of the frame.
        size: Height and width of the input, or of the map.
    """
    scale = min(size[0] / frame_size[0], size[1] / frame_size[1])
    height = max(1, min(size[0], round(frame_size[0] * scale)))
    width = max(1, min(size[1], round(frame_size[1] * scale)))
    return (size[0] - height) // 2, (size[1] - width) // 2, height, width


def fit(frame: NDArray[np.uint8], size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """Fit a frame into the input; the rest is zero.

    Args:
        frame: uint8 RGB, (frame height, frame width, 3).
        size: Height and width of the input.

    Returns:
        uint8 RGB, (height, width, 3).
    """
    top, left, height, width = placement((frame.shape[0], frame.shape[1]), size)
    smaller = height < frame.shape[0]
    interpolation = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    out = np.zeros((*size, 3), np.uint8)
    out[top : top + height, left : left + width] = cv2.resize(
        frame, (width, height), interpolation=interpolation
    )
    return out
