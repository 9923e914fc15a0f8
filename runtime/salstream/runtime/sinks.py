"""Where results go: an overlay video, maps as files, a window, a pipe."""

from __future__ import annotations

import io
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, Protocol, get_args

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from salstream.runtime.errors import SalstreamError, UsageError
from salstream.runtime.overlay import to_8_bits
from salstream.runtime.preprocess import placement
from salstream.runtime.results import Result
from salstream.runtime.sound import Sound, SoundTrack
from salstream.runtime.timeline import TIME_BASE, Timeline

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

MapFormat = Literal["png", "npy"]
MAP_FORMATS: Final = get_args(MapFormat)
WRITTEN_SUFFIXES: Final = (".mp4", ".mov", ".mkv")

logger = logging.getLogger("salstream")

_NO_WINDOW: Final = "no window can be opened here ({}); use --save or --maps instead"
_DEFAULT_FPS: Final = 30.0
_SAME_ASPECT: Final = 0.001


class Sink(Protocol):
    """Takes results in order; ``close`` completes what was written."""

    def write(self, result: Result) -> None:
        """Take one result."""
        ...

    def close(self) -> None:
        """Complete the output; safe to call again."""
        ...


class MapFolder:
    """One file per frame: ``000000.png`` (8 bits) or ``000000.npy`` (float32).

    Maps of pictures have the pictures' names. Each file appears under its name only when it
    is whole.

    Args:
        folder: Made if it is not there.
        form: ``png`` or ``npy``.

    Raises:
        SalstreamError: The folder cannot be made or written to.
    """

    def __init__(self, folder: Path, form: MapFormat = "png") -> None:
        if form not in MAP_FORMATS:
            raise UsageError(f"unknown map format {form!r}; known: {', '.join(MAP_FORMATS)}")
        self._folder = folder
        self._form = form
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()  # whether it can be written to
            old = sum(path.suffix in (".png", ".npy") for path in folder.iterdir())
        except FileExistsError as error:
            raise UsageError(f"cannot write maps to {folder}: it is not a folder") from error
        except OSError as error:
            raise SalstreamError(f"cannot write maps to {folder}: {error.strerror}") from error
        if old:
            logger.warning(
                "%s holds %d maps already: those of this run replace them where they have the same "
                "names",
                *(folder, old),
            )

    def write(self, result: Result) -> None:
        """Write the map of one frame, of the frame's own size."""
        if self._form == "png":
            content = _png(to_8_bits(result.saliency))
        else:
            buffer = io.BytesIO()
            np.save(buffer, result.saliency)
            content = buffer.getvalue()
        _write_whole(_place(self._folder, result, self._form), content)

    def close(self) -> None:
        """Nothing is left open."""


class Figures(MapFolder):
    """One PNG per frame: frame, conspicuity maps (shallow to deep) and saliency in a row."""

    def write(self, result: Result) -> None:
        """Write the figure of one frame."""
        _write_whole(_place(self._folder, result, "png"), _png(result.figure()))


class OverlayVideo:
    """The frames coloured by their saliency, as H.264 video at the source's own times.

    What was written stays playable whatever happens: the file is fragmented while it
    grows and becomes an ordinary one when it is closed. Frames keep their pixels, whose aspect
    the file says. Frames of another size or aspect than the first are fitted into that, with
    black bars where proportions differ. Without a frame there is no file in the end.

    Args:
        path: ``.mp4``, ``.mov`` or ``.mkv``.
        fps: Frame rate where the results have no times.
        opacity: Of the colour, in [0, 1].
        sound: Of the source, to be copied along; None: without sound.
        timeline: Of the video that this is a piece of, whose owner closes the sound; None: it is
            a whole one.
        begin: Where the piece begins on that, in ticks of ``TIME_BASE``.

    Raises:
        UsageError: The suffix is not known.
        SalstreamError: The file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        fps: float | None = None,
        opacity: float = 0.7,
        *,
        sound: Sound | None = None,
        timeline: Timeline | None = None,
        begin: int = 0,
    ) -> None:
        if path.suffix.lower() not in WRITTEN_SUFFIXES:
            raise UsageError(
                f"cannot save to {path}: expected one of the suffixes {', '.join(WRITTEN_SUFFIXES)}"
            )
        self._path = path
        self._fps = fps or _DEFAULT_FPS
        self._opacity = opacity
        self._sound = sound
        self._is_piece = timeline is not None
        self._timeline = timeline or Timeline(fps)
        self._begin = begin
        self._stream: VideoStream | None = None
        self._track: SoundTrack | None = None
        self._pixel_aspect = 1.0
        self._waiting: Packet[VideoStream] | None = None  # lasts until the next one
        self._failed = False
        fragmented = path.suffix.lower() in (".mp4", ".mov")
        # else up to 256 kB, or ten seconds where there is no sound, wait where a kill loses them
        options = {"flush_packets": "1", "max_interleave_delta": "1000000"}
        if fragmented:
            # without delay_moov there is no place for what sound has before its beginning
            options |= {"movflags": "hybrid_fragmented+delay_moov", "frag_duration": "1000000"}
        else:
            options["cluster_time_limit"] = "1000"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._new = not path.exists()
            path.open("ab").close()  # the encoder would open it with the first frame only
            self._container: OutputContainer | None = av.open(path, "w", options=options)
        except OSError as error:
            raise SalstreamError(f"cannot write {path}: {error.strerror}") from error

    def write(self, result: Result) -> None:
        """Add one frame."""
        self.add(result, self._timeline.place(result.time))

    def add(self, result: Result, place: int) -> None:
        """Add one frame at its place on the timeline, in ticks of ``TIME_BASE``."""
        if self._container is None:
            raise ValueError("the video is closed")
        image = result.overlay(self._opacity)
        if self._stream is None:
            self._stream = self._open_streams(self._container, image, result.pixel_aspect)
        width, height = self._stream.width, self._stream.height
        aspect = result.pixel_aspect / self._pixel_aspect
        frame = av.VideoFrame.from_ndarray(_fit(image, height, width, aspect), format="bgr24")
        frame.time_base = TIME_BASE
        frame.pts = place - self._begin
        with self._writing():
            self._write_sound(frame.pts)
            self._mux(self._container, self._stream.encode(frame))

    def close(self) -> None:
        """Write what the encoder still holds and complete the file."""
        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            with self._writing():
                if self._stream is not None and not self._failed:
                    self._mux(container, self._stream.encode(None))
                    self._end(container)
                container.close()
        finally:
            if self._sound is not None and not self._is_piece:
                self._sound.close()
            with suppress(OSError):  # no frame came, and what is empty plays nowhere
                if self._new and self._path.stat().st_size == 0:
                    self._path.unlink()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """After a failure nothing more is written: ffmpeg's muxers may crash."""
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            self._failed = True
            raise SalstreamError(f"cannot write {self._path}: {error.strerror}") from error

    def _mux(self, container: OutputContainer, packets: list[Packet[VideoStream]]) -> None:
        """Write packets, each when it is known how long it lasts."""
        for packet in packets:
            if self._waiting is not None:
                self._waiting.duration = (packet.pts or 0) - (self._waiting.pts or 0)
                container.mux(self._waiting)
            self._waiting = packet

    def _end(self, container: OutputContainer) -> None:
        """Write the last packet, which lasts one frame, and the sound up to its end."""
        if self._waiting is None:
            return
        self._waiting.duration = max(1, round(self._timeline.step_s / TIME_BASE))
        self._write_sound((self._waiting.pts or 0) + self._waiting.duration)
        container.mux(self._waiting)
        if self._track is not None:
            self._track.close()

    def _write_sound(self, end: int) -> None:
        if self._track is not None:
            shift_s = self._timeline.shift_s - float(self._begin * TIME_BASE)
            self._track.write_until(float(end * TIME_BASE), shift_s)

    def _open_streams(
        self, container: OutputContainer, image: NDArray[np.uint8], pixel_aspect: float
    ) -> VideoStream:
        rate = Fraction(self._fps).limit_denominator(1001)
        stream = container.add_stream("libx264", rate=rate)
        # 4:2:0 wants even sizes: an odd row or column is repeated.
        stream.height, stream.width = (length + length % 2 for length in image.shape[:2])
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = TIME_BASE
        self._pixel_aspect = pixel_aspect
        if pixel_aspect != 1:
            ratio = Fraction(pixel_aspect).limit_denominator(1000)
            stream.codec_context.sample_aspect_ratio = ratio
        # Without B-frames every frame keeps its own time, whatever the rate does.
        stream.options = {"preset": "superfast", "crf": "20", "bf": "0"}
        if self._sound is not None and self._sound.open():
            self._track = SoundTrack(container, self._sound)
        return stream


class RawFrames:
    """The coloured frames as raw BGR24 on a stream of bytes, for ffmpeg and the like.

    Args:
        out: For example ``sys.stdout.buffer``.
        opacity: Of the colour, in [0, 1].
    """

    def __init__(self, out: BinaryIO, opacity: float = 0.7) -> None:
        self._out = out
        self._opacity = opacity
        self._size: tuple[int, int] | None = None
        self._pixel_aspect = 1.0

    def write(self, result: Result) -> None:
        """Write one frame; one of another size or aspect than the first is fitted into that."""
        image = result.overlay(self._opacity)
        if self._size is None:
            self._size = image.shape[0], image.shape[1]
            self._pixel_aspect = result.pixel_aspect
        aspect = result.pixel_aspect / self._pixel_aspect
        try:
            self._out.write(_fit(image, *self._size, aspect).tobytes())
        except BrokenPipeError as error:  # the reader has seen enough
            raise StopStream from error
        except OSError as error:
            raise SalstreamError(f"cannot write the frames: {error.strerror}") from error

    def close(self) -> None:
        """Hand over what is buffered."""
        try:
            self._out.flush()
        except BrokenPipeError:
            pass
        except OSError as error:
            raise SalstreamError(f"cannot write the frames: {error.strerror}") from error


class Window:
    """A window on the screen; closing it, or Escape, ends the stream.

    Args:
        title: Of the window.
        opacity: Of the colour, in [0, 1].

    Raises:
        SalstreamError: pygame-ce is not installed, or there is no screen.
    """

    def __init__(self, title: str, opacity: float = 0.7) -> None:
        try:
            os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
            import pygame
        except ImportError as error:
            raise SalstreamError(
                "a window needs pygame-ce; install it with: pip install 'salstream[window]'"
            ) from error
        self._pygame = pygame
        self._opacity = opacity
        self._title = title
        try:
            pygame.display.init()
        except pygame.error as error:
            raise SalstreamError(_NO_WINDOW.format(error)) from error
        if pygame.display.get_driver() == "offscreen":  # what SDL falls back to
            raise SalstreamError(_NO_WINDOW.format("there is no display"))

    def write(self, result: Result) -> None:
        """Show one frame."""
        pygame = self._pygame
        image = result.as_shown().overlay(self._opacity)
        height, width = image.shape[:2]
        screen = pygame.display.get_surface()
        if screen is None or screen.get_size() != (width, height):
            screen = pygame.display.set_mode((width, height))
            pygame.display.set_caption(self._title)
        screen.blit(pygame.image.frombuffer(image.tobytes(), (width, height), "BGR"), (0, 0))
        pygame.display.flip()
        for event in pygame.event.get():
            escape = event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE
            if event.type == pygame.QUIT or escape:
                raise StopStream

    def close(self) -> None:
        """Close the window."""
        self._pygame.display.quit()


class Picture:
    """One PNG with a frame and its map side by side.

    Args:
        path: The file to write.
        index: The frame to take; the last one if the source ends before it.
    """

    def __init__(self, path: Path, index: int) -> None:
        self._path = path
        self._index = index
        self._result: Result | None = None

    def write(self, result: Result) -> None:
        """Keep the result until the wanted frame has come."""
        if result.index <= self._index:
            self._result = result

    def close(self) -> None:
        """Write the picture."""
        if self._result is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(self._path, _png(self._result.figure()))


class StopStream(Exception):  # noqa: N818 - a wish, no error
    """A sink asks for an orderly end."""


def _place(folder: Path, result: Result, suffix: str) -> Path:
    """Return where a frame's own file belongs; pictures in folders have theirs in such."""
    path = folder / f"{result.output_name}.{suffix}"
    if path.parent != folder:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SalstreamError(f"cannot write {path}: {error.strerror}") from error
    return path


def _png(image: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears under its name only when it is whole."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except BaseException as error:  # the run may be asked to end right here
        with suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise SalstreamError(f"cannot write {path}: {error.strerror}") from error
        raise


def _fit(image: NDArray[np.uint8], height: int, width: int, aspect: float) -> NDArray[np.uint8]:
    """Bring an image to a size, in proportion; one missing row or column is repeated, not scaled.

    Args:
        image: (height, width, 3).
        height: Wanted.
        width: Wanted.
        aspect: Width of the image's pixels as they are shown, divided by that of the wanted ones.
    """
    if abs(aspect - 1) < _SAME_ASPECT:
        if image.shape[:2] == (height, width):
            return image
        below, right = height - image.shape[0], width - image.shape[1]
        if below in (0, 1) and right in (0, 1):
            return np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge")
    top, left, inner_height, inner_width = placement(image.shape[:2], (height, width), aspect)
    fitted = np.zeros((height, width, 3), np.uint8)
    fitted[top : top + inner_height, left : left + inner_width] = cv2.resize(
        image, (inner_width, inner_height), interpolation=cv2.INTER_AREA
    )
    return fitted
