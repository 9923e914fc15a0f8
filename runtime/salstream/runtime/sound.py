"""The sound of a video file, on its way into the overlay video."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import av
import av.error
from av.bitstream import BitStreamFilterContext
from av.stream import Discard

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer

    _Packet = av.Packet[Any]

from salstream.runtime.sources.clock import LEAP_S
from salstream.runtime.sources.failures import text_of
from salstream.runtime.sources.parts import FilePart, Part

logger = logging.getLogger("salstream")

_DRIFT_S: Final = 0.1  # what decoded sound may be off its timestamps
_EARLY_S: Final = 0.1  # decoders want to hear a little of what comes before
_NOT_IN_MP4: Final = ("mp1", "mp2", "mp2float")  # muxers take it, browsers do not play it
_NOTHING: Final = -(1 << 62)


class Sound:
    """The default sound track of a file that somebody else reads frames from.

    Whatever is wrong with the sound ends it with a warning, and nothing else.

    Args:
        source: Of the frames. Only a plain file has sound: a source with ``path``, and with
            ``offsets`` and ``parts`` that say where frames lie on the file's own clock, as
            :class:`~salstream.runtime.sources.video.Video` has them.

    Attributes:
        stream: What is read, once it is open; None: there is no sound.
        extradata: Of AAC in ADTS, whose packets have it.
    """

    def __init__(self, source: object) -> None:
        self._source = source
        self._container: InputContainer | None = None
        self._file: FilePart | None = None
        self._packets: Iterator[_Packet] = iter(())
        self._to_raw: BitStreamFilterContext | None = None
        self._next: _Packet | None = None
        self._part = 0  # of the file's parts
        self._offset = 0  # of the offsets, one or more for each part
        self._last_s: float | None = None  # in the file's timestamps
        self._spacing_s = 0.0
        self.stream: av.AudioStream | None = None
        self.extradata: bytes | None = None

    @property
    def _parts(self) -> Sequence[Part]:
        parts: Sequence[Part] = getattr(self._source, "parts", ())
        return parts or (Part(0, 0, 0.0),)

    @property
    def _offsets(self) -> Sequence[float]:
        offsets: Sequence[float] = getattr(self._source, "offsets", ())
        return offsets

    def open(self) -> bool:
        """Open the file, once frames have come; return whether there is sound.

        May be called again.
        """
        path: Path | None = getattr(self._source, "path", None)
        if self._container is not None or path is None:
            return self.stream is not None
        stream = self._open_part(path)
        if stream is not None and not self._offsets:
            logger.warning("%s: the sound is left out, because --fps changes the times", path)
            self.close()
            return False
        self._begin(stream)
        self.stream = stream if self._next is not None else None
        return self.stream is not None

    @property
    def first(self) -> _Packet | None:
        """The packet that comes next."""
        return self._next

    def until(self, time_s: float) -> Iterator[tuple[_Packet, float]]:
        """Yield the packets that begin before a frame's time, and their times in seconds."""
        while self.stream is not None:
            if self._next is None or self._is_beyond_part(self._next):
                if not self._enter_next_part():
                    return
                continue
            at_s = self._time_of(self._next, time_s)
            if at_s is None or at_s >= time_s:
                return
            packet, self._next = self._next, next(self._packets, None)
            yield packet, at_s

    def close(self) -> None:
        """Let go of the file; may be called again."""
        self._next, self._packets, self.stream = None, iter(()), None
        self._close_part()

    def _open_part(self, path: Path) -> av.AudioStream | None:
        """Open a part of the file and return its sound track; None: it has none."""
        begin = self._parts[self._part].begin
        try:
            if begin:
                self._file = FilePart(path, begin)
            # the prefix keeps ffmpeg from reading a protocol or a pattern into the name
            location = self._file or f"file:{path}"
            self._container = opened = av.open(location, "r", metadata_errors="replace")
            stream = opened.streams.best("audio", related=opened.streams.best("video"))
        except (av.FFmpegError, OSError, ValueError) as error:
            self._lose(error)
            return None
        return stream if isinstance(stream, av.AudioStream) else None

    def _begin(self, stream: av.AudioStream | None) -> None:
        """Read from a sound track of the part that is open."""
        self._next, self._packets, self._to_raw, self._last_s = None, iter(()), None, None
        if stream is None or self._container is None:
            return
        for other in self._container.streams:
            if other.index != stream.index:
                other.discard = Discard.all
        context = stream.codec_context
        try:
            if context.name.startswith("aac") and not context.extradata:
                self._to_raw = BitStreamFilterContext("aac_adtstoasc", stream)
            self._packets = self._read(stream)
            self._next = next(self._packets, None)
        except (av.FFmpegError, OSError, ValueError) as error:
            self._lose(error)

    def _close_part(self) -> None:
        if self._container is not None:
            self._container.close()
        if self._file is not None:
            self._file.close()
        self._file = None

    def _is_beyond_part(self, packet: _Packet) -> bool:
        """Whether a packet belongs to what the pictures have left behind, or to what follows."""
        if self._part + 1 >= len(self._parts):
            return False
        here, after = self._parts[self._part : self._part + 2]
        if packet.pos is not None and here.begin + packet.pos >= after.begin:
            return True  # ffmpeg has read across the seam
        stamp_s = float((packet.pts or 0) * packet.time_base)
        return stamp_s + self._offsets[self._offset] >= after.begin_s

    def _enter_next_part(self) -> bool:
        """Go on with the sound of the next part; False: the pictures have not come to one."""
        if self._part + 1 >= len(self._parts) or self.stream is None:
            return False
        before = self.stream.codec_context
        kind = before.name, before.sample_rate, before.layout.nb_channels
        self._part += 1
        self._offset = self._parts[self._part].offset
        self._close_part()
        stream = self._open_part(getattr(self._source, "path"))  # noqa: B009 - see the class
        if stream is not None:
            context = stream.codec_context
            if (context.name, context.sample_rate, context.layout.nb_channels) == kind:
                self.stream = stream
            else:
                logger.warning(
                    "%s: the sound of part %d is of another kind than that before, and left out",
                    *(getattr(self._source, "path", None), self._part + 1),
                )
                stream = None
        self._begin(stream)
        return True

    def _time_of(self, packet: _Packet, now_s: float) -> float | None:
        """Return when a packet is heard; None: not known before the pictures have come further."""
        if self._offset >= len(self._offsets):
            return None
        stamp_s = float(packet.pts * packet.time_base) if packet.pts is not None else None
        if stamp_s is None:
            stamp_s = 0.0 if self._last_s is None else self._last_s + self._spacing_s
        if self._last_s is not None:
            step_s = stamp_s - self._last_s
            if not -self._spacing_s <= step_s <= LEAP_S:
                behind = self._parts[self._part + 1 :]
                last = behind[0].offset if behind else len(self._offsets)
                if self._offset + 1 < last:
                    self._offset += 1
                elif now_s < max(stamp_s, self._last_s) + self._offsets[self._offset] + LEAP_S:
                    return None
                # else the pictures went on: it is the sound that has a gap, or is in disorder
        self._last_s = stamp_s
        self._spacing_s = float((packet.duration or 0) * packet.time_base)
        return stamp_s + self._offsets[self._offset]

    def _read(self, stream: av.AudioStream) -> Iterator[_Packet]:
        assert self._container is not None
        try:
            for packet in self._container.demux(stream):
                if not packet.size:
                    continue
                packet.time_base = stream.time_base or Fraction(1, av.time_base)
                if self._to_raw is None:
                    yield packet
                else:
                    yield from map(self._without_side_data, self._to_raw.filter(packet))
        except IndexError:
            pass  # PyAV, at the end, when streams have joined on the way (MPEG-TS)
        except (av.FFmpegError, OSError, ValueError) as error:
            self._lose(error)

    def _without_side_data(self, packet: _Packet) -> _Packet:
        """Return AAC of which nothing but ``extradata`` says how it is coded, as muxers want it."""
        if self.extradata is None:
            self.extradata = bytes(packet.get_sidedata("new_extradata")) or None
        bare = av.Packet(bytes(packet))
        bare.pts, bare.duration, bare.time_base = packet.pts, packet.duration, packet.time_base
        return bare

    def _lose(self, error: Exception) -> None:
        logger.warning(
            "%s: from here on there is no sound, which cannot be read: %s",
            *(getattr(self._source, "path", None), text_of(error)),
        )


class SoundTrack:
    """The sound in one output file: copied where its container takes it, else encoded as AAC.

    Args:
        container: That has not begun; its stream of pictures is added before.
        sound: Opened.
    """

    def __init__(self, container: OutputContainer, sound: Sound) -> None:
        assert sound.stream is not None
        self._container = container
        self._sound: Sound | None = sound
        self._source = sound.stream
        self._copies = _takes(container.format.name, sound)
        # Matroska has no edit lists: it would move the pictures to make room. Its milliseconds
        # may stand still, MP4's ticks may not.
        matroska = container.format.name == "matroska"
        self._early_s, self._least = (0.0, 0) if matroska else (_EARLY_S, 1)
        self._last = _NOTHING
        self._heard_s: float | None = None  # end of what was decoded
        self._damaged = False
        self._stream: av.AudioStream
        if self._copies:
            self._stream = _add_copy(container, sound)
        else:
            context = self._source.codec_context
            known = av.Codec("aac", "w").audio_rates or ()
            rate = context.sample_rate if context.sample_rate in known else 48_000
            self._stream = container.add_stream("aac", rate=rate)
            self._stream.layout = "mono" if context.layout.nb_channels == 1 else "stereo"
            self._stream.bit_rate = 64_000 * self._stream.layout.nb_channels

    def write_until(self, time_s: float, shift_s: float) -> None:
        """Write the sound that begins before a time in the output.

        Args:
            time_s: Seconds in the output.
            shift_s: From times of frames to those in the output.

        Raises:
            OSError: The file cannot be written.
        """
        if self._sound is None:
            return
        for packet, at_s in self._sound.until(time_s - shift_s):
            try:
                if self._copies:
                    self._mux(packet, at_s + shift_s)
                else:
                    self._encode(packet, at_s + shift_s)
            except ValueError as error:  # ffmpeg has something against this packet
                self._give_up(error)
                return

    def close(self) -> None:
        """Write what the encoder still holds.

        Raises:
            OSError: The file cannot be written.
        """
        if self._sound is None or self._copies or self._heard_s is None:
            return
        try:
            self._mux_all(self._stream.encode(None))
        except (ValueError, av.error.EOFError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        logger.warning("from here on there is no sound, which cannot be kept: %s", text_of(error))
        self._sound = None

    def _encode(self, packet: _Packet, at_s: float) -> None:
        assert self._sound is not None
        assert self._sound.stream is not None
        try:
            frames = self._sound.stream.codec_context.decode(packet)
        except av.FFmpegError as error:
            if not self._damaged:
                logger.warning("damaged sound is left out: %s", text_of(error))
            self._damaged = True
            return
        for frame in frames:
            frame_s = at_s
            if frame.time is not None and packet.pts is not None:
                frame_s += frame.time - float(packet.pts * packet.time_base)
            if self._heard_s is None or frame_s > self._heard_s + _DRIFT_S:
                self._heard_s = frame_s
            elif frame_s < self._heard_s - _DRIFT_S:
                continue  # has been heard
            frame.time_base = Fraction(1, frame.sample_rate)
            frame.pts = round(self._heard_s * frame.sample_rate)
            self._heard_s += frame.samples / frame.sample_rate
            self._mux_all(self._stream.encode(frame))

    def _mux_all(self, packets: list[_Packet]) -> None:
        for packet in packets:
            self._mux(packet, float((packet.pts or 0) * packet.time_base))

    def _mux(self, packet: _Packet, at_s: float) -> None:
        duration_s = float((packet.duration or 0) * packet.time_base)
        if at_s < 0 and (not self._early_s or at_s + duration_s < -self._early_s):
            return
        self._container.start_encoding()  # gives streams their time bases
        time_base = self._stream.time_base
        assert time_base is not None
        pts = round(at_s / time_base)
        if pts <= self._last - _DRIFT_S / time_base:
            return  # has been heard
        self._last = packet.pts = packet.dts = max(pts, self._last + self._least)
        packet.duration = round(duration_s / time_base)
        packet.time_base = time_base
        packet.stream = self._stream
        self._container.mux(packet)


def _takes(container: str, sound: Sound) -> bool:
    """Whether a container takes the sound as it is; nobody knows before it is tried."""
    assert sound.first is not None
    assert sound.stream is not None
    if container != "matroska" and sound.stream.codec_context.name in _NOT_IN_MP4:
        return False
    packet = av.Packet(bytes(sound.first))
    packet.pts = packet.dts = 0
    options = {} if container == "matroska" else {"movflags": "delay_moov+empty_moov"}
    try:
        with av.open(io.BytesIO(), "w", format=container, options=options) as trial:
            packet.stream = _add_copy(trial, sound)
            trial.mux(packet)
    except (av.FFmpegError, OSError, ValueError):
        return False
    return True


def _add_copy(container: OutputContainer, sound: Sound) -> av.AudioStream:
    assert sound.stream is not None
    stream = container.add_stream_from_template(sound.stream)
    if sound.extradata is not None:
        stream.codec_context.extradata = sound.extradata
    return stream
