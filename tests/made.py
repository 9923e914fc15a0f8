"""Video files made for a test: any container and codec, any timestamps, several tracks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np

SIZE: Final = (96, 128)
TICKS: Final = 300  # per second, of timestamps that a test gives
# x265 writes to standard error what it does
QUIET: Final[Mapping[str, Mapping[str, str]]] = {"libx265": {"x265-params": "log-level=none"}}


def video(
    path: Path,
    codec: str = "libx264",
    count: int = 60,
    *,
    rate: int = 30,
    begin_s: float = 0.0,
    times_s: Sequence[float] | None = None,
    options: Mapping[str, str] | None = None,
) -> Path:
    """Make a video with a bar that moves, its left edge at x = 2 × the frame's number.

    Args:
        path: Its suffix says the container.
        codec: Of ffmpeg's encoders.
        count: Frames, where no times are given.
        rate: Frames per second.
        begin_s: Of its timestamps.
        times_s: Of the frames, where they are uneven.
        options: Of the encoder.
    """
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=rate)
        assert isinstance(stream, av.VideoStream)
        stream.options = {**QUIET.get(codec, {}), **(options or {})}
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        base = Fraction(1, rate if times_s is None else TICKS)
        if times_s is not None:
            stream.codec_context.time_base = base
        for number, time_s in enumerate(times_s or [begin_s + n / rate for n in range(count)]):
            image = np.zeros((*SIZE, 3), np.uint8)
            image[:, 2 * number % SIZE[1] :][:, :8] = 255
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.time_base, frame.pts = base, round(time_s / base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def joined(path: Path, parts: Iterable[Path]) -> Path:
    """Put files end to end, as ``cat`` does."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def tracks(path: Path, kinds: Mapping[str, tuple[str, tuple[int, int], int]]) -> Path:
    """Make a video of several tracks: by name, the codec, height and width, and frame count."""
    with av.open(path, "w") as container:
        streams: dict[str, av.VideoStream] = {}
        for name, (codec, (height, width), _) in kinds.items():
            stream = container.add_stream(codec, rate=30)
            assert isinstance(stream, av.VideoStream)
            streams[name] = stream
            stream.height, stream.width = height, width
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number in range(max(count for *_, count in kinds.values())):
            for name, stream in streams.items():
                if number < kinds[name][2]:
                    frame = av.VideoFrame(stream.width, stream.height, str(stream.pix_fmt))
                    container.mux(stream.encode(frame))
        for stream in streams.values():
            container.mux(stream.encode(None))
    return path
