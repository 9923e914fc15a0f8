"""From the pictures that a decoder gives to frames: BGR, 8 bits, SDR, upright."""

from __future__ import annotations

import logging
import os
from typing import Final

import av
import av.filter
import numpy as np
from numpy.typing import NDArray

from salstream.runtime.sources import hdr
from salstream.runtime.sources.aspect import PixelAspect
from salstream.runtime.sources.orientation import Orientations, turn

logger = logging.getLogger("salstream")

# The colour matrices (H.273) that ffmpeg can convert from. It refuses the rest, which are
# rare, or not meant: some files say "reserved" (3) for want of knowledge.
_MATRICES: Final = frozenset((0, 1, 2, 4, 5, 6, 7, 9))
_UNSPECIFIED: Final = 2
_BT2020_MATRIX: Final = 9

_HDR_THREADS: Final = min(4, os.cpu_count() or 1)

# What a graph is made for: size, pixel format, matrix, range, and HDR's transfer and primaries.
_Layout = tuple[str, str, str, str, tuple[int, int] | None]


class Converter:
    """Converts pictures to frames, into memory that is used again.

    Colours follow the matrix and range that a picture declares; one that declares none is
    taken as BT.601 of limited range, as ffmpeg and OpenCV do. HDR is tone-mapped to SDR. PyAV's
    ``reformat`` would do the same for SDR, but asks the system for each picture's memory, which
    at 1080p makes decoding a third slower.

    Args:
        stream: The pictures' stream, of which no packet has been decoded yet.
        name: The source's, for the log.
    """

    def __init__(self, stream: av.VideoStream, name: str) -> None:
        self._name = name
        self._orientation_of = Orientations()
        self._aspect = PixelAspect(stream)
        self._layout: _Layout | None = None
        self._graph = av.filter.Graph()
        self._tone_mapped = False

    def __call__(self, picture: av.VideoFrame) -> tuple[NDArray[np.uint8], float]:
        """Return the picture that was decoded last as a frame's image and pixel aspect.

        Returns:
            (height, width, 3) BGR, which nobody else looks at, and the width of a pixel as it
            is shown, divided by its height.

        Raises:
            av.FFmpegError: ffmpeg cannot convert it.
            SalstreamError: It is HDR, and no temporary file can be written.
        """
        orientation = self._orientation_of(picture)
        image = turn(self._to_bgr(picture), orientation)
        aspect = self._aspect(key_frame=picture.key_frame, transposed=orientation.transposed)
        return image, aspect

    def _to_bgr(self, picture: av.VideoFrame) -> NDArray[np.uint8]:
        colours = None
        transfer = picture.color_trc
        if transfer in hdr.TRANSFERS:
            colours = transfer, picture.color_primaries
        elif picture.format.name == "bgr24":
            # the decoder may still need its memory when somebody draws on the frame
            return _array(picture).copy()
        if picture.colorspace not in _MATRICES:
            picture.colorspace = _UNSPECIFIED
        if colours and picture.colorspace == _UNSPECIFIED and not picture.format.is_rgb:
            picture.colorspace = _BT2020_MATRIX
        # ffmpeg converts neither of the two here, but refuses values that it does not know
        picture.color_trc = picture.color_primaries = _UNSPECIFIED
        layout = (
            f"{picture.width}x{picture.height}",
            picture.format.name,
            str(picture.colorspace),
            str(picture.color_range),
            colours,
        )
        if layout != self._layout:
            self._graph = _bgr_graph(layout)
            self._layout = layout
            if colours and not self._tone_mapped:
                kind = hdr.TRANSFERS[colours[0]]
                logger.info("%s is HDR (%s): its frames are tone-mapped to SDR", self._name, kind)
                self._tone_mapped = True
        self._graph.vpush(picture)
        return _array(self._graph.vpull())


def sdr_picture(image: NDArray[np.uint16], transfer: int, primaries: int) -> NDArray[np.uint8]:
    """Tone-map a decoded HDR picture to SDR, as ``Converter`` does with videos.

    Args:
        image: (height, width, 3) BGR, of full range.
        transfer: One of ``hdr.TRANSFERS``.
        primaries: Their number in H.273.

    Returns:
        (height, width, 3) BGR.

    Raises:
        SalstreamError: No temporary file can be written.
    """
    height, width = image.shape[:2]
    layout = f"{width}x{height}", "bgr48le", str(_UNSPECIFIED), "0", (transfer, primaries)
    graph = _bgr_graph(layout)
    graph.vpush(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr48le"))
    return _array(graph.vpull())


def _bgr_graph(layout: _Layout) -> av.filter.Graph:
    size, pixel_format, matrix, value_range, hdr_colours = layout
    graph = av.filter.Graph()
    # without a table, a conversion is too short to be shared out
    graph.threads = _HDR_THREADS if hdr_colours else 1
    source = graph.add(
        "buffer",
        video_size=size,
        pix_fmt=pixel_format,
        colorspace=matrix,
        range=value_range,
        time_base="1/1000",
    )
    nodes = [source]
    if hdr_colours:
        # 16 bits, as the table's curves are steep near black
        nodes += [graph.add("format", "gbrp16le"), hdr.add_table(graph, *hdr_colours)]
    nodes += [graph.add("format", "bgr24"), graph.add("buffersink")]
    graph.link_nodes(*nodes).configure()
    return graph


def _array(picture: av.VideoFrame) -> NDArray[np.uint8]:
    """Look at a BGR picture as an array, which keeps the picture's memory alive."""
    plane = picture.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    image = np.ascontiguousarray(rows[:, : 3 * plane.width])
    return image.reshape(plane.height, plane.width, 3)
