"""From the pictures that a decoder gives to frames: BGR, 8 bits, upright."""

from __future__ import annotations

from typing import Final

import av
import av.filter
import cv2
import numpy as np
from numpy.typing import NDArray

# The colour matrices (H.273) that ffmpeg can convert from. It refuses the rest, which are
# rare, or not meant: some files say "reserved" (3) for want of knowledge.
_MATRICES: Final = frozenset((0, 1, 2, 4, 5, 6, 7, 9))
_UNSPECIFIED_MATRIX: Final = 2
# How phone videos are turned, in degrees counterclockwise.
_TURNS: Final = {
    90: cv2.ROTATE_90_COUNTERCLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_CLOCKWISE,
}


class Converter:
    """Converts pictures to frames, into memory that is used again.

    Colours follow the matrix and range that a picture declares; one that declares none is
    taken as BT.601 of limited range, as ffmpeg and OpenCV do. PyAV's ``reformat`` would do
    the same, but asks the system for each picture's memory, which at 1080p makes decoding a
    third slower.
    """

    def __init__(self) -> None:
        self._layout: tuple[str, ...] = ()
        self._graph = av.filter.Graph()

    def __call__(self, picture: av.VideoFrame) -> NDArray[np.uint8]:
        """Return the picture as (height, width, 3) BGR, which nobody else looks at.

        Raises:
            av.FFmpegError: ffmpeg cannot convert it.
        """
        if picture.format.name == "bgr24":
            # the decoder may still need its memory when somebody draws on the frame
            image = _array(picture).copy()
        else:
            image = _array(self._to_bgr(picture))
        turn = _TURNS.get(round(picture.rotation / 90) * 90 % 360)
        return image if turn is None else np.asarray(cv2.rotate(image, turn), np.uint8)

    def _to_bgr(self, picture: av.VideoFrame) -> av.VideoFrame:
        if picture.colorspace not in _MATRICES:
            picture.colorspace = _UNSPECIFIED_MATRIX
        layout = (
            f"{picture.width}x{picture.height}",
            picture.format.name,
            str(picture.colorspace),
            str(picture.color_range),
        )
        if layout != self._layout:
            self._graph = _bgr_graph(*layout)
            self._layout = layout
        self._graph.vpush(picture)
        return self._graph.vpull()


def _bgr_graph(size: str, pixel_format: str, matrix: str, value_range: str) -> av.filter.Graph:
    graph = av.filter.Graph()
    graph.threads = 1  # a conversion is too short to be shared out
    source = graph.add(
        "buffer",
        video_size=size,
        pix_fmt=pixel_format,
        colorspace=matrix,
        range=value_range,
        time_base="1/1000",
    )
    graph.link_nodes(source, graph.add("format", "bgr24"), graph.add("buffersink")).configure()
    return graph


def _array(picture: av.VideoFrame) -> NDArray[np.uint8]:
    """Look at a BGR picture as an array, which keeps the picture's memory alive."""
    plane = picture.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    image = np.ascontiguousarray(rows[:, : 3 * plane.width])
    return image.reshape(plane.height, plane.width, 3)
