"""The shape of pixels: how wide they are shown for their height."""

from __future__ import annotations

from typing import Final

import av

# What lies beyond is a mistake of whoever wrote the file; anamorphic video stays below 4.
_MOST: Final = 10


class PixelAspect:
    """Follows the sample aspect ratio of a stream.

    As in ffmpeg, the container's counts first, then the codec's, which may change on the way.

    Args:
        stream: Of which no packet has been decoded yet.
    """

    def __init__(self, stream: av.VideoStream) -> None:
        self._codec = stream.codec_context
        declared = stream.sample_aspect_ratio
        # PyAV gives the codec's where the container has none
        differs = declared != self._codec.sample_aspect_ratio
        self._container = declared if differs else None
        self._aspect = 1.0
        self._known = False

    def __call__(self, *, key_frame: bool, transposed: bool) -> float:
        """Return width / height of the pixels of the picture that was decoded last.

        Args:
            key_frame: Whether it is one. Only from there on does a change count: the codec may
                be ahead of pictures that it holds back.
            transposed: Whether its rows are shown as columns.
        """
        if key_frame or not self._known:
            declared = self._container or self._codec.sample_aspect_ratio
            aspect = float(declared) if declared else 1.0
            self._aspect = aspect if 1 / _MOST <= aspect <= _MOST else 1.0
            self._known = True
        return 1 / self._aspect if transposed else self._aspect
