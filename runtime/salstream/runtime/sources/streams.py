"""Which of a container's video streams is the film."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import av
import av.container
from av.stream import Disposition

from salstream.runtime.errors import UnusableSource

_STILLS: Final = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
# A stream with fewer than this share of another's pictures holds stills.
_STILL: Final = 0.1
# What ffmpeg's program adds to the number of pixels of a stream that is marked as default.
_DEFAULT_BONUS: Final = 5_000_000


def films_in(container: av.container.InputContainer, shown: str) -> list[av.VideoStream]:
    """Return the video streams that may be the film; covers and thumbnails are none.

    Args:
        container: Just opened.
        shown: Its name, for error messages.

    Raises:
        UnusableSource: There is no video stream, or none but covers and parts of pictures.
    """
    streams = list(container.streams.video)
    if not streams or container.format.name == "tty":  # ffmpeg draws text files
        raise UnusableSource(f"{shown} has no video in it: expected a video")
    whole = [stream for stream in streams if not stream.disposition & Disposition.dependent]
    if not whole:
        raise UnusableSource(
            f"{shown} is a picture in tiles, which this reader does not put together: convert it "
            "to JPEG or PNG first"
        )
    films = [stream for stream in whole if not stream.disposition & _STILLS]
    # a picture in a file of its own is marked as a still
    films = films or [s for s in whole if not s.disposition & Disposition.attached_pic]
    if not films:
        raise UnusableSource(f"{shown} has no video in it, only sound and a cover picture")
    return films


def film_among(films: Sequence[av.VideoStream], packet_counts: Mapping[int, int]) -> av.VideoStream:
    """Return the stream to show: one that moves, then by ffmpeg's rule the largest picture.

    Args:
        films: At least one.
        packet_counts: Packets seen of each so far, by the stream's index.
    """
    # not the header's counts, which may be those of the longest stream
    counts = {
        film.index: max(len(film.index_entries), packet_counts.get(film.index, 0)) for film in films
    }
    most = max(counts.values())

    def rank(stream: av.VideoStream) -> tuple[bool, int, int]:
        context = stream.codec_context
        moves = counts[stream.index] > max(1, _STILL * most)
        default = _DEFAULT_BONUS if stream.disposition & Disposition.default else 0
        pixels = 0 if context is None else context.width * context.height
        return moves, pixels + default, -stream.index

    return max(films, key=rank)
