"""What comes out of a stream: one result per frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from salstream.runtime import overlay


@dataclass(frozen=True)
class Result:
    """The saliency of one frame.

    Attributes:
        index: Number of the frame in its source, from 0.
        time: Seconds since the source's first frame; None where the source has no clock.
        frame: The frame itself, uint8 BGR, (frame height, frame width, 3).
        map: What the graph gave, float32 in [0, 1], (height, width) of the model.
    """

    index: int
    time: float | None
    frame: NDArray[np.uint8]
    map: NDArray[np.float32]

    @cached_property
    def saliency(self) -> NDArray[np.float32]:
        """The map at the frame's own size, float32 in [0, 1]; made when first asked for."""
        height, width = self.frame.shape[:2]
        resized = cv2.resize(self.map, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(resized, np.float32)

    def overlay(self, opacity: float = 0.7) -> NDArray[np.uint8]:
        """Return the frame coloured by its saliency, uint8 BGR."""
        return overlay.overlay(self.frame, self.saliency, opacity)
