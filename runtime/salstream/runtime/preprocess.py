"""From a camera's frame to what a graph takes: the model's size, RGB."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from salstream.runtime.spec import GraphSpec


def prepare(image: NDArray[np.uint8], spec: GraphSpec) -> NDArray[np.uint8]:
    """Bring a frame to the model's size (``pyramid``, the one way of ``GraphSpec.resize``).

    Blocks of 2×2 pixels are averaged as long as the frame is at least twice the model's
    size, the rest of the way is bicubic. The maps are as close to those after the
    antialiased Lanczos that networks were published with as after averaging over areas
    (INTER_AREA), at a tenth of the time for a frame of 1920×1080.

    Args:
        image: uint8 BGR, (frame height, frame width, 3).
        spec: Gives the size.

    Returns:
        uint8 RGB, (height, width, 3).
    """
    height, width = spec.size
    while image.shape[0] >= 2 * height and image.shape[1] >= 2 * width:
        rows, columns = image.shape[0] // 2, image.shape[1] // 2
        even = image[: 2 * rows, : 2 * columns]
        image = np.asarray(cv2.resize(even, (columns, rows), interpolation=cv2.INTER_AREA))
    if image.shape[:2] != spec.size:
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC))
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
