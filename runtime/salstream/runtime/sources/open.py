"""From whatever frames can come from to a ``Source``."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, Final, cast

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.errors import UsageError
from salstream.runtime.sources.address import has_scheme, redact, without_file_scheme
from salstream.runtime.sources.base import PICTURES_AS, PicturesAs, Source
from salstream.runtime.sources.memory import Arrays, RawFrames

RAW_FPS: Final = 30.0
_NO_PICTURES: Final = "{} is no set of pictures that could be read as {}"

logger = logging.getLogger("salstream")


def open_source(
    source: str | Path | int | Sequence[str | Path] | Iterable[NDArray[np.uint8]],
    *,
    fps: float | None = None,
    raw_size: tuple[int, int] | None = None,
    timeout_s: float = 5.0,
    pictures: PicturesAs | None = None,
) -> Source:
    """Open whatever frames can come from.

    Args:
        source: A video file, an image, a folder of images, a list of images, or a pattern
            (``frames/*.png``, ``frames/%04d.png``); a camera number or device; a URL; a
            GStreamer pipeline (``videotestsrc ! appsink``); ``-`` for standard input; or an
            iterable of frames, uint8 (height, width, 3) BGR. A ``Path`` is always a file or a
            folder, and so is a text that names one that is there.
        fps: Frames per second of images, raw frames and iterables, or to be asked of a camera.
            Of a video, it overrules what the video says: its frames are then that far apart.
        raw_size: Height and width; standard input then holds bare BGR frames.
        timeout_s: Longest wait for a network source, to answer and from packet to packet.
        pictures: ``video``: images are the frames of a video; ``single``: each stands for
            itself, and is marked as a cut; None: as their names and sizes say.

    Raises:
        UsageError: There is no such source, or the arguments do not fit it.
        SalstreamError: It is there, but cannot be opened. Iterating raises the same for a
            source that breaks off, after the frames that came, and for images that cannot be
            decoded, after all others.
    """
    if fps is not None and not 0 < fps < float("inf"):
        raise UsageError(f"fps must be above 0, got {fps}")
    if raw_size is not None and not (isinstance(source, str) and source == "-"):
        raise UsageError("raw_size describes frames on standard input: give '-' as the source")
    if pictures not in (None, *PICTURES_AS):
        raise UsageError(f"unknown pictures {pictures!r}; known: {', '.join(PICTURES_AS)}")
    if pictures is not None and _is_stream(source):
        raise UsageError(_NO_PICTURES.format(redact(str(source)), pictures))
    if isinstance(source, int | np.integer):
        from salstream.runtime.sources.camera import open_camera

        opened: Source = open_camera(int(source), fps)
    elif isinstance(source, Path):
        from salstream.runtime.sources.files import open_path

        opened = open_path(source, str(source), fps, pictures)
    elif isinstance(source, str):
        opened = _open_text(source, fps, raw_size, timeout_s, pictures)
    elif source_paths := paths_in(source):
        from salstream.runtime.sources.files import open_list

        opened = open_list(source_paths, fps, pictures)
    elif isinstance(source, Iterable):
        if pictures == "single" and fps is not None:
            raise UsageError("fps is the rate of a video: leave it out, or read pictures as video")
        images = cast("Iterable[NDArray[np.uint8]]", source)
        return Arrays(images, fps, single=pictures == "single")
    else:
        raise UsageError(
            "a source is a path, a camera number, a URL or an iterable of frames, "
            f"got {type(source).__name__}"
        )
    if pictures is not None and not hasattr(opened, "pictures"):
        opened.close()
        raise UsageError(_NO_PICTURES.format(opened.name, pictures))
    return opened


def paths_in(source: object) -> list[Path]:
    """Return the paths that a list or tuple holds; none if it holds anything else."""
    if not isinstance(source, list | tuple) or not all(isinstance(s, str | Path) for s in source):
        return []
    return [Path(item) for item in source]


def is_camera(text: str) -> bool:
    """Whether a text is a camera's number or device.

    A number is none where a file or folder has this name: who means that would otherwise be
    filmed.
    """
    if re.fullmatch(r"[0-9]+", text):
        return not _exists(text)
    return bool(re.match(r"/dev/(video|v4l/)", text))


def is_pipeline(text: str) -> bool:
    """Whether a text is a GStreamer pipeline, and no file or folder has such a name."""
    return " ! " in text and not _exists(Path(text).parts[0])


def _is_stream(source: object) -> bool:
    """Whether a source is a camera, a pipeline, a URL or standard input."""
    if not isinstance(source, str):
        return isinstance(source, int | np.integer)
    return source == "-" or is_camera(source) or is_pipeline(source) or has_scheme(source)


def _exists(text: str) -> bool:
    return os.path.exists(text)  # noqa: PTH110 - Path raises where a text is too long for a name


def _open_text(
    text: str,
    fps: float | None,
    raw_size: tuple[int, int] | None,
    timeout_s: float,
    pictures: PicturesAs | None,
) -> Source:
    if not text:
        raise UsageError("the name of the source is empty")
    if text == "-":
        return _open_standard_input(fps, raw_size)
    text = without_file_scheme(text)
    if is_camera(text):
        from salstream.runtime.sources.camera import open_camera

        # /dev/v4l holds links with telling names; OpenCV wants the number
        device = str(Path(text).resolve()) if text.startswith("/") else text
        number = re.fullmatch(r"(?:/dev/video)?([0-9]+)", device)
        if not number:
            raise UsageError(f"{text} is not a camera: expected one like /dev/video0")
        return open_camera(int(number[1]), fps)
    if re.fullmatch(r"[0-9]+", text):
        logger.warning(
            "%s is read as the file or folder of this name; the camera is /dev/video%s", text, text
        )
    if has_scheme(text):
        from salstream.runtime.sources.video import open_url

        return open_url(text, timeout_s, fps)
    if is_pipeline(text):
        from salstream.runtime.sources.camera import open_pipeline

        return open_pipeline(text)
    from salstream.runtime.sources.files import open_path

    return open_path(text, redact(text), fps, pictures)


def _open_standard_input(fps: float | None, raw_size: tuple[int, int] | None) -> Source:
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("nothing is piped in: '-' reads a video from standard input")
    stream: BinaryIO = sys.stdin.buffer
    if raw_size is not None:
        if min(raw_size) < 1:
            raise UsageError(f"raw_size must be height and width above 0, got {raw_size}")
        return RawFrames(stream, raw_size, fps or RAW_FPS)
    from salstream.runtime.sources.video import open_stream

    # unbuffered, because the buffer would wait until it is full and keep the frames waiting
    return open_stream(getattr(stream, "raw", stream), "standard input", fps)
