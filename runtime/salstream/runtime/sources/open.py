"""From whatever frames can come from to a ``Source``."""

from __future__ import annotations

import glob
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.errors import SalstreamError, UsageError
from salstream.runtime.sources.address import has_scheme, redact
from salstream.runtime.sources.base import Source
from salstream.runtime.sources.memory import Arrays, RawFrames

RAW_FPS: Final = 30.0


def open_source(
    source: str | Path | int | Iterable[NDArray[np.uint8]],
    *,
    fps: float | None = None,
    raw_size: tuple[int, int] | None = None,
    timeout_s: float = 5.0,
) -> Source:
    """Open whatever frames can come from.

    Args:
        source: A video file, an image, a folder of images or a glob; a camera number or
            device; a URL; a GStreamer pipeline (``videotestsrc ! appsink``); ``-`` for
            standard input; or an iterable of frames, uint8 (height, width, 3) BGR. A
            ``Path`` is always a file or a folder, whatever its name.
        fps: Frames per second of images, raw frames and iterables, or to be asked of a camera.
            Of a video, it overrules what the video says: its frames are then that far apart.
        raw_size: Height and width; standard input then holds bare BGR frames.
        timeout_s: Longest wait for a network source, to answer and from packet to packet.

    Raises:
        UsageError: There is no such source, or the arguments do not fit it.
        SalstreamError: It is there, but cannot be opened. Iterating raises the same for a
            source that breaks off, after the frames that came.
    """
    if fps is not None and not 0 < fps < float("inf"):
        raise UsageError(f"fps must be above 0, got {fps}")
    if raw_size is not None and not (isinstance(source, str) and source == "-"):
        raise UsageError("raw_size describes frames on standard input: give '-' as the source")
    if isinstance(source, int | np.integer):
        from salstream.runtime.sources.camera import open_camera

        return open_camera(int(source), fps)
    if isinstance(source, Path):
        return _open_path(source, fps)
    if isinstance(source, str):
        return _open_text(source, fps, raw_size, timeout_s)
    if isinstance(source, Iterable):
        return Arrays(source, fps)
    raise UsageError(
        "a source is a path, a camera number, a URL or an iterable of frames, "
        f"got {type(source).__name__}"
    )


def _open_text(
    text: str, fps: float | None, raw_size: tuple[int, int] | None, timeout_s: float
) -> Source:
    if text == "-":
        return _open_standard_input(fps, raw_size)
    if re.fullmatch(r"[0-9]+", text) or re.match(r"/dev/(video|v4l/)", text):
        from salstream.runtime.sources.camera import open_camera

        # /dev/v4l holds links with telling names; OpenCV wants the number
        device = str(Path(text).resolve()) if text.startswith("/") else text
        number = re.fullmatch(r"(?:/dev/video)?([0-9]+)", device)
        if not number:
            raise UsageError(f"{text} is not a camera: expected one like /dev/video0")
        return open_camera(int(number[1]), fps)
    if has_scheme(text):
        from salstream.runtime.sources.video import open_url

        return open_url(text, timeout_s, fps)
    if " ! " in text:
        from salstream.runtime.sources.camera import open_pipeline

        return open_pipeline(text)
    return _open_path(Path(text), fps, redact(text))


def _open_path(path: Path, fps: float | None, shown: str | None = None) -> Source:
    from salstream.runtime.sources.images import IMAGE_SUFFIXES, Images, images_among

    try:
        if path.is_dir():
            images = images_among(path.iterdir())
        elif path.exists():
            if path.suffix.lower() not in IMAGE_SUFFIXES:
                from salstream.runtime.sources.video import open_file

                return open_file(path, fps)
            images = [path]
        elif glob.has_magic(str(path)):
            # Path.glob takes no absolute patterns
            found = glob.iglob(str(path), recursive=True)  # noqa: PTH207
            images = images_among(Path(name) for name in found)
        else:
            raise UsageError(
                f"{shown or path} does not exist: expected a video, an image, a folder of images, "
                "a camera number or a URL"
            )
    except (OSError, ValueError) as error:
        why = (getattr(error, "strerror", None) or str(error)).lower()
        raise SalstreamError(f"{shown or path} cannot be read: {why}") from error
    if not images:
        raise UsageError(
            f"no images at {shown or path}: expected names in {', '.join(IMAGE_SUFFIXES)}"
        )
    return Images(str(path), images, fps)


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
