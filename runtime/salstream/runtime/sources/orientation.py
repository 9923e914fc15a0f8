"""Which way up a picture is shown."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import av
import av.filter
import cv2
import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from numpy.typing import NDArray

# Kinds of side data that this PyAV has no name for, such as the EXIF block of a photograph,
# and those that FFmpeg may add.
_UNNAMED: Final = range(len(Type), 40)


class Orientation(NamedTuple):
    """How a stored picture becomes upright: transposed first, then flipped.

    Attributes:
        transposed: Rows become columns.
        flip_x: Left and right change places.
        flip_y: Top and bottom change places.
    """

    transposed: bool
    flip_x: bool
    flip_y: bool


UPRIGHT: Final = Orientation(transposed=False, flip_x=False, flip_y=False)


class Orientations:
    """Reads the orientations of a stream's pictures, which have to come in order."""

    def __init__(self) -> None:
        self._orientation = UPRIGHT
        self._layout = ("", "")
        self._graph = av.filter.Graph()

    def __call__(self, picture: av.VideoFrame) -> Orientation:
        """Return the orientation that a decoded picture declares.

        FFmpeg gives it as a display matrix, whether the container, the codec (SEI) or EXIF
        declared it. EXIF replaces the container's, and that comes before the codec's, as in
        ffmpeg. What a codec declares with a key frame holds until the next key frame.
        """
        try:
            side_data = _side_data(picture)
        except ValueError:  # PyAV gives none of them if it has no name for one
            side_data = _side_data(self._without_unnamed(picture))
        matrices = (data for data in side_data if data.type is Type.DISPLAYMATRIX)
        if (matrix := next(matrices, None)) is not None:
            self._orientation = from_matrix(struct.unpack("=9i", bytes(matrix)))
        elif picture.key_frame:
            self._orientation = UPRIGHT
        return self._orientation

    def _without_unnamed(self, picture: av.VideoFrame) -> av.VideoFrame:
        layout = f"{picture.width}x{picture.height}", picture.format.name
        if layout != self._layout:
            self._graph = _deleting_graph(*layout)
            self._layout = layout
        self._graph.vpush(picture)
        return self._graph.vpull()


def _side_data(picture: av.VideoFrame) -> SideDataContainer:
    # picture.side_data would keep the picture's memory until the garbage collector runs
    return SideDataContainer(picture)  # type: ignore[call-arg]


def _deleting_graph(size: str, pixel_format: str) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = graph.add("buffer", video_size=size, pix_fmt=pixel_format, time_base="1/1000")
    deletions = [graph.add("sidedata", mode="delete", type=str(kind)) for kind in _UNNAMED]
    graph.link_nodes(source, *deletions, graph.add("buffersink")).configure()
    return graph


def from_matrix(matrix: Sequence[int]) -> Orientation:
    """Return the orientation nearest to a display matrix.

    Each axis of the picture goes to the axis of the screen that it is nearest to; scale does
    not matter. A matrix that leaves open where an axis goes (a half-way angle, or no angle at
    all), or that takes both to the same one, says nothing: the picture is upright.

    Args:
        matrix: Nine numbers, row by row, as FFmpeg and the ``tkhd`` box of MP4 have them.
    """
    a, b, _, c, d = matrix[:5]  # (x, y) is shown at (ax + cy, bx + dy)
    if abs(a) > abs(b) and abs(d) > abs(c):
        return Orientation(transposed=False, flip_x=a < 0, flip_y=d < 0)
    if abs(b) > abs(a) and abs(c) > abs(d):
        return Orientation(transposed=True, flip_x=c < 0, flip_y=b < 0)
    return UPRIGHT


def turn(image: NDArray[np.uint8], orientation: Orientation) -> NDArray[np.uint8]:
    """Return the image upright; the same array where it is already."""
    if orientation.transposed:
        image = np.asarray(cv2.transpose(image), np.uint8)
    if orientation.flip_x or orientation.flip_y:
        # OpenCV's codes: 0 is upside down, 1 left to right, -1 both
        code = -1 if orientation.flip_x and orientation.flip_y else int(orientation.flip_x)
        image = np.asarray(cv2.flip(image, code), np.uint8)
    return image
