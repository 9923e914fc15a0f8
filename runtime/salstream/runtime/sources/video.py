"""Videos that PyAV decodes: files, standard input and network streams."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import av
import av.container
import av.error
import av.format
import av.stream

from salstream.runtime.errors import SalstreamError, UnusableSource
from salstream.runtime.sources.address import redact
from salstream.runtime.sources.backlog import Backlog, Pace, StamplessBacklog
from salstream.runtime.sources.base import Frame, Reader, time_of
from salstream.runtime.sources.convert import Converter

logger = logging.getLogger("salstream")

# ffmpeg's own rule, one more than there are cores, goes up to 16; but each thread holds a
# frame, and four are faster than any model that follows.
DECODING_THREADS: Final = min(4, (os.cpu_count() or 1) + 1)

# Larger pictures are refused before they take memory; four pictures of 8K fit.
MAX_PIXELS: Final = 1 << 27

# Containers that state a duration at their start and no number of frames.
_STATE_DURATION: Final = ("matroska,webm", "flv")
# How far short of its stated duration a whole file may end: muxers round, and some count
# the last frame twice.
_DURATION_SLACK_S: Final = 0.5

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


def open_file(path: Path) -> Video:
    """Open a video file.

    Raises:
        OSError: It may not be read.
        SalstreamError: It is not a video that can be decoded.
    """
    if path.is_file():
        with path.open("rb") as file:
            if not file.read(1):
                raise SalstreamError(f"{path} is empty: expected a video")
    # the prefix keeps ffmpeg from reading a protocol or a pattern into the name
    return _open(f"file:{path}", str(path))


def open_stream(stream: BinaryIO, name: str) -> Video:
    """Open a video that is read from a binary stream, which need not seek.

    Raises:
        SalstreamError: It is not a video that can be decoded.
    """
    return _open(stream, name, rewinds=stream.seekable())


def open_url(url: str, timeout_s: float) -> Video:
    """Open a network stream; a plain file behind http:// is not live.

    Raises:
        SalstreamError: It does not answer within ``timeout_s`` seconds, refuses, or sends no
            video.
    """
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    return _open(f"{scheme}://{rest}", url, scheme=scheme, timeout_s=timeout_s, rewinds=False)


def _open(
    location: str | BinaryIO,
    name: str,
    *,
    scheme: str | None = None,
    timeout_s: float = 0,
    rewinds: bool = True,
) -> Video:
    # ffmpeg decodes a picture to learn about a stream; other options go to protocol and container
    options = {"max_pixels": str(MAX_PIXELS), **_URL_OPTIONS.get(scheme or "", {})}
    begin = time.monotonic()
    try:
        container = av.open(
            location,
            "r",
            options=options,
            timeout=timeout_s if scheme else None,
            metadata_errors="replace",  # a title in another encoding is no reason to refuse
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        waited_s = time.monotonic() - begin
        why = _why(error, scheme, timeout_s, waited_s)
        unusable = isinstance(error, _UNUSABLE) and not _is_silence(error, timeout_s, waited_s)
        if scheme in ("rtsp", "rtsps") and isinstance(error, av.error.InvalidDataError):
            unusable = False  # a camera that is booting accepts and hangs up
        kind = UnusableSource if unusable else SalstreamError
        # without its cause, whose text gives away the URL's password
        raise kind(f"{redact(name)} {why}") from None
    try:
        return Video(container, name, scheme=scheme, timeout_s=timeout_s, rewinds=rewinds)
    except BaseException:
        container.close()
        raise


class Video(Reader):
    """A container whose best video stream is decoded frame by frame.

    Attributes:
        damaged: Packets that were left out because they could not be decoded.
        dropped: Packets of a live source that were left out because decoding could not keep up.
    """

    def __init__(
        self,
        container: av.container.InputContainer,
        name: str,
        *,
        scheme: str | None,
        timeout_s: float,
        rewinds: bool,
    ) -> None:
        stream = container.streams.best("video")
        if not isinstance(stream, av.VideoStream) or container.format.name == "tty":
            # ffmpeg has a demuxer that draws text files
            raise UnusableSource(f"{redact(name)} has no video in it: expected a video")
        if av.stream.Disposition.dependent in stream.disposition:
            raise UnusableSource(
                f"{redact(name)} is a picture in tiles, of which only one would be read here: open "
                "it as a file, or convert it to JPEG or PNG"
            )
        if av.stream.Disposition.attached_pic in stream.disposition:
            raise UnusableSource(
                f"{redact(name)} has no video in it, only sound and a cover picture"
            )
        context = stream.codec_context
        if context is None:
            raise UnusableSource(
                f"{redact(name)} cannot be decoded: this PyAV has no decoder for its video; "
                "convert it to H.264 first"
            )
        if context.width * context.height > MAX_PIXELS:
            raise UnusableSource(
                f"{redact(name)} has pictures of {context.width}x{context.height} pixels: at most "
                f"{MAX_PIXELS // 1_000_000} million are taken; make them smaller"
            )
        live = scheme is not None and not (scheme in ("http", "https") and container.duration)
        rate = stream.average_rate or stream.guessed_rate
        fps = float(rate) if rate and 0 < rate < 1000 else None
        # without timestamps of its own, ffmpeg would invent 25 frames per second
        flags = av.format.Flags(container.format.flags)
        self._arrival_clock = live and av.format.Flags.no_timestamps in flags
        super().__init__(
            name,
            fps=None if self._arrival_clock else fps,
            live=live,
            frame_count=stream.frames or None,
        )
        # frame threads hold frames back, so a live stream does without them
        stream.thread_type = "SLICE" if live else "AUTO"
        context.thread_count = DECODING_THREADS
        context.options = {"max_pixels": str(MAX_PIXELS)}
        self.damaged = 0
        self.dropped = 0
        self._container = container
        self._stream = stream
        self._timeout_s = timeout_s
        self._rewinds = rewinds
        self._convert = Converter()
        self._start: float | None = None
        self._arrived_s = 0.0  # when the newest packet came
        self._read_s = 0.0  # how long it took to read it
        self._arrivals: dict[int, float] = {}  # of packets, by the time that their picture shows
        # what comes in pieces of seconds lies unread by nature, until its turn comes
        pieces = live and container.format.name in _IN_PIECES
        self._pace = Pace() if pieces else None
        self._backlog: Backlog | StamplessBacklog | None = None
        if live and not pieces:
            self._backlog = StamplessBacklog() if self._arrival_clock else Backlog()
        self._cut = False
        self._packet_count = 0
        self._index_at_open = len(stream.index_entries)
        self._end_s = 0.0
        self._broken = ""  # why the packets stopped coming

    def _read(self) -> Iterator[Frame]:
        index = 0
        try:
            for picture in self._pictures():
                try:
                    image = self._convert(picture)
                except av.FFmpegError:
                    self.damaged += 1
                    continue
                time_s = self._time(picture, index)
                # encoders that look ahead send pictures in another order
                arrived_s = self._arrivals.pop(picture.pts or 0, self._arrived_s)
                if self._pace is not None and time_s is not None:
                    arrived_s = self._wait_for_turn(self._pace, time_s)
                yield Frame(index, time_s, image, self._cut, arrived_s)
                self._cut = False
                index += 1
        finally:
            if self.damaged:
                logger.warning("%s: damaged packets left out: %d", self.name, self.damaged)
        self._check_end(index)

    def _wait_for_turn(self, pace: Pace, time_s: float) -> float:
        """Wait until a frame is due, and return when that is."""
        now_s = time.monotonic()
        due_s = now_s + max(0.0, pace.wait_s(now_s, time_s))
        while not self._closing and (left_s := due_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _LOOK_S))
        return due_s

    def _check_end(self, frames: int) -> None:
        """Raise if there should have been more than these frames."""
        declared = "" if self.live else self._declared(frames)
        if declared and not frames and not self._rewinds:
            raise SalstreamError(
                f"{self.name} cannot be rewound, and this video has its index at its end: open it "
                "as a file, or write it with ffmpeg's '-movflags +faststart'"
            )
        if declared:
            raise SalstreamError(
                f"{self.name} ended after {frames} of {declared} frames: it is cut off or "
                "damaged; copy or record it again, or go on with what there is"
            )
        if self._broken:
            raise SalstreamError(
                f"{self.name} broke off after {frames} frames ({self._broken}): "
                + ("check network and sender" if self.live else "it is damaged")
            )
        if frames == 0:
            why = ": it is damaged, or its pictures are too large" if self.damaged else ""
            raise SalstreamError(f"{self.name} has no frame that can be decoded{why}")

    def _release(self) -> None:
        self._container.close()

    def _pictures(self) -> Iterator[av.VideoFrame]:
        seen = time.monotonic()
        for packet in self._packets():
            if self._is_late(packet):
                self.dropped += 1
                seen = time.monotonic()
                continue
            for picture in self._decode(packet):
                yield picture
                seen = time.monotonic()
            if self.live and self._arrived_s - seen > self._timeout_s:
                only = ", only damaged or too large ones" if self.damaged else ""
                self._broken = f"no picture for {self._timeout_s:g} s{only}"
                return
        # after a silence, what the decoder holds back is too old
        if not self.live or time.monotonic() - self._arrived_s < self._timeout_s:
            yield from self._decode(None)

    def _packets(self) -> Iterator[av.Packet[Any]]:
        container, stream = self._container, self._stream
        # sound may be what lasts longest
        states_duration = container.format.name in _STATE_DURATION
        # sound that goes on would hide that pictures do not
        streams = container.streams if states_duration or self.live else (stream,)
        # damage that a transport may heal from is the decoder's business; elsewhere this
        # flag means that the file ends inside the packet
        cut_if_corrupt = not self.live and container.format.name != "mpegts"
        asked = time.monotonic()
        try:
            for packet in container.demux(*streams):
                if packet.pts is not None:
                    end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    self._end_s = max(self._end_s, end)
                now = time.monotonic()
                self._read_s = now - asked
                if self.live and self._closing:
                    return
                if self.live and self._read_s >= self._timeout_s:
                    # a picture that comes now came long ago: ffmpeg's wait for more is over
                    self._broken = f"nothing for {self._timeout_s:g} s"
                    return
                if packet.stream_index != stream.index:
                    continue
                if not packet.size:  # would end the decoding; PyAV adds one without a time
                    self._packet_count += packet.dts is not None
                elif not (packet.is_corrupt and cut_if_corrupt):
                    self._packet_count += 1
                    self._arrived_s = now
                    yield packet
                asked = time.monotonic()
        except IndexError:
            pass  # PyAV, at the end, when streams have joined on the way (MPEG-TS)
        except (av.FFmpegError, OSError) as error:
            waited_s = time.monotonic() - asked
            if self.live and _is_silence(error, self._timeout_s, waited_s):
                self._broken = f"nothing for {self._timeout_s:g} s"
            else:
                self._broken = _text(error)

    def _is_late(self, packet: av.Packet[Any]) -> bool:
        """Whether a packet has to be left out, to catch up; else note when it came."""
        arrived_s = self._arrived_s
        if self._backlog is not None and (packet.dts is not None or self._arrival_clock):
            dropping = self._backlog.dropping
            lag_s = self._backlog.add(
                arrived_s,
                float((packet.dts or 0) * packet.time_base),
                waited=self._read_s > _WAIT_S,
                key=packet.is_keyframe,
            )
            if self._backlog.dropping:
                return True
            if dropping:
                self._stream.codec_context.flush_buffers()
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
            return self._stream.codec_context.decode(packet)
        except av.error.EOFError:
            return []
        except av.FFmpegError:
            self.damaged += 1
            return []

    def _declared(self, frames: int) -> str:
        """How many frames there should have been, if more than came."""
        index, count = len(self._stream.index_entries), self._stream.frames
        # What an edit list hides, and the gaps of an AVI, are counted in the header but not in
        # the index; so a file is whole if the index that it came with was served whole.
        if index > self._packet_count or count > self._packet_count != self._index_at_open:
            return str(max(index, count))
        if self._container.format.name in _STATE_DURATION and self._container.duration:
            missing_s = self._container.duration / av.time_base - self._end_s
            if missing_s > _DURATION_SLACK_S:
                return f"about {frames + round(missing_s * (self.fps or 1))}"
        return ""

    def _time(self, picture: av.VideoFrame, index: int) -> float | None:
        due = time_of(index, self.fps)
        if self._arrival_clock:
            now = time.monotonic()
        elif picture.pts is not None and self._stream.time_base is not None:
            now = float(picture.pts * self._stream.time_base)
        else:
            return due
        if self._start is None:
            # an RTSP camera's first frames may come before its clock is known
            self._start = now - (due or 0.0)
        return now - self._start


def _why(error: Exception, scheme: str | None, timeout_s: float, waited_s: float) -> str:
    """Say in words for people what ffmpeg's error means, and what to do."""
    if scheme is None:
        return "cannot be opened as a video: it is damaged, cut off or no video at all"
    if _is_silence(error, timeout_s, waited_s):
        return (
            f"sent nothing for {timeout_s:g} s: check address, port and network, and that the "
            "sender is running"
        )
    for kind, text in _NETWORK_ERRORS.items():
        if isinstance(error, kind):
            return text.format(scheme=scheme, timeout_s=timeout_s)
    return (
        f"cannot be reached ({_text(error)}): check address and network, and that the sender is "
        "running"
    )


_NETWORK_ERRORS: Final[Mapping[type[Exception], str]] = {
    av.error.HTTPUnauthorizedError: (
        "asks for another user name or password (401): give them as "
        "{scheme}://user:password@host/path"
    ),
    av.error.HTTPForbiddenError: "forbids it (403): check what this user may see",
    av.error.HTTPNotFoundError: "has nothing at this path (404): check the path",
    av.error.ConnectionRefusedError: (
        "refused the connection: check address and port, and that the sender is running"
    ),
    av.error.InvalidDataError: "answered with something that is not a video: check the path",
    av.error.EOFError: "ended before its first frame: check the path",
    av.error.ProtocolNotFoundError: "cannot be opened: this PyAV was built without {scheme}",
}


# What the same sender will answer again.
_UNUSABLE: Final = (
    av.error.HTTPUnauthorizedError,
    av.error.HTTPForbiddenError,
    av.error.InvalidDataError,
    av.error.ProtocolNotFoundError,
)


def _is_silence(error: Exception, timeout_s: float, waited_s: float) -> bool:
    # some protocols give the wait that PyAV interrupted another name
    return isinstance(error, av.error.ExitError | av.error.TimeoutError) or waited_s >= timeout_s


def _text(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or type(error).__name__).lower()
