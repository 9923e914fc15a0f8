"""How wide pixels are shown, as containers and codecs say."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from salstream.runtime.sources.video import open_file

HEIGHT, WIDTH = 48, 64


def write(
    path: Path, codec: str, aspect: Fraction | None, options: dict[str, str] | None = None
) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = HEIGHT, WIDTH
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for index in range(8):
            image = np.full((HEIGHT, WIDTH, 3), 20 * index, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def aspects(path: Path) -> list[float]:
    with open_file(path) as video:
        return [frame.pixel_aspect for frame in video]


def patched(path: Path, kind: bytes, at: int, data: bytes) -> Path:
    """Overwrite a part of an MP4's box, counted from behind its name."""
    whole = bytearray(path.read_bytes())
    begin = whole.index(kind) + 4 + at
    whole[begin : begin + len(data)] = data
    changed = path.with_name(f"patched{path.suffix}")
    changed.write_bytes(whole)
    return changed


@pytest.mark.parametrize(
    ("suffix", "codec", "aspect"),
    [
        (".mp4", "libx264", Fraction(64, 45)),
        (".mkv", "libx264", Fraction(64, 45)),
        (".ts", "libx264", Fraction(12, 11)),
        (".avi", "mpeg4", Fraction(10, 11)),
        (".ts", "mpeg2video", Fraction(4, 3)),
        (".mpg", "mpeg2video", Fraction(4, 3)),
        (".mov", "mjpeg", Fraction(8, 9)),
        (".mkv", "libx264", Fraction(1)),
        (".mp4", "libx264", None),
    ],
)
def test_what_files_say(tmp_path: Path, suffix: str, codec: str, aspect: Fraction | None) -> None:
    path = write(tmp_path / f"a{suffix}", codec, aspect)
    assert aspects(path) == [float(aspect or 1)] * 8


def test_a_quarter_turn_swaps_width_and_height(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", "libx264", Fraction(3, 2))
    one = 1 << 16
    for a, b, c, d, expected in (
        (0, 1, -1, 0, 2 / 3),
        (0, -1, 1, 0, 2 / 3),
        (0, 1, 1, 0, 2 / 3),
        (-1, 0, 0, -1, 3 / 2),
        (-1, 0, 0, 1, 3 / 2),
    ):
        matrix = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
        assert aspects(patched(path, b"tkhd", 40, matrix)) == pytest.approx([expected] * 8)


def test_the_container_counts_before_the_codec(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", "libx264", Fraction(3, 2))
    assert aspects(patched(path, b"pasp", 0, struct.pack(">II", 2, 1))) == [2.0] * 8


@pytest.mark.parametrize(("width", "height"), [(0, 1), (1, 0), (1, 1000), (1000, 1), (11, 1)])
def test_what_cannot_be_meant_is_square(tmp_path: Path, width: int, height: int) -> None:
    path = write(tmp_path / "a.mp4", "mpeg4", Fraction(1))
    # a box that is not there otherwise: MPEG-4 says 1:1 by itself, and so does the container
    whole = patched(path, b"pasp", 0, struct.pack(">II", width, height))
    assert aspects(whole) == [1.0] * 8


@pytest.mark.parametrize("frames", ["0", "2"])
def test_an_aspect_that_changes_on_the_way(tmp_path: Path, frames: str) -> None:
    options = {"bf": frames}
    first = write(tmp_path / "a.ts", "libx264", Fraction(12, 11), options)
    second = write(tmp_path / "b.ts", "libx264", Fraction(16, 11), options)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    found = aspects(joined)
    assert len(found) == 16
    assert found == [12 / 11] * 8 + [16 / 11] * 8
