"""What comes out of a stream: one result per frame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from salstream.runtime import overlay
from salstream.runtime.preprocess import placement


@dataclass(frozen=True)
class Result:
    """The saliency of one frame.

    Attributes:
        index: Number of the frame in its source, from 0.
        time: Seconds since the source's first frame; None where the source has no clock.
        frame: The frame itself, uint8 BGR, (frame height, frame width, 3).
        map: What the graph gave, float32 in [0, 1], (map height, map width).
        conspicuity: The maps that the saliency was fused from, float32 in [0, 1],
            (levels, map height, map width), shallow to deep; None if the graph has none.
        letterbox: Height and width of the network's input if the frame lies in its middle, in
            proportion; None if the frame fills it.
        pixel_aspect: Width of the frame's pixels as they are shown, divided by their height.
        name: Of the frame's file, where each frame is a file of its own.
        label: What outputs of this frame are called, without a suffix; None: by its index.
    """

    index: int
    time: float | None
    frame: NDArray[np.uint8]
    map: NDArray[np.float32]
    conspicuity: NDArray[np.float32] | None = None
    letterbox: tuple[int, int] | None = None
    pixel_aspect: float = 1.0
    name: str | None = None
    label: str | None = None

    @property
    def output_name(self) -> str:
        """What the frame's own files are called, without a suffix: ``000000``, or its label."""
        return f"{self.index:06d}" if self.label is None else self.label

    @cached_property
    def saliency(self) -> NDArray[np.float32]:
        """The map at the frame's own size, float32 in [0, 1]; made when first asked for."""
        return self._at_frame_size(self.map)

    def as_shown(self) -> Result:
        """Return the result with a frame of square pixels: its height is kept."""
        frame = overlay.square(self.frame, self.pixel_aspect)
        if frame is self.frame:
            return self
        return replace(self, frame=frame, pixel_aspect=1.0)

    def overlay(self, opacity: float = 0.7) -> NDArray[np.uint8]:
        """Return the frame coloured by its saliency, uint8 BGR, in the frame's own pixels."""
        return overlay.overlay(self.frame, self.saliency, opacity)

    def figure(self) -> NDArray[np.uint8]:
        """Return frame, conspicuity maps (shallow to deep) and saliency side by side.

        As HD2S's Figure 6 has them; uint8 BGR, (frame height, panels × width as shown, 3).
        """
        shown = self.as_shown()
        maps = [*(() if self.conspicuity is None else self.conspicuity), self.map]
        return overlay.side_by_side(shown.frame, *(shown._at_frame_size(m) for m in maps))

    def _at_frame_size(self, shown: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.letterbox is not None:
            shown = _resized(shown, self.letterbox)
            top, left, height, width = placement(
                self.frame.shape[:2], self.letterbox, self.pixel_aspect
            )
            shown = shown[top : top + height, left : left + width]
        return _resized(shown, self.frame.shape[:2])


def _resized(saliency: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    height, width = size
    resized = cv2.resize(saliency, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.float32)
