"""HDR in pictures: how a picture says that it is HDR, and SDR made of it as of videos."""

from __future__ import annotations

from io import BytesIO

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

from salstream.runtime.sources.convert import sdr_picture
from salstream.runtime.sources.hdr import TRANSFERS

__all__ = ["TRANSFERS", "declared_colours", "tone_mapped"]


def declared_colours(data: bytes) -> tuple[int, int]:
    """Return an AVIF's or a HEIC's transfer and primaries, as H.273 numbers them; 2: unknown.

    Only its header is read.
    """
    try:
        with av.open(BytesIO(data)) as container:
            streams = container.streams.video
            # beside the picture there may be a gain map, or a video of which it is the cover
            default = (s for s in streams if s.disposition & Disposition.default)
            codec = next(default, streams[0]).codec_context
            return codec.color_trc, codec.color_primaries
    except (av.FFmpegError, IndexError):
        return 2, 2


def tone_mapped(
    image: NDArray[np.uint8] | NDArray[np.uint16], transfer: int, primaries: int
) -> NDArray[np.uint8]:
    """Return a decoded picture in SDR and 8 bits; one that is SDR in 8 bits as it is.

    Args:
        image: (height, width, 3) BGR of 8 or 16 bits, of full range.
        transfer: Its number in H.273.
        primaries: Likewise.

    Raises:
        SalstreamError: It is HDR, and no temporary file can be written.
    """
    if transfer in TRANSFERS:
        deep = image.astype(np.uint16) * 257 if image.dtype == np.uint8 else image
        return sdr_picture(np.asarray(deep, np.uint16), transfer, primaries)
    return np.asarray(image >> 8 if image.dtype == np.uint16 else image, np.uint8)
