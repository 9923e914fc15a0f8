"""Videos that PyAV decodes: files, standard input and network streams."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Final

import av
import av.container
import av.error
import av.format

from salstream.runtime.errors import SalstreamError, UnusableSource, UsageError
from salstream.runtime.sources.address import parse_url, redact
from salstream.runtime.sources.backlog import Backlog, Pace, StamplessBacklog
from salstream.runtime.sources.base import Frame, Reader, time_of
from salstream.runtime.sources.clock import Clock, DecodingOrder, in_decoding_order, rate_of
from salstream.runtime.sources.containers import (
    ends_with_whole_tag,
    is_cut_off,
    missing_segments,
    why_not,
)
from salstream.runtime.sources.convert import Converter
from salstream.runtime.sources.mjpeg import Answer, Pictures, request
from salstream.runtime.sources.parts import FilePart, next_part
from salstream.runtime.sources.streams import film_among, films_in

logger = logging.getLogger("salstream")

# ffmpeg's own rule, one more than there are cores, goes up to 16; but each thread holds a
# frame, and four are faster than any model that follows.
DECODING_THREADS: Final = min(4, (os.cpu_count() or 1) + 1)

# Larger pictures are refused before they take memory; four pictures of 8K fit.
MAX_PIXELS: Final = 1 << 27

# Containers that state a duration at their start and no number of frames.
_STATE_DURATION: Final = ("matroska,webm", "flv", "mxf")
# How far short of its stated duration a whole file may end: muxers round, and some count
# the last frame twice.
_DURATION_SLACK_S: Final = 0.5

# Transports that may heal from damage inside a packet; elsewhere it means that the file ends there.
_HEALS: Final = ("mpegts", "hls")
# A transport stream that goes on for longer than this share after its last picture has changed its
# streams, or has only sound left.
_LONG_REST: Final = 0.02
_TS_PACKET: Final = 188
_DECODING_TIMES: Final = ("avi", "asf")
# Containers whose index has every frame.
_INDEXED: Final = ("mov,mp4,m4a,3gp,3g2,mj2", "avi")
# Packets that are looked at before the first frame, for the film, its rate and its order; fewer of
# a pipe, which may be waited for.
_LOOK_AHEAD: Final = 64
_LOOK_AHEAD_IN_PIPE: Final = 16
_LOOK_AHEAD_BYTES: Final = 1 << 24
_MAX_FPS: Final = 1000
_ODD_FPS: Final = 25.0  # where nothing is known, as ffmpeg has it
_NUT_HEADER: Final = b"multimedia container"

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


def _open_part(path: Path, begin: int, fps: float | None) -> Video:
    return _open(FilePart(path, begin), str(path), path=path, begin=begin, fps=fps)


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
                failure = _failure(error, address.shown, address.scheme, timeout_s, begin)
            # not inside the block, where the error and its address would be this one's context
            raise failure

        answer = ask()
        if answer is not None and answer.sends_pictures:
            return opened(Pictures(answer, ask, address.shown), form="mpjpeg")
        if answer is not None and answer.is_stream:  # a sender that may serve nobody twice
            return opened(answer)
        if answer is not None:
            answer.close()
    return opened(address.url)


def _open(
    location: str | BinaryIO | Answer | Pictures,
    name: str,
    *,
    form: str | None = None,
    scheme: str | None = None,
    timeout_s: float = 0,
    rewinds: bool = True,
    path: Path | None = None,
    begin: int = 0,
    fps: float | None = None,
) -> Video:
    # ffmpeg decodes a picture to learn about a stream; other options go to protocol and container
    options = {"max_pixels": str(MAX_PIXELS), **_URL_OPTIONS.get(scheme or "", {})}
    asked_s = time.monotonic()
    failure: SalstreamError | None = None
    try:
        container = av.open(
            location,
            "r",
            format=form,
            options=options,
            timeout=timeout_s if scheme else None,
            metadata_errors="replace",  # a title in another encoding is no reason to refuse
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        failure = _failure(error, name, scheme, timeout_s, asked_s, path)
    if failure is not None:
        # not inside the block, where the error and its address would be this one's context
        raise failure
    try:
        return Video(
            container,
            name,
            scheme=scheme,
            timeout_s=timeout_s,
            rewinds=rewinds,
            path=path,
            begin=begin,
            fps=fps,
        )
    except BaseException:
        container.close()
        raise


def _failure(
    error: Exception,
    name: str,
    scheme: str | None,
    timeout_s: float,
    asked_s: float,
    path: Path | None = None,
) -> SalstreamError:
    """Return what to raise where a source cannot be opened."""
    if path is not None:
        return SalstreamError(f"{name} cannot be opened as a video: {why_not(path)}")
    waited_s = time.monotonic() - asked_s
    unusable = isinstance(error, _UNUSABLE) and not _is_silence(error, timeout_s, waited_s)
    if scheme in ("rtsp", "rtsps") and isinstance(error, av.error.InvalidDataError):
        unusable = False  # a camera that is booting accepts and hangs up
    kind = UnusableSource if unusable else SalstreamError
    return kind(f"{redact(name)} {_why(error, scheme, timeout_s, waited_s)}")


class Video(Reader):
    """A container whose film, the best of its video streams, is decoded frame by frame.

    Args:
        container: Just opened.
        name: For people.
        scheme: Of a URL; None: no network.
        timeout_s: Longest silence of a network source.
        rewinds: Whether the container can be read again from its beginning.
        path: Of a plain file.
        begin: Where in that file the container begins, in bytes.
        fps: Frames per second, whatever the container says; None: as it says, unless its
            timestamps contradict it.

    Attributes:
        damaged: Packets that were left out because they could not be decoded.
        dropped: Packets of a live source that were left out because decoding could not keep up.
        path: Of a plain file; None: it is none.
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
        begin: int = 0,
        fps: float | None = None,
    ) -> None:
        films = films_in(container, redact(name))
        live = scheme is not None and not (scheme in ("http", "https") and container.duration)
        super().__init__(name, live=live)
        self.damaged = 0
        self.dropped = 0
        self.path = path
        self._begin = begin
        self._position = 0  # of the newest packet, in bytes
        self.rate_given = fps is not None
        self._container = container
        self._timeout_s = timeout_s
        self._rewinds = rewinds
        self._arrived_s = 0.0  # when the newest packet came
        self._read_s = 0.0  # how long it took to read it
        self._arrivals: dict[int, float] = {}  # of packets, by the time that their picture shows
        self._last_arrived_s = 0.0  # of the frame before
        self._began_s = 0.0  # when the first frame came, where times are those of arrival
        self._cut = False
        self._packet_counts: Counter[int] = Counter()  # by the stream's index
        self._end_s = 0.0
        self._broken = ""  # why the packets stopped coming
        index_sizes = {film.index: len(film.index_entries) for film in films}
        self._films = films
        self._wanted = {film.index for film in films}
        self._demuxed = self._packets()
        limit = _LOOK_AHEAD if rewinds or scheme else _LOOK_AHEAD_IN_PIPE
        self._ahead = [] if live else self._look_ahead(limit)
        if any(packet.has_sidedata("encryption_info") for packet in self._ahead[:2]):
            raise UnusableSource(f"{self.name} is encrypted (DRM): decrypt it first")
        self._stream = self._choose_film(films)
        self._index_at_open = index_sizes[self._stream.index]
        self._convert = Converter(self._stream, self.name)

        # without timestamps of its own, ffmpeg would invent 25 frames per second
        bare = av.format.Flags.no_timestamps in av.format.Flags(container.format.flags)
        self._arrival_clock = live and bare
        self._evenly = not live and (bare or fps is not None)
        self.fps = fps or (None if self._arrival_clock else self._declared_rate(bare=bare))
        self.frame_count = self._stream.frames or None
        if container.format.name == "avi" and self._index_at_open:
            self.frame_count = self._index_at_open  # the header counts gaps too
        self._order: DecodingOrder | None = None
        context = self._stream.codec_context
        stamps = [packet.pts for packet in self._ahead]
        if context.has_b_frames and in_decoding_order(stamps):
            self._order = DecodingOrder(context.reorder_depth)
        joins = av.format.Flags.ts_discont in av.format.Flags(container.format.flags)
        time_base = self._stream.time_base or Fraction(1, av.time_base)
        self._clock = Clock(time_base, self.fps, joins=joins)
        # what comes in pieces of seconds lies unread by nature, until its turn comes
        pieces = live and container.format.name in _IN_PIECES
        self._pace = Pace() if pieces else None
        self._backlog: Backlog | StamplessBacklog | None = None
        if live and not pieces:
            self._backlog = StamplessBacklog() if self._arrival_clock else Backlog()

    @property
    def offsets(self) -> list[float]:
        """Seconds to be added to the file's own timestamps, for each part of a joined file.

        They give times of frames. The list grows while the file is read; it stays empty where
        times do not follow timestamps.
        """
        return self._clock.offsets

    def _look_ahead(self, count: int) -> list[av.Packet[Any]]:
        """Read the first packets of every stream that may be the film."""
        ahead: list[av.Packet[Any]] = []
        size = 0
        for packet in self._demuxed:
            ahead.append(packet)
            size += packet.size
            if len(ahead) >= count * len(self._films) or size > _LOOK_AHEAD_BYTES:
                break
        return ahead

    def _choose_film(self, films: list[av.VideoStream]) -> av.VideoStream:
        """Choose the stream to decode, and let go of the packets of the others."""
        stream = film_among(films, self._packet_counts)
        self._films, self._wanted = [stream], {stream.index}
        self._ahead = [packet for packet in self._ahead if packet.stream_index == stream.index]
        context = stream.codec_context
        if context is None:
            raise UnusableSource(
                f"{self.name} cannot be decoded: this PyAV has no decoder for its video; "
                "convert it to H.264 first"
            )
        if context.width * context.height > MAX_PIXELS:
            raise UnusableSource(
                f"{self.name} has pictures of {context.width}x{context.height} pixels: at most "
                f"{MAX_PIXELS // 1_000_000} million are taken; make them smaller"
            )
        moving = sum(self._packet_counts[film.index] > 1 for film in films)
        if moving > 1:
            logger.info(
                "%s has %d video streams: number %d, of %dx%d pixels, is shown",
                *(self.name, moving, stream.index, context.width, context.height),
            )
        # frame threads hold frames back, so a live stream does without them
        stream.thread_type = "SLICE" if self.live else "AUTO"
        context.thread_count = DECODING_THREADS
        context.options = {"max_pixels": str(MAX_PIXELS)}
        return stream

    def _declared_rate(self, *, bare: bool) -> float | None:
        """Return the frames per second that the container declares and its timestamps allow."""
        stream = self._stream
        # a bare stream has its rate in its own headers, and 25 for its container
        rate = stream.guessed_rate if bare else stream.average_rate or stream.guessed_rate
        declared = float(rate) if rate and 0 < rate <= _MAX_FPS else None
        if self.live or bare or stream.time_base is None:
            return declared
        if self._container.format.name in _INDEXED and self._index_at_open > 1:
            stamps = [entry.timestamp for entry in stream.index_entries]
        else:
            stamps = [packet.pts for packet in self._ahead if packet.pts is not None]
        return rate_of(declared, [float(stamp * stream.time_base) for stamp in stamps])

    def _read(self) -> Iterator[Frame]:
        index, time_s = 0, None
        try:
            for picture in self._pictures():
                # encoders that look ahead send pictures in another order
                arrived_s = self._arrivals.pop(picture.pts or 0, self._arrived_s)
                time_s = self._time(picture, index, arrived_s)
                try:
                    image, pixel_aspect = self._convert(picture)
                except av.FFmpegError:
                    self.damaged += 1
                    continue
                if self._pace is not None and time_s is not None:
                    arrived_s = self._wait_for_turn(self._pace, time_s)
                yield Frame(index, time_s, image, self._cut, arrived_s, pixel_aspect)
                self._cut = False
                index += 1
            begin = self._next_part()
            if begin is None or not self._broken:  # a seam may look like damage
                self._check_end(index)
            if begin is not None:
                yield from self._read_on(begin, index, time_s)
        finally:
            if self.damaged:
                logger.warning("%s: damaged packets left out: %d", self.name, self.damaged)

    def _next_part(self) -> int | None:
        """Return where the file goes on behind a seam that ffmpeg does not read across."""
        if self.path is None or not self._rewinds:
            return None
        after = self._begin + self._position
        if self._container.format.name == "mpegts":
            return self._next_program(after + _TS_PACKET)
        return next_part(self.path, self._container.format.name, after)

    def _next_program(self, after: int) -> int | None:
        """Return ``after`` if there is another video stream from there on."""
        assert self.path is not None
        size = self.path.stat().st_size
        if size - after <= _LONG_REST * size:
            return None
        try:
            with av.open(FilePart(self.path, after), metadata_errors="replace") as rest:
                others = [stream.id for stream in rest.streams.video]
        except (av.FFmpegError, OSError, ValueError):
            return None
        return after if others and self._stream.id not in others else None

    def _read_on(self, begin: int, count: int, last_s: float | None) -> Iterator[Frame]:
        """Read what follows such a seam, as a part that goes on at the stream's own pace."""
        assert self.path is not None
        follows_s = (last_s or 0.0) + 1 / (self.fps or _ODD_FPS)
        given = self.fps if self.rate_given else None
        with _open_part(self.path, begin, given) as part:
            for frame in part:
                yield replace(
                    frame,
                    index=count + frame.index,
                    time=None if frame.time is None else follows_s + frame.time,
                    cut=frame.cut or frame.index == 0,
                )
            self.damaged += part.damaged

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
        if self.path is not None and is_cut_off(self.path, self._container.format.name):
            raise SalstreamError(f"{self.name} ended after {frames} frames: it is cut off")
        missing = self._missing_segments()
        if missing:
            raise SalstreamError(
                f"{self.name} lacks {len(missing)} of its segments, so frames are missing: "
                f"{', '.join(missing[:3])}"
            )
        if frames == 0:
            why = ": it is damaged, or its pictures are too large" if self.damaged else ""
            raise SalstreamError(f"{self.name} has no frame that can be decoded{why}")

    def _missing_segments(self) -> list[str]:
        is_playlist = self._container.format.name == "hls"
        return missing_segments(self.path) if self.path is not None and is_playlist else []

    def _release(self) -> None:
        self._container.close()

    def _pictures(self) -> Iterator[av.VideoFrame]:
        seen = time.monotonic()
        for packet in chain(self._ahead, self._demuxed):
            if self._is_late(packet):
                self.dropped += 1
                seen = time.monotonic()
                continue
            # these containers have times of decoding only: ffmpeg makes others up
            stamp = packet.dts if self._container.format.name in _DECODING_TIMES else packet.pts
            if self._order is not None and stamp is not None:
                self._order.push(stamp)
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
        container = self._container
        # sound may be what lasts longest
        states_duration = container.format.name in _STATE_DURATION
        # sound that goes on would hide that pictures do not
        streams = container.streams if states_duration or self.live else self._films
        # damage that a transport may heal from is the decoder's business
        cut_if_corrupt = not self.live and container.format.name not in _HEALS
        is_nut = container.format.name == "nut"
        asked = time.monotonic()
        try:
            for packet in container.demux(*streams):
                if states_duration and packet.pts is not None:
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
                if is_nut and _NUT_HEADER in memoryview(packet)[:64].tobytes():
                    return  # ffmpeg takes what is joined to the file for a packet
                self._position = max(self._position, packet.pos or 0)
                if packet.stream_index not in self._wanted:
                    continue
                if not packet.size:  # would end the decoding; PyAV adds one without a time
                    self._packet_counts[packet.stream_index] += packet.dts is not None
                elif packet.is_corrupt and cut_if_corrupt:
                    self._broken = "the file ends inside a frame"
                else:
                    self._packet_counts[packet.stream_index] += 1
                    self._arrived_s = now
                    if cut_if_corrupt and self._broken:
                        self._broken = ""  # it goes on
                        self.damaged += 1
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
        container = self._container.format.name
        index, count = len(self._stream.index_entries), self._stream.frames
        packets = self._packet_counts[self._stream.index]
        # What an edit list hides, and the gaps of an AVI, are counted in the header but not in
        # the index; so a file is whole if the index that it came with was served whole.
        if index > packets or count > packets != self._index_at_open:
            return str(max(index, count))
        if container == "flv" and self.path is not None and ends_with_whole_tag(self.path):
            return ""  # recorders that are stopped often write a duration that was only planned
        if container in _STATE_DURATION and self._container.duration:
            missing_s = self._container.duration / av.time_base - self._end_s
            if missing_s > _DURATION_SLACK_S:
                return f"about {frames + round(missing_s * (self.fps or 1))}"
        return ""

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
        time_s, seam = self._clock.add(
            stamp, picture.duration, key=picture.key_frame, pause_s=pause_s
        )
        self._cut = self._cut or seam
        return time_s


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
    ConnectionRefusedError: (
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
    return isinstance(error, av.error.ExitError | TimeoutError) or waited_s >= timeout_s


def _text(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or type(error).__name__).lower()
