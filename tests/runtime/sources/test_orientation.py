"""Pictures are shown upright, whatever declares how they lie."""

from __future__ import annotations

import gc
import io
import math
import shutil
import struct
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import av.bitstream
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from salstream.runtime.sources.orientation import UPRIGHT, from_matrix, turn
from salstream.runtime.sources.video import open_file

ONE = 1 << 16
LEAST = -(1 << 31)
# a, b, c, d of the matrix: (x, y) is shown at (ax + cy, bx + dy)
EIGHT = {
    "identity": (1, 0, 0, 1),
    "r90": (0, 1, -1, 0),
    "r180": (-1, 0, 0, -1),
    "r270": (0, -1, 1, 0),
    "hflip": (-1, 0, 0, 1),
    "vflip": (1, 0, 0, -1),
    "transpose": (0, 1, 1, 0),
    "transverse": (0, -1, -1, 0),
}
# Orientations of EXIF by the same names.
EXIF = dict(
    zip(
        ("identity", "hflip", "r180", "vflip", "transpose", "r90", "transverse", "r270"),
        range(1, 9),
        strict=True,
    )
)


def quarters(size: tuple[int, int] = (48, 64)) -> NDArray[np.uint8]:
    """A picture that looks different in each orientation: four greys."""
    height, width = size
    image = np.empty((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = 40, 100
    image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :] = 160, 220
    return image


def moved(image: NDArray[np.uint8], a: int, b: int, c: int, d: int) -> NDArray[np.uint8]:
    """The reference: every pixel goes where the matrix says."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width]
    shown_x, shown_y = a * x + c * y, b * x + d * y
    shown_x, shown_y = shown_x - shown_x.min(), shown_y - shown_y.min()
    result = np.zeros((shown_y.max() + 1, shown_x.max() + 1, 3), np.uint8)
    result[shown_y, shown_x] = image
    return result


def write(path: Path, codec: str = "libx264", frames: int = 1) -> Path:
    with av.open(str(path), "w") as container:
        options = {"x265-params": "log-level=none:bframes=0"} if codec == "libx265" else {}
        stream = container.add_stream(codec, rate=30, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = 48, 64
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(quarters(), format="bgr24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def with_matrix(path: Path, *numbers: int) -> Path:
    """Write a display matrix into the track header of an MP4 or MOV."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", *numbers)
    changed = path.with_name(f"matrix{path.suffix}")
    changed.write_bytes(data)
    return changed


def with_turn(path: Path, name: str) -> Path:
    a, b, c, d = EIGHT[name]
    return with_matrix(path, a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30)


def filtered(source: Path, target: Path, description: str) -> Path:
    """Copy packets through a bitstream filter."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        turned = av.bitstream.BitStreamFilterContext(description, stream, copy)
        for packet in reader.demux(stream):
            for each in turned.filter(packet if packet.size else None):
                each.stream = copy
                writer.mux(each)
    return target


def images(path: Path) -> list[NDArray[np.uint8]]:
    with open_file(path) as video:
        return [frame.image for frame in video]


def assert_shown(image: NDArray[np.uint8], name: str) -> None:
    expected = moved(quarters(), *EIGHT[name])
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4", "mjpeg"])
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_track_headers(tmp_path: Path, suffix: str, codec: str) -> None:
    path = write(tmp_path / f"a{suffix}", codec)
    for name in EIGHT:
        assert_shown(images(with_turn(path, name))[0], name)


@pytest.mark.parametrize(
    "matrix",
    [
        (0,) * 9,
        (0, 0, 0, 0, ONE, 0, 0, 0, 0),
        (0, ONE, 0, 0, 0, 0, 0, 0, 1 << 30),
        (-ONE, 0, 0, -ONE, 0, 0, 0, 0, 1 << 30),
        (LEAST,) * 9,
        (ONE, ONE, 0, -ONE, ONE, 0, 0, 0, 1 << 30),  # 45 degrees
    ],
)
def test_matrices_that_say_nothing(tmp_path: Path, matrix: tuple[int, ...]) -> None:
    path = write(tmp_path / "a.mp4")
    assert_shown(images(with_matrix(path, *matrix))[0], "identity")


@pytest.mark.parametrize("suffix", [".h264", ".mkv", ".ts"])
def test_what_the_codec_says(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}")
    # the angle of H.264 is counterclockwise, and the flips come after it
    for angle, name in ((90, "r270"), (180, "r180"), (270, "r90")):
        turned = filtered(
            path,
            tmp_path / f"b{suffix}",
            f"h264_metadata=display_orientation=insert:rotate={angle}",
        )
        assert_shown(images(turned)[0], name)
    for angle, flip, name in (
        (0, "horizontal", "hflip"),
        (0, "vertical", "vflip"),
        (90, "horizontal", "transpose"),
        (90, "vertical", "transverse"),
    ):
        turned = filtered(
            path,
            tmp_path / f"b{suffix}",
            f"h264_metadata=display_orientation=insert:rotate={angle}:flip={flip}",
        )
        assert_shown(images(turned)[0], name)


def test_what_hevc_says(tmp_path: Path) -> None:
    data = write(tmp_path / "a.hevc", "libx265", frames=3).read_bytes()
    units = data.split(b"\0\0\1")
    slices = next(n for n, unit in enumerate(units[1:], 1) if unit[0] >> 1 & 63 < 32)
    for flip_x, flip_y, quarters_left, name in (
        (0, 0, 1, "r270"),
        (0, 0, 2, "r180"),
        (1, 0, 0, "hflip"),
        (1, 0, 1, "transpose"),
        (0, 1, 1, "transverse"),
    ):
        # display_orientation(): no cancelling, flips, angle, persistence, and a bit that aligns
        bits = flip_x << 22 | flip_y << 21 | quarters_left << 14 << 5 | 0b11 << 3
        sei = b"\x4e\x01" + bytes([47, 3]) + bits.to_bytes(3, "big") + b"\x80"
        path = tmp_path / "b.hevc"
        path.write_bytes(b"\0\0\1".join([*units[:slices], sei, *units[slices:]]))
        shown = images(path)
        assert len(shown) == 3
        for image in shown:
            assert_shown(image, name)


def test_matroska(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4")
    for name in ("r90", "r180", "r270", "hflip"):
        # FFmpeg writes the matrix as a rectangular projection that is rolled
        copy = filtered(with_turn(path, name), tmp_path / "b.mkv", "null")
        with av.open(str(copy)) as container:
            (frame,) = container.decode(video=0)
            assert "DISPLAYMATRIX" in frame.side_data
        assert_shown(images(copy)[0], name)


def test_the_container_counts_before_the_codec(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", frames=3)
    turned = filtered(
        path, tmp_path / "b.mp4", "h264_metadata=display_orientation=insert:rotate=180"
    )
    shown = images(with_turn(turned, "r90"))
    assert len(shown) == 3
    for image in shown:  # the codec says it for the first one only
        assert_shown(image, "r90")


def test_an_orientation_that_changes_on_the_way(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ts", frames=4)
    turned = filtered(path, tmp_path / "b.ts", "h264_metadata=display_orientation=insert:rotate=90")
    joined = tmp_path / "joined.ts"
    joined.write_bytes(path.read_bytes() + turned.read_bytes() + path.read_bytes())
    shown = images(joined)
    assert len(shown) == 12
    for index, image in enumerate(shown):
        assert_shown(image, "r270" if 4 <= index < 8 else "identity")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_exif_that_ffmpeg_reads(tmp_path: Path, suffix: str) -> None:
    for name, number in EXIF.items():
        exif = Image.Exif()
        exif[0x0112] = number
        path = tmp_path / f"picture{suffix}"
        Image.fromarray(quarters()).save(path, exif=exif, lossless=True)
        assert_shown(images(path)[0], name)


def test_avif(tmp_path: Path) -> None:
    for name, number in EXIF.items():
        exif = Image.Exif()
        exif[0x0112] = number
        path = tmp_path / "picture.avif"  # Pillow writes it as irot and imir
        Image.fromarray(quarters()).save(path, exif=exif, quality=95)
        assert_shown(images(path)[0], name)


@pytest.mark.parametrize("suffix", [".mov", ".avi", ".mkv"])
def test_motion_jpeg_with_exif_is_turned_once(tmp_path: Path, suffix: str) -> None:
    for name, number in EXIF.items():
        exif = Image.Exif()
        exif[0x0112] = number
        data = io.BytesIO()
        Image.fromarray(quarters()).save(data, "JPEG", exif=exif, quality=95)
        path = tmp_path / f"a{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mjpeg", rate=30)
            assert isinstance(stream, av.VideoStream)
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuvj420p"
            for index in range(3):
                packet = av.Packet(data.getvalue())
                packet.stream, packet.pts, packet.dts = stream, index, index
                packet.time_base, packet.is_keyframe = Fraction(1, 30), True
                container.mux(packet)
        for image in images(path):
            assert_shown(image, name)
        if suffix == ".mov":  # what each picture says counts before the track header
            assert_shown(images(with_turn(path, "r90"))[0], name)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the ffmpeg program")
def test_as_the_ffmpeg_program_shows_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4")
    for name in EIGHT:
        turned = with_turn(path, name)
        command = ["ffmpeg", "-v", "error", "-i", str(turned), "-frames:v", "1"]
        command += ["-f", "image2pipe", "-c:v", "png", "-"]
        png = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
        expected = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
        image = images(turned)[0]
        assert image.shape == expected.shape
        assert np.abs(image - expected).mean() < 2, name


SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))


def numbered(size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.arange(size[0] * size[1] * 3, dtype=np.uint16).astype(np.uint8).reshape(*size, 3)


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(list(EIGHT)),
    size=SIZES,
    scales=st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)),
    noise=st.lists(st.floats(-0.2, 0.2), min_size=4, max_size=4),
    rest=st.lists(st.integers(LEAST, -LEAST - 1), min_size=5, max_size=5),
)
def test_scaled_and_inexact_matrices(
    name: str,
    size: tuple[int, int],
    scales: tuple[float, float],
    noise: list[float],
    rest: list[int],
) -> None:
    a, b, c, d = (
        round((number + error) * scale * ONE)
        for number, error, scale in zip(
            EIGHT[name], noise, (scales[0], scales[0], scales[1], scales[1]), strict=True
        )
    )
    u, v, x, y, w = rest
    image = numbered(size)
    shown = turn(image, from_matrix((a, b, u, c, d, v, x, y, w)))
    assert np.array_equal(shown, moved(image, *EIGHT[name]))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 359), st.booleans())
def test_free_angles_go_to_the_nearest_quarter(angle: int, mirrored: bool) -> None:
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    sign = -1 if mirrored else 1
    matrix = [round(ONE * n) for n in (sign * cosine, sign * sine, 0, -sine, cosine, 0, 0, 0, 0)]
    quarter = round(angle / 90) % 4
    name = ("identity", "r90", "r180", "r270")[quarter]
    if angle % 90 == 45:
        name, mirrored = "identity", False
    a, b, c, d = EIGHT[name]
    image = numbered((4, 7))
    expected = moved(image, -a if mirrored else a, -b if mirrored else b, c, d)
    assert np.array_equal(turn(image, from_matrix(matrix)), expected)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(LEAST, -LEAST - 1), min_size=9, max_size=9), SIZES)
def test_any_matrix_gives_one_of_the_eight(matrix: list[int], size: tuple[int, int]) -> None:
    image = numbered(size)
    shown = turn(image, from_matrix(matrix))
    assert any(np.array_equal(shown, moved(image, *numbers)) for numbers in EIGHT.values())


@settings(max_examples=200, deadline=None)
@given(*[st.integers(-1000, 1000) for _ in range(4)])
def test_matrices_of_rank_1_say_nothing(p: int, q: int, r: int, s: int) -> None:
    assert from_matrix((p * r, p * s, 0, q * r, q * s, 0, 0, 0, 1 << 30)) == UPRIGHT


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(list(EXIF)), SIZES)
def test_like_pillow(name: str, size: tuple[int, int]) -> None:
    picture = Image.fromarray(numbered(size))
    picture.getexif()[0x0112] = EXIF[name]
    a, b, c, d = EIGHT[name]
    shown = turn(numbered(size), from_matrix((a, b, 0, c, d, 0, 0, 0, 0)))
    assert np.array_equal(shown, np.asarray(ImageOps.exif_transpose(picture)))


def test_pictures_are_let_go_without_the_garbage_collector(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", frames=30)
    gc.collect()
    gc.disable()
    try:
        with open_file(path) as video:
            frames = sum(1 for _ in video)
        kept = sum(issubclass(type(each), av.VideoFrame) for each in gc.get_objects())
    finally:
        gc.enable()
    assert frames == 30
    assert kept < 10
