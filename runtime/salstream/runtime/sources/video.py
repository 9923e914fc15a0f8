"""Videos that PyAV decodes: files, standard input and network streams."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

import av
import av.container
import av.error

from salstream.runtime.errors import SalstreamError, UnusableSource, UsageError
from salstream.runtime.sources.address import parse_url, redact
from salstream.runtime.sources.backlog import Backlog, Pace, StamplessBacklog
from salstream.runtime.sources.base import Frame, Reader, time_of
from salstream.runtime.sources.clock import Clock
from salstream.runtime.sources.convert import Converter
from salstream.runtime.sources.demuxer import MAX_PIXELS, Demuxer
from salstream.runtime.sources.failures import failure
from salstream.runtime.sources.mjpeg import Answer, JpegStream, request
from salstream.runtime.sources.parts import FilePart, Part

logger = logging.getLogger("salstream")

Location = str | BinaryIO | FilePart | Answer | JpegStream  # what PyAV opens

_IN_PIECES: Final = ("hls", "dash")
_WAIT_S: Final = 0.003  # what is there already is read faster
_LOOK_S: Final = 0.1  # how soon the end of a wait is noticed
_ARRIVALS: Final = 64  # more than any decoder holds back

_URL_OPTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    # UDP only where the camera refuses TCP: every lost packet would show
    "rtsp": {"rtsp_flags": "prefer_tcp", "analyzeduration": "1000000"},
    "rtsps": {"rtsp_flags": "prefer_tcp", "analyzeduration": "1000000"},
    "rtmp": {"analyzeduration": "1000000"},
    "udp": {"overrun_nonfatal": "1", "analyzeduration": "2000000"},
    "tcp": {"analyzeduration": "2000000"},
    "srt": {"analyzeduration": "2000000"},
}


def open_file(path: Path, fps: float | None = None) -> Video:
    """Open a video file.

    Args:
        path: The file.
        fps: Frames per second, whatever the file says; None: as it says.

    Raises:
        OSError: It may not be read.
        SalstreamError: It is not a video that can be decoded.
    """
    if path.is_file():
        with path.open("rb") as file:
            if not file.read(1):
                raise SalstreamError(f"{path} is empty: expected a video")
    # the prefix keeps ffmpeg from reading a protocol or a pattern into the name
    return _open(f"file:{path}", str(path), rewinds=path.is_file(), path=path, fps=fps)


def open_stream(stream: BinaryIO, name: str, fps: float | None = None) -> Video:
    """Open a video that is read from a binary stream, which need not seek.

    Raises:
        SalstreamError: It is not a video that can be decoded.
    """
    return _open(stream, name, rewinds=stream.seekable(), fps=fps)


def open_url(url: str, timeout_s: float, fps: float | None = None) -> Video:
    """Open a network stream; a plain file behind http:// is not live.

    Raises:
        UsageError: It is no URL, or one that cannot be read.
        SalstreamError: It does not answer within ``timeout_s`` seconds, refuses, or sends no
            video.
    """
    address = parse_url(url)
    if address is None:
        raise UsageError(f"{redact(url)} is not a URL")
    opened = partial(
        _open,
        name=address.shown,
        scheme=address.scheme,
        timeout_s=timeout_s,
        rewinds=False,
        fps=fps,
    )
    if address.scheme in ("http", "https"):

        def ask() -> Answer | None:
            begin = time.monotonic()
            try:
                return request(address, timeout_s)
            except (av.FFmpegError, OSError) as error:
                refused = failure(error, address.shown, address.scheme, timeout_s, begin)
            # not inside the block, where the error and its address would be this one's context
            raise refused

        answer = ask()
        if answer is not None and answer.kind in ("text/html", "application/xhtml+xml"):
            answer.close()
            raise UnusableSource(
                f"{address.shown} answers with a web page, which is not a video: check the path"
            )
        if answer is not None and answer.sends_pictures:
            return opened(JpegStream(answer, ask, address.shown), form="mpjpeg")
        if answer is not None and answer.is_stream:  # a sender that may serve nobody twice
            return opened(answer)
        if answer is not None:
            answer.close()
    return opened(address.url)


def _open(
    location: Location,
    name: str,
    *,
    form: str | None = None,
    scheme: str | None = None,
    timeout_s: float = 0,
    rewinds: bool = True,
    path: Path | None = None,
    fps: float | None = None,
) -> Video:
    container = _open_container(
        location, name, form=form, scheme=scheme, timeout_s=timeout_s, path=path
    )
    try:
        return Video(
            container,
            name,
            scheme=scheme,
            timeout_s=timeout_s,
            rewinds=rewinds,
            path=path,
            fps=fps,
        )
    except BaseException:
        container.close()
        raise


def _open_container(
    location: Location,
    name: str,
    *,
    form: str | None = None,
    scheme: str | None = None,
    timeout_s: float = 0,
    path: Path | None = None,
) -> av.container.InputContainer:
    # ffmpeg decodes a picture to learn about a stream; other options go to protocol and container
    options = {"max_pixels": str(MAX_PIXELS), **_URL_OPTIONS.get(scheme or "", {})}
    asked_s = time.monotonic()
    try:
        return av.open(
            location,
            "r",
            format=form,
            options=options,
            timeout=timeout_s if scheme else None,
            metadata_errors="replace",  # a title in another encoding is no reason to refuse
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        refused = failure(error, name, scheme, timeout_s, asked_s, path)
    # not inside the block, where the error and its address would be this one's context
    raise refused


class Video(Reader):
    """A container whose film, the best of its video streams, is decoded frame by frame.

    Args:
        container: Just opened.
        name: For people.
        scheme: Of a URL; None: no network.
        timeout_s: Longest silence of a network source.
        rewinds: Whether the container can be read again from its beginning.
        path: Of a plain file.
        fps: Frames per second, whatever the container says; None: as it says, unless its
            timestamps contradict it.

    Attributes:
        dropped: Packets of a live source that were left out because decoding could not keep up.
        path: Of a plain file; None: it is none.
        parts: What the file is read as: one container, or several where files were put end to end
            that FFmpeg reads one by one. The list grows while the file is read.
        rate_given: Whether ``fps`` is the caller's.
    """

    def __init__(
        self,
        container: av.container.InputContainer,
        name: str,
        *,
        scheme: str | None,
        timeout_s: float,
        rewinds: bool,
        path: Path | None = None,
        fps: float | None = None,
    ) -> None:
        live = scheme is not None and not (scheme in ("http", "https") and container.duration)
        super().__init__(name, live=live)
        self.dropped = 0
        self.path = path
        self.rate_given = fps is not None
        self._timeout_s = timeout_s
        self._rewinds = rewinds
        self._undecodable = 0  # packets, or pictures that cannot be converted
        demuxer = self._use(container, 0)
        # without timestamps of its own, ffmpeg would invent 25 frames per second
        self._arrival_clock = live and demuxer.bare
        self._evenly = not live and (demuxer.bare or fps is not None)
        self.fps = fps or (None if self._arrival_clock else demuxer.rate())
        self.frame_count = demuxer.frame_count()
        self._clock = Clock(demuxer.time_base, self.fps, joins=demuxer.joins)
        self.parts = [Part(0, 0, 0.0)]
        self._part_file: FilePart | None = None
        self._arrivals: dict[int, float] = {}  # of packets, by the time that their picture shows
        self._last_arrived_s = 0.0  # of the frame before
        self._began_s = 0.0  # when the first frame came, where times are those of arrival
        self._cut = False
        # what comes in pieces of seconds lies unread by nature, until its turn comes
        pieces = live and container.format.name in _IN_PIECES
        self._pace = Pace() if pieces else None
        self._backlog: Backlog | StamplessBacklog | None = None
        if live and not pieces:
            self._backlog = StamplessBacklog() if self._arrival_clock else Backlog()

    def _use(self, container: av.container.InputContainer, begin: int) -> Demuxer:
        """Read a container that begins at a byte of the file from now on."""
        self._demuxer = demuxer = Demuxer(
            container,
            self.name,
            live=self.live,
            timeout_s=self._timeout_s,
            rewinds=self._rewinds,
            path=self.path,
            begin=begin,
        )
        self._decoder = demuxer.film.codec_context
        self._convert = Converter(demuxer.film, self.name)
        self._order = demuxer.order()
        return demuxer

    @property
    def damaged(self) -> int:
        """Packets that were left out because they could not be decoded."""
        return self._undecodable + self._demuxer.damaged

    @property
    def offsets(self) -> list[float]:
        """Seconds to be added to the file's own timestamps to give times of frames.

        One for the beginning, and one more after each seam; the list grows while the file is
        read. It stays empty where times do not follow timestamps.
        """
        return self._clock.offsets

    def _read(self) -> Iterator[Frame]:
        index: int | None = 0
        try:
            while index is not None:
                first = index
                for frame in self._read_part(first):
                    yield frame
                    index = frame.index + 1
                index = index if self._go_on(index - first) else None
        finally:
            if self.damaged:
                logger.warning("%s: damaged packets left out: %d", self.name, self.damaged)

    def _read_part(self, index: int) -> Iterator[Frame]:
        """Yield the frames of the container that is open, the first one with this index."""
        for picture in self._pictures():
            # encoders that look ahead send pictures in another order
            arrived_s = self._arrivals.pop(picture.pts or 0, self._demuxer.arrived_s)
            time_s = self._time(picture, index, arrived_s)
            try:
                image, pixel_aspect = self._convert(picture)
            except av.FFmpegError:
                self._undecodable += 1
                continue
            if self._pace is not None and time_s is not None:
                arrived_s = self._wait_for_turn(self._pace, time_s)
            yield Frame(index, time_s, image, self._cut, arrived_s, pixel_aspect)
            self._cut = False
            index += 1

    def _go_on(self, frames: int) -> bool:
        """Open what follows behind a seam that ffmpeg does not read across; False: nothing does.

        Args:
            frames: How many the container had that has come to its end.
        """
        begin = self._demuxer.next_part()
        if begin is None or not self._demuxer.broken:  # a seam may look like damage
            self._check_end(frames)
        if begin is None or self.path is None:
            return False
        file = FilePart(self.path, begin)
        try:
            container = _open_container(file, self.name, path=self.path)
        except BaseException:
            file.close()
            raise
        self._release()
        self._part_file = file
        self._undecodable += self._demuxer.damaged
        self._clock.begin_part(self._use(container, begin).time_base)
        self.parts.append(Part(begin, len(self.offsets), self._clock.next_s))
        self._cut = True
        return True

    def _wait_for_turn(self, pace: Pace, time_s: float) -> float:
        """Wait until a frame is due, and return when that is."""
        now_s = time.monotonic()
        due_s = now_s + max(0.0, pace.wait_s(now_s, time_s))
        while not self._closing and (left_s := due_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _LOOK_S))
        return due_s

    def _check_end(self, frames: int) -> None:
        """Raise if there should have been more than these frames."""
        self._demuxer.check_end(frames, self.fps)
        if frames == 0:
            why = ": it is damaged, or its pictures are too large" if self.damaged else ""
            raise SalstreamError(f"{self.name} has no frame that can be decoded{why}")

    def close(self) -> None:
        """Let go of the file or the connection; may be called again."""
        self._demuxer.closing = True
        super().close()

    def _release(self) -> None:
        self._demuxer.container.close()
        if self._part_file is not None:
            self._part_file.close()

    def _pictures(self) -> Iterator[av.VideoFrame]:
        seen = time.monotonic()
        for packet in self._demuxer.packets():
            if self._is_late(packet):
                self.dropped += 1
                seen = time.monotonic()
                continue
            stamp = self._demuxer.stamp_of(packet)
            if self._order is not None and stamp is not None:
                self._order.push(stamp)
            for picture in self._decode(packet):
                yield picture
                seen = time.monotonic()
            if self.live and self._demuxer.arrived_s - seen > self._timeout_s:
                only = ", only damaged or too large ones" if self.damaged else ""
                self._demuxer.broken = f"no picture for {self._timeout_s:g} s{only}"
                return
        # after a silence, what the decoder holds back is too old
        if not self.live or time.monotonic() - self._demuxer.arrived_s < self._timeout_s:
            yield from self._decode(None)

    def _is_late(self, packet: av.Packet[Any]) -> bool:
        """Whether a packet has to be left out, to catch up; else note when it came."""
        arrived_s = self._demuxer.arrived_s
        if self._backlog is not None and (packet.dts is not None or self._arrival_clock):
            dropping = self._backlog.dropping
            lag_s = self._backlog.add(
                arrived_s,
                float((packet.dts or 0) * packet.time_base),
                waited=self._demuxer.read_s > _WAIT_S,
                key=packet.is_keyframe,
            )
            if self._backlog.dropping:
                return True
            if dropping:
                self._decoder.flush_buffers()
                self._arrivals.clear()
                self._cut = True
            arrived_s -= lag_s
        if self.live and packet.pts is not None:
            self._arrivals[packet.pts] = arrived_s
            if len(self._arrivals) > _ARRIVALS:
                del self._arrivals[next(iter(self._arrivals))]
        return False

    def _decode(self, packet: av.Packet[Any] | None) -> list[av.VideoFrame]:
        try:
            return self._decoder.decode(packet)
        except av.error.EOFError:
            return []
        except av.FFmpegError:
            self._undecodable += 1
            return []

    def _time(self, picture: av.VideoFrame, index: int, arrived_s: float) -> float | None:
        """Return a picture's time, and remember a cut where the timestamps have a seam."""
        if self._arrival_clock:
            now_s = time.monotonic()
            self._began_s = self._began_s or now_s
            return now_s - self._began_s
        if self._evenly:
            return time_of(index, self.fps)
        stamp = picture.pts if self._order is None else self._order.pop(picture.pts)
        if stamp is None and self.fps is None and not self._clock.offsets:
            return None
        # past a seam a live stream goes on by this machine's clock
        pause_s = arrived_s - self._last_arrived_s if self.live else 0.0
        self._last_arrived_s = arrived_s
        time_s, seam = self._clock.add(stamp, picture.duration, pause_s=pause_s)
        self._cut = self._cut or seam
        return time_s
