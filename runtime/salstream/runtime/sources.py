"""Where frames come from: everything that can be streamed, behind one interface.

``open_source`` takes a video file, images, a camera, a URL, standard input or any iterable
and gives a ``Source``: an iterator of frames that holds one decoded frame at a time.
"""

from __future__ import annotations

import glob
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.errors import SalstreamError, UsageError

__all__ = ["Frame", "Source", "open_source", "redact"]

SCHEMES: Final = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "srt")
RAW_FPS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a source.

    Attributes:
        index: 0, 1, 2, … in the order that the source gave them.
        time: Seconds since the source's first frame; None where the source has no clock.
        image: (height, width, 3) BGR.
        cut: True where it does not follow the frame before it: windows and states start anew.
        captured_s: When its data arrived, on the clock of ``time.monotonic``; None: not known.
    """

    index: int
    time: float | None
    image: NDArray[np.uint8]
    cut: bool = False
    captured_s: float | None = None


class Source(Protocol):
    """One pass over frames; it ends by itself, by ``close`` or by leaving a ``with`` block.

    Attributes:
        name: For people; passwords are replaced by ``***``.
        fps: Frames per second; None: unknown.
        live: True where frames cannot wait (camera, network): who reads too slowly has to
            drop frames, or lags further and further behind.
        frame_count: As declared by the container; None: unknown.
    """

    name: str
    fps: float | None
    live: bool
    frame_count: int | None

    def __iter__(self) -> Iterator[Frame]: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    def close(self) -> None:
        """Let go of the file, the camera or the connection; may be called again.

        While another thread waits for a frame, that thread lets go, once the frame or the
        source's timeout has come.
        """


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
        fps: Frames per second of a source without a clock (images, raw frames, an
            iterable), or to be asked of a camera. Videos have their own.
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
        from salstream.runtime.opencv_sources import open_camera

        return open_camera(int(source), fps)
    if isinstance(source, Path):
        return _open_path(source, fps)
    if isinstance(source, str):
        return _open_text(source, fps, raw_size, timeout_s)
    if isinstance(source, Iterable):
        return _Iterable(source, fps)
    raise UsageError(
        "a source is a path, a camera number, a URL or an iterable of frames, "
        f"got {type(source).__name__}"
    )


def has_scheme(text: str) -> bool:
    """Whether it is a URL.

    Raises:
        UsageError: It is one, of a scheme that is not known.
    """
    if " ! " in text:
        return False  # a GStreamer pipeline, perhaps with a URL in it
    scheme, found, _ = text.partition("://")
    if found and scheme.lower() not in SCHEMES:
        known = ", ".join(f"{known}://" for known in SCHEMES)
        raise UsageError(f"{redact(text)} cannot be opened: expected one of {known}")
    return bool(found)


def redact(text: str) -> str:
    """Replace the passwords in URLs and GStreamer pipelines by ``***``."""
    for pattern in _SECRETS:
        text = pattern.sub(r"\1***", text)
    return text if "***" in text or " ! " in text else _MISTYPED.sub(r"\1***", text)


_SECRETS: Final = (
    # user:password@host, even with @, / or # left bare in the password; digits and a slash
    # after the colon are a port
    re.compile(r"(://[^\s:/?#]*:)(?:[^\s/?#]*|(?!\d+/)\S*)(?=@)"),
    # ?token=…, user=me_password=…_channel=1, and user-pw="…" in a pipeline. One word too many
    # costs a less telling message, one too few a password.
    re.compile(
        r"(?i)((?:(?<![\w.-])(?=[\w.-]*(?:pas|psw|pw|secret|token|key|cred|sig|auth|hmac|jwt))"
        r"[\w.-]++|(?<=[?&])p)[ \t]*=[ \t]*)"
        r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|["'].+"""  # the last one is not closed
        r"""|(?:\\.|(?!_[a-z]+=[^\s&=]|["'](?:\s|$))[^\s&])+)"""
    ),
    # digits and a slash that are a password all the same: of what else could be a port and a
    # path with an @, only this has a host after it
    re.compile(
        r"""(://[^\s:/?#]*:)\d+/[^\s?#]*(?=@(?:\[[^\s\]]*\]|[\w.-]+)(?::\d+)?(?:[/\s"']|$))"""
    ),
)


# What was meant as a URL with a password: spaces in it, slashes and colons that are too many or
# too few, no scheme. Other texts are files, or have a port after the colon.
_MISTYPED: Final = re.compile(
    r"(?is)^((?:[\w-]+\s*=\s*)?"
    r"(?:[\w+.-]+(?:[:;][/\\]*|[/\\]{2,})|(?:rtsps?|rtmps?|https?|udp|tcp|srt|rtp|mms)[/\\])?"
    r"[^\s:/\\?#@\[]*:)(?!//|\d+(?:[/?#]|$)).+(?=@(?:\[[^\]]*\]|[\w.-]+)(?::\d+)?(?:[/?#\s]|$))"
)


class Reader(ABC):
    """What the kinds of source share: one pass, and an end that lets go of everything."""

    def __init__(
        self,
        name: str,
        *,
        fps: float | None = None,
        live: bool = False,
        frame_count: int | None = None,
    ) -> None:
        self.name = redact(name)
        self.fps = fps
        self.live = live
        self.frame_count = frame_count
        self._closing = False
        self._frames = self._guarded()

    @abstractmethod
    def _read(self) -> Iterator[Frame]:
        """Yield all frames."""

    def _release(self) -> None:  # noqa: B027 - most kinds hold nothing
        """Let go of the file or the device; may be called again."""

    def _guarded(self) -> Generator[Frame]:
        try:
            for frame in self._read():
                if self._closing:
                    return
                yield frame
        finally:
            self._release()

    def __iter__(self) -> Iterator[Frame]:
        return self._frames

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._closing = True
        try:
            self._frames.close()
        except ValueError:
            return  # another thread is reading; it lets go when its frame has come
        self._release()


def time_of(index: int, fps: float | None) -> float | None:
    """Return when a frame is due in a source without a clock, in seconds."""
    return index / fps if fps else None


class _Iterable(Reader):
    def __init__(self, images: Iterable[NDArray[np.uint8]], fps: float | None) -> None:
        super().__init__("frames", fps=fps)
        self._images = images

    def _read(self) -> Iterator[Frame]:
        for index, image in enumerate(self._images):
            if not isinstance(image, np.ndarray):
                got = type(image).__name__
            elif image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                got = f"{image.dtype} of shape {image.shape}"
            elif image.size == 0:
                got = f"an empty one of shape {image.shape}"
            else:
                yield Frame(index, time_of(index, self.fps), image)
                continue
            raise UsageError(
                f"frame {index} must be a uint8 array of shape (height, width, 3), got {got}"
            )


class _RawFrames(Reader):
    """Bare BGR frames, one after the other."""

    def __init__(self, stream: BinaryIO, size: tuple[int, int], fps: float) -> None:
        super().__init__("standard input", fps=fps)
        self._stream = stream
        self._size = size

    def _read(self) -> Iterator[Frame]:
        index = 0
        while True:
            image = np.empty((*self._size, 3), np.uint8)
            got = self._fill(image.data.cast("B"))
            if got < image.nbytes:
                break
            yield Frame(index, time_of(index, self.fps), image)
            index += 1
        if got or index == 0:
            raise SalstreamError(
                f"standard input ended inside frame {index}: expected {image.nbytes} bytes for "
                f"{self._size[0]} x {self._size[1]} BGR, got {got}; check raw_size and what is "
                "piped in"
            )

    def _fill(self, view: memoryview) -> int:
        filled = 0
        while filled < len(view):
            # every binary stream has it, but typeshed's BinaryIO does not
            got: int = self._stream.readinto(view[filled:])  # type: ignore[attr-defined]
            if not got:
                break
            filled += got
        return filled


def _open_text(
    text: str, fps: float | None, raw_size: tuple[int, int] | None, timeout_s: float
) -> Source:
    if text == "-":
        return _open_standard_input(fps, raw_size)
    if re.fullmatch(r"[0-9]+", text) or re.match(r"/dev/(video|v4l/)", text):
        from salstream.runtime.opencv_sources import open_camera

        # /dev/v4l holds links with telling names; OpenCV wants the number
        device = str(Path(text).resolve()) if text.startswith("/") else text
        number = re.fullmatch(r"(?:/dev/video)?([0-9]+)", device)
        if not number:
            raise UsageError(f"{text} is not a camera: expected one like /dev/video0")
        return open_camera(int(number[1]), fps)
    if " ! " in text:
        from salstream.runtime.opencv_sources import open_pipeline

        return open_pipeline(text)
    if has_scheme(text):
        from salstream.runtime.video import open_url

        return open_url(text, timeout_s)
    return _open_path(Path(text), fps, redact(text))


def _open_path(path: Path, fps: float | None, shown: str | None = None) -> Source:
    from salstream.runtime.opencv_sources import IMAGE_SUFFIXES, Images, images_among

    try:
        if path.is_dir():
            images = images_among(path.iterdir())
        elif path.exists():
            if path.suffix.lower() not in IMAGE_SUFFIXES:
                from salstream.runtime.video import open_file

                return open_file(path)
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
        return _RawFrames(stream, raw_size, fps or RAW_FPS)
    from salstream.runtime.video import open_stream

    # unbuffered, because the buffer would wait until it is full and keep the frames waiting
    return open_stream(getattr(stream, "raw", stream), "standard input")
