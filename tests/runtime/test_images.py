"""One picture in a file: every format upright and whole, and what is not whole named."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from heif import imir, irot, write_grid
from made import video
from salstream.runtime.errors import SalstreamError
from salstream.runtime.sources import open_source
from salstream.runtime.sources.images import read_image
from salstream.runtime.sources.video import open_stream

needs_libheif = pytest.mark.skipif(
    importlib.util.find_spec("pi_heif") is None, reason="needs pi-heif"
)


def corners(height: int = 240, width: int = 320) -> NDArray[np.uint8]:
    """A BGR picture whose four corners differ."""
    image = np.full((height, width, 3), 60, np.uint8)
    third, half = height // 3, width // 2
    image[:third, :half] = (0, 0, 250)
    image[:third, half:] = (0, 250, 0)
    image[-third:, :half] = (250, 0, 0)
    return image


def noise() -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (30, 40, 3), np.uint8).repeat(8, 0).repeat(8, 1)


def pillow(image: NDArray[np.uint8], form: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image[:, :, ::-1].copy()).save(out, form, **options)
    return out.getvalue()


def tone_at(image: NDArray[np.uint8], y: int, x: int) -> list[int]:
    return [int(value > 150) for value in image[y, x]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("form", "suffix"),
    [
        ("JPEG", ".jpg"),
        ("JPEG", ".jfif"),
        ("JPEG", ".jpe"),
        ("PNG", ".png"),
        ("TIFF", ".tif"),
        ("WEBP", ".webp"),
        ("AVIF", ".avif"),
        ("MPO", ".mpo"),
    ],
)
def test_pictures_are_upright(tmp_path: Path, form: str, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"picture{suffix}"
    path.write_bytes(pillow(corners(), form, exif=exif))
    with Image.open(path) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))[:, :, ::-1]
    image = read_image(path)
    assert image.shape == expected.shape == ((240, 320, 3) if orientation < 5 else (320, 240, 3))
    assert np.abs(image.astype(int) - expected).mean() < 4


@pytest.mark.parametrize(
    ("suffix", "form"),
    [
        (".gif", "GIF"),
        (".jp2", "JPEG2000"),
        (".j2k", "JPEG2000"),
        (".ppm", "PPM"),
        (".pnm", "PPM"),
        (".tga", "TGA"),
        (".qoi", "QOI"),
        (".dib", "BMP"),
        (".png", "JPEG"),  # what a phone or a browser calls it is not always what it is
        (".jpg", "AVIF"),
        (".heic", "JPEG"),
        ("", "PNG"),
    ],
)
def test_formats_that_opencv_or_pillow_reads(tmp_path: Path, suffix: str, form: str) -> None:
    path = tmp_path / f"picture{suffix}"
    path.write_bytes(pillow(corners(), form))
    with open_source(path) as source:
        (frame,) = list(source)
    assert frame.image.shape == (240, 320, 3)
    assert [tone_at(frame.image, y, x) for y in (5, -5) for x in (5, -5)] == [
        [0, 0, 1],
        [0, 1, 0],
        [1, 0, 0],
        [0, 0, 0],
    ]
    assert (frame.time, frame.name) == (None, path.name)


@pytest.mark.parametrize("suffix", [".exr", ".psd", ".CR2", ".jxl", ".svg"])
def test_formats_that_are_not_read_say_what_to_do(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"picture{suffix}"
    path.write_bytes(pillow(corners(), "TIFF"))  # what some of them pretend to be
    with pytest.raises(SalstreamError, match="convert to PNG or JPEG"):
        list(open_source(path))


# Pictures in tiles

TURNS = {
    # height and width, and where the tile's marked corner is then: y, x
    "as it is": (b"", (480, 500), (5, 5)),
    "turned left": (irot(1), (500, 480), (-5, 5)),
    "turned over": (irot(2), (480, 500), (-5, -5)),
    "turned right": (irot(3), (500, 480), (5, -5)),
    "top and bottom": (imir(0), (480, 500), (-5, 5)),
    "left and right": (imir(1), (480, 500), (5, -5)),
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("suffix", [pytest.param(".heic", marks=needs_libheif), ".avif"])
def test_a_picture_in_tiles_is_whole_and_upright(tmp_path: Path, suffix: str, turn: str) -> None:
    box, (height, width), marked = TURNS[turn]
    tile = np.full((256, 256, 3), 60, np.uint8)
    tile[:80, :60] = (0, 0, 250)
    path = write_grid(tmp_path / f"tiles{suffix}", tile, (480, 500), turn=box)
    with open_source(path) as source:
        (frame,) = list(source)
    assert frame.image.shape == (height, width, 3)
    places = [(y, x) for y in (5, -5) for x in (5, -5)]
    assert [place for place in places if tone_at(frame.image, *place) == [0, 0, 1]] == [marked]


def test_a_tile_is_never_taken_for_the_picture(tmp_path: Path) -> None:
    tile = np.full((256, 256, 3), 60, np.uint8)
    path = write_grid(tmp_path / "tiles.heic", tile, (480, 500))
    other = path.rename(tmp_path / "tiles.mp4")  # a wrong name changes nothing
    try:
        shape = next(iter(open_source(other))).image.shape
    except SalstreamError as error:
        assert "salstream[heic]" in str(error)
    else:
        assert shape == (480, 500, 3)
    with other.open("rb") as stream, pytest.raises(SalstreamError, match="tiles"):
        open_stream(stream, "standard input")


# Pictures that are not whole


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(cv2.imencode(".jpg", noise())[1].tobytes(), id="baseline"),
        pytest.param(pillow(noise(), "JPEG", progressive=True), id="progressive"),
        pytest.param(pillow(noise(), "JPEG", optimize=True), id="optimised"),
        pytest.param(
            cv2.imencode(".jpg", noise(), [cv2.IMWRITE_JPEG_RST_INTERVAL, 8])[1].tobytes(),
            id="restarts",
        ),
        pytest.param(cv2.imencode(".jpg", noise()[:, :, 0])[1].tobytes(), id="grey"),
        pytest.param(pillow(np.full((240, 320, 3), 128, np.uint8), "JPEG"), id="one colour"),
    ],
)
def test_a_jpeg_is_whole_if_only_its_end_marker_is_missing(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(data)
    whole = read_image(path)
    for kept in (data[:-1], data[:-2], data + bytes(40)):
        path.write_bytes(kept)
        np.testing.assert_array_equal(read_image(path), whole)
    for cut in (data[:-40], data[: len(data) // 2], data[: len(data) // 8]):
        path.write_bytes(cut)
        with pytest.raises(SalstreamError, match=r"picture\.jpg"):
            read_image(path)


def test_half_a_jpeg_with_an_end_marker_is_half_a_jpeg(tmp_path: Path) -> None:
    data = cv2.imencode(".jpg", noise())[1].tobytes()
    path = tmp_path / "picture.jpg"
    path.write_bytes(data[: len(data) // 2] + data[-2:])
    with pytest.raises(SalstreamError, match="damaged"):
        read_image(path)


def _middle_lost(data: bytes) -> bytes:
    half = len(data) // 2
    return data[:half] + bytes(64) + data[half + 64 :]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.png", cv2.imencode(".png", noise())[1].tobytes()[:-30]),
        ("lost.png", _middle_lost(cv2.imencode(".png", noise())[1].tobytes())),
        ("cut.webp", pillow(noise(), "WEBP")[:-30]),
        ("cut.tif", pillow(noise(), "TIFF")[:-400]),
        ("cut.bmp", cv2.imencode(".bmp", noise())[1].tobytes()[:-30]),
        ("cut.jp2", cv2.imencode(".jp2", noise())[1].tobytes()[:-300]),
        ("cut.gif", pillow(noise(), "GIF")[:-300]),
        ("cut.avif", pillow(noise(), "AVIF")[:-30]),
        ("cut.ppm", pillow(noise(), "PPM")[:-30]),
        ("text.jpg", b"<html>404</html>"),
        ("empty.jpg", b""),
        ("empty.heic", b""),
    ],
)
def test_damaged_pictures_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SalstreamError, match=name) as caught:
        list(open_source(path))
    assert "\n" not in str(caught.value)


def test_a_video_with_the_suffix_of_a_picture_is_called_one(tmp_path: Path) -> None:
    path = tmp_path / "film.jpg"
    path.write_bytes(video(tmp_path / "film.mp4", count=3).read_bytes())
    with pytest.raises(SalstreamError, match="it is a video"):
        read_image(path)
