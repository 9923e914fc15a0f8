"""The packets of a container's film: which stream that is, how they come, and how they end."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

import av
import av.container
import av.error
import av.format

from salstream.runtime.errors import SalstreamError, UnusableSource
from salstream.runtime.sources.clock import LEAP_S, DecodingOrder, in_decoding_order, rate_of
from salstream.runtime.sources.containers import (
    ends_with_whole_tag,
    hint_for,
    is_cut_off,
    missing_segments,
)
from salstream.runtime.sources.failures import is_silence, text_of
from salstream.runtime.sources.parts import next_part, next_program
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
# Containers whose index has every frame.
_INDEXED: Final = ("mov,mp4,m4a,3gp,3g2,mj2", "avi")
# Containers that have times of decoding only: ffmpeg makes others up.
_DECODING_TIMES: Final = ("avi", "asf")
# Transports that may heal from damage inside a packet; elsewhere it means that the file ends there.
# A step back by more is no order of pictures.
_BACK_S: Final = 1.0
_HEAL: Final = ("mpegts", "hls")
_FRAMES_ONLY: Final = "yuv4mpegpipe"  # has nothing behind its last frame
_NUT_HEADER: Final = b"multimedia container"
# Packets that are looked at before the first frame, for the film, its rate and its order; fewer of
# a pipe, which may be waited for.
_LOOK_AHEAD: Final = 64
_LOOK_AHEAD_IN_PIPE: Final = 16
_LOOK_AHEAD_BYTES: Final = 1 << 24
_INDEX_ENTRIES: Final = 5000  # that tell the rate: hours of a film would take seconds to read
_MAX_FPS: Final = 1000


class Demuxer:
    """Reads the packets of a container's film, the best of its video streams.

    Args:
        container: Just opened.
        name: For people, without passwords.
        live: Whether packets cannot wait: then none is looked at before its time.
        timeout_s: Longest silence of a live source.
        rewinds: Whether the container can be read again from its beginning.
        path: Of a plain file; None: it is none.
        begin: Where in that file the container begins, in bytes.

    Attributes:
        film: The stream that is decoded.
        container: As given.
        time_base: Seconds per tick of its timestamps.
        bare: Whether the container has no timestamps: what ffmpeg says of them is made up.
        joins: Whether the container may begin its timestamps anew.
        damaged: Packets that ended too early.
        broken: Why the packets stopped coming; empty: they have not, or came to their end.
        arrived_s: When the newest packet came, on the clock of ``time.monotonic``.
        read_s: How long it took to read it.
        closing: To be set by whoever wants a live source to end.

    Raises:
        UnusableSource: There is no film that can be decoded.
    """

    def __init__(
        self,
        container: av.container.InputContainer,
        name: str,
        *,
        live: bool,
        timeout_s: float,
        rewinds: bool,
        path: Path | None,
        begin: int,
    ) -> None:
        flags = av.format.Flags(container.format.flags)
        self.container = container
        self.bare = av.format.Flags.no_timestamps in flags
        self.joins = av.format.Flags.ts_discont in flags
        self.damaged = 0
        self.broken = ""
        self.arrived_s = 0.0
        self.read_s = 0.0
        self.closing = False
        self._name = name
        self._live = live
        self._timeout_s = timeout_s
        self._rewinds = rewinds
        self._path = path
        self._begin = begin
        self._format = container.format.name
        self._position = 0  # of the newest packet, in bytes
        self._behind = 0  # where it ends
        self._stamps: dict[int, int] = {}  # of the newest packets, by the stream's index
        self._at_seam = False
        self._end_s = 0.0
        self._counts: Counter[int] = Counter()  # packets by the stream's index
        films = films_in(container, name)
        index_sizes = {film.index: len(film.index_entries) for film in films}
        self._films = films
        self._wanted = {film.index for film in films}
        self._rest = self._read()
        limit = _LOOK_AHEAD if rewinds else _LOOK_AHEAD_IN_PIPE
        ahead = [] if live else self._look_ahead(limit * len(films))
        if any(packet.has_sidedata("encryption_info") for packet in ahead[:2]):
            raise UnusableSource(f"{name} is encrypted (DRM): decrypt it first")
        self.film = self._choose(films)
        self._films, self._wanted = [self.film], {self.film.index}
        self._ahead = [packet for packet in ahead if packet.stream_index == self.film.index]
        self.time_base = self.film.time_base or Fraction(1, av.time_base)
        self._index_at_open = index_sizes[self.film.index]

    def packets(self) -> Iterator[av.Packet[Any]]:
        """Yield the packets of the film; afterwards ``broken`` says what was wrong."""
        return chain(self._ahead, self._rest)

    def stamp_of(self, packet: av.Packet[Any]) -> int | None:
        """Return when a packet is shown, or decoded where its container knows nothing else."""
        return packet.dts if self._format in _DECODING_TIMES else packet.pts

    def order(self) -> DecodingOrder | None:
        """Return what puts timestamps in order; None: they are those of presentation."""
        context = self.film.codec_context
        stamps = [packet.pts for packet in self._ahead]
        if context.has_b_frames and in_decoding_order(stamps):
            return DecodingOrder(context.reorder_depth)
        return None

    def rate(self) -> float | None:
        """Return the frames per second that the container declares and its timestamps allow."""
        film = self.film
        # a bare stream has its rate in its own headers, and 25 for its container
        rate = film.guessed_rate if self.bare else film.average_rate or film.guessed_rate
        declared = float(rate) if rate and 0 < rate <= _MAX_FPS else None
        if self._live or self.bare or film.time_base is None:
            return declared
        if self._format in _INDEXED and self._index_at_open > 1:
            entries = islice(film.index_entries, _INDEX_ENTRIES)
            stamps = [entry.timestamp for entry in entries]
        else:
            stamps = [packet.pts for packet in self._ahead if packet.pts is not None]
        seconds = float(film.time_base)
        return rate_of(declared, [stamp * seconds for stamp in stamps])

    def frame_count(self) -> int | None:
        """Return the number of frames as declared; None: unknown."""
        if self._format == "avi" and self._index_at_open:
            return self._index_at_open  # the header counts gaps too
        return self.film.frames or None

    def next_part(self) -> int | None:
        """Return where the file goes on behind a seam that ffmpeg does not read across."""
        if self._path is None or not self._rewinds:
            return None
        after = self._begin + max(1, self._position)
        if self._format == "mpegts":
            return next_program(self._path, self.film.id, after)
        return next_part(self._path, self._format, after)

    def check_end(self, frames: int, fps: float | None) -> None:
        """Raise if there should have been more than these frames.

        Args:
            frames: How many were decoded.
            fps: Frames per second; None: unknown.
        """
        declared = "" if self._live or self._at_seam else self._declared(frames, fps)
        if declared and not frames and not self._rewinds:
            raise SalstreamError(
                f"{self._name} cannot be rewound, and this video has its index at its end: open it "
                "as a file, or write it with ffmpeg's '-movflags +faststart'"
            )
        if declared:
            raise SalstreamError(
                f"{self._name} ended after {frames} of {declared} frames: it is cut off or "
                "damaged; copy or record it again, or go on with what there is"
            )
        if self.broken:
            remedy = "check network and sender" if self._live else "it is damaged"
            if self._format == "concat":
                remedy = "check the files of the list"
            raise SalstreamError(
                f"{self._name} broke off after {frames} frames ({self.broken}): {remedy}"
            )
        if self._path is None:
            return
        more = self._path.stat().st_size > self._begin + self._behind
        cut_off = self._format == _FRAMES_ONLY and more
        if cut_off or is_cut_off(self._path, self._format, self._begin):
            if self._format != "mpegts":
                raise SalstreamError(f"{self._name} ended after {frames} frames: it is cut off")
            # recordings are made to be ended anywhere
            logger.warning("%s ends inside a packet: it is cut off", self._name)
        if self._format == "hls" and (missing := missing_segments(self._path)):
            raise SalstreamError(
                f"{self._name} lacks {len(missing)} of its segments, so frames are missing: "
                f"{', '.join(missing[:3])}"
            )

    def _look_ahead(self, count: int) -> list[av.Packet[Any]]:
        """Read the first packets of every stream that may be the film."""
        ahead: list[av.Packet[Any]] = []
        size = 0
        for packet in self._rest:
            ahead.append(packet)
            size += packet.size
            if len(ahead) >= count or size > _LOOK_AHEAD_BYTES:
                break
        return ahead

    def _choose(self, films: list[av.VideoStream]) -> av.VideoStream:
        """Choose the stream to decode, and make its decoder ready."""
        film = film_among(films, self._counts)
        context = film.codec_context
        if context is None:
            hint = hint_for(self._path) if self._path is not None else ""
            raise UnusableSource(
                f"{self._name} cannot be decoded: "
                + (hint or "this PyAV has no decoder for its video; convert it to H.264 first")
            )
        if context.width * context.height > MAX_PIXELS:
            raise UnusableSource(
                f"{self._name} has pictures of {context.width}x{context.height} pixels: at most "
                f"{MAX_PIXELS // 1_000_000} million are taken; make them smaller"
            )
        moving = sum(self._counts[film.index] > 1 for film in films)
        if moving > 1:
            logger.info(
                "%s has %d video streams: number %d, of %dx%d pixels, is shown",
                *(self._name, moving, film.index, context.width, context.height),
            )
        # frame threads hold frames back, so a live stream does without them
        film.thread_type = "SLICE" if self._live else "AUTO"
        context.thread_count = DECODING_THREADS
        context.options = {"max_pixels": str(MAX_PIXELS)}
        return film

    def _read(self) -> Iterator[av.Packet[Any]]:
        # sound may be what lasts longest
        states_duration = self._format in _STATE_DURATION
        # sound that goes on would hide that pictures do not
        streams = self.container.streams if states_duration or self._live else self._films
        asked_s = time.monotonic()
        try:
            for packet in self.container.demux(*streams):
                if states_duration and packet.pts is not None:
                    end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    self._end_s = max(self._end_s, end)
                now_s = time.monotonic()
                self.read_s = now_s - asked_s
                if self._live and self.closing:
                    return
                if self._live and self.read_s >= self._timeout_s:
                    # a picture that comes now came long ago: ffmpeg's wait for more is over
                    self.broken = f"nothing for {self._timeout_s:g} s"
                    return
                if self._begins_part(packet):
                    self._at_seam = True
                    return
                if packet.stream_index not in self._wanted:
                    continue  # and go on waiting: sound is no sign of life
                if self._is_whole(packet):
                    self.arrived_s = now_s
                    yield packet
                asked_s = time.monotonic()
        except IndexError:
            pass  # PyAV, at the end, when streams have joined on the way (MPEG-TS)
        except (av.FFmpegError, OSError) as error:
            waited_s = time.monotonic() - asked_s
            if self._live and is_silence(error, self._timeout_s, waited_s):
                self.broken = f"nothing for {self._timeout_s:g} s"
            else:
                self.broken = text_of(error)

    def _begins_part(self, packet: av.Packet[Any]) -> bool:
        """Whether ffmpeg has read across a seam, which it does once in Matroska."""
        if self._format != "matroska,webm" or self._path is None or packet.pts is None:
            return False
        before = self._stamps.get(packet.stream_index)
        self._stamps[packet.stream_index] = packet.pts
        if before is None or packet.pos is None:
            return False
        step_s = float((packet.pts - before) * packet.time_base)
        if -_BACK_S < step_s < LEAP_S:
            return False
        part = self.next_part()
        return part is not None and part <= self._begin + packet.pos

    def _is_whole(self, packet: av.Packet[Any]) -> bool:
        """Whether a packet is to be decoded; it is counted, and what is wrong with it noted."""
        if not packet.size:  # would end the decoding; PyAV adds one without a time
            self._counts[packet.stream_index] += packet.dts is not None
            return False
        # ffmpeg takes what is joined to such a file for a packet
        if self._format == "nut" and _NUT_HEADER in memoryview(packet)[:64].tobytes():
            return False
        if packet.pos is not None and packet.pos >= self._position:
            self._position, self._behind = packet.pos, packet.pos + packet.size
        # damage that a transport may heal from is the decoder's business
        if packet.is_corrupt and not self._live and self._format not in _HEAL:
            self.broken = "the file ends inside a frame"
            return False
        if self.broken:  # it went on behind that
            self.broken = ""
            self.damaged += 1
        self._counts[packet.stream_index] += 1
        return True

    def _declared(self, frames: int, fps: float | None) -> str:
        """How many frames there should have been, if more than came."""
        index, count = len(self.film.index_entries), self.film.frames
        packets = self._counts[self.film.index]
        # What an edit list hides, and the gaps of an AVI, are counted in the header but not in
        # the index; so a file is whole if the index that it came with was served whole.
        if index > packets or count > packets != self._index_at_open:
            return str(max(index, count))
        if self._format == "flv" and self._path is not None and ends_with_whole_tag(self._path):
            return ""  # recorders that are stopped often write a duration that was only planned
        if self._format in _STATE_DURATION and self.container.duration:
            missing_s = self.container.duration / av.time_base - self._end_s
            if missing_s > _DURATION_SLACK_S:
                return f"about {frames + round(missing_s * (fps or 1))}"
        return ""
