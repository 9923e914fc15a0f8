"""HDR pictures become SDR ones that look the same, as HDR videos do."""

from __future__ import annotations

import importlib.util
import struct
import zlib
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from heif import irot, write_grid
from salstream.runtime.errors import SalstreamError
from salstream.runtime.sources import open_source
from salstream.runtime.sources.video import open_file

PQ, HLG, SDR = (16, 9), (18, 9), (1, 1)
# BT.2408: diffuse white lies at 58 % of PQ and 75 % of HLG; SDR stays as it is. The last one is
# the code of 10 bits, of limited range.
WHITES = [(PQ, 227, 573), (HLG, 227, 721), (SDR, 148, 573)]

needs_libheif = pytest.mark.skipif(
    importlib.util.find_spec("pi_heif") is None, reason="needs pi-heif"
)
grids = pytest.mark.parametrize("suffix", [pytest.param(".heic", marks=needs_libheif), ".avif"])


def only_image(source: Path) -> NDArray[np.uint8]:
    with open_source(source) as opened:
        (frame,) = list(opened)
    return frame.image


def write_avif(path: Path, luma: NDArray[np.uint16], signal: tuple[int, int]) -> Path:
    """Write a grey still of 10 bits."""
    height, width = luma.shape
    options = {"preset": "8", "crf": "5", "svtav1-params": "lp=1"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libsvtav1", rate=1, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p10le"
        frame = av.VideoFrame(width, height, "yuv420p10le")
        for holder in (stream.codec_context, frame):
            holder.color_trc, holder.color_primaries = signal
            holder.colorspace, holder.color_range = 9, 1
        grey = np.full((height // 2, width // 2), 512, np.uint16)
        for plane, values in zip(frame.planes, (luma, grey, grey), strict=True):
            rows = np.zeros((plane.height, plane.line_size // 2), np.uint16)
            rows[:, : plane.width] = values
            plane.update(rows.tobytes())
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("signal", "expected", "code"), WHITES)
def test_white_of_an_avif(
    tmp_path: Path, signal: tuple[int, int], expected: int, code: int
) -> None:
    path = write_avif(tmp_path / "a.avif", np.full((64, 64), code, np.uint16), signal)
    image = only_image(path)
    assert np.abs(image.astype(int) - expected).max() <= 2
    # alone, in a folder and in a list it is the same
    assert np.array_equal(only_image(tmp_path), image)


@pytest.mark.parametrize("signal", [PQ, HLG])
def test_an_avif_is_toned_as_a_video_is(tmp_path: Path, signal: tuple[int, int]) -> None:
    ramp = np.tile(np.linspace(64, 940, 256).astype(np.uint16), (64, 1))
    path = write_avif(tmp_path / "a.avif", ramp, signal)
    with open_file(path) as video:
        expected = next(iter(video)).image.astype(int)
    image = only_image(path).astype(int)
    assert np.ptp(image) > 240
    # Pillow decodes to 8 bits, of which one is up to 3 after tone mapping
    assert np.abs(image - expected).mean() < 1.5
    assert np.abs(image - expected).max() <= 6


def level(luma: int) -> int:
    """Return the 8-bit grey whose code in 10 bits of limited range is nearest to a luma."""
    return round(255 * (luma - 64) / 876)


@grids
@pytest.mark.parametrize("box", [True, False])
@pytest.mark.parametrize(("signal", "expected", "code"), WHITES)
def test_pictures_in_tiles(
    tmp_path: Path, suffix: str, box: bool, signal: tuple[int, int], expected: int, code: int
) -> None:
    tile = np.full((256, 256, 3), level(code), np.uint8)
    tile[:80, :60] = 0
    path = write_grid(
        tmp_path / f"a{suffix}", tile, (480, 500), turn=irot(1), signal=signal, box=box
    )
    image = only_image(path).astype(int)
    assert image.shape == (500, 480, 3)
    assert np.abs(image[5, 5] - expected).max() <= 3
    assert image[-5, 5].max() <= 3  # turned, and black stays black


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize(("signal", "expected", "code"), WHITES)
def test_a_png_that_names_its_colours(
    tmp_path: Path,
    signal: tuple[int, int],
    expected: int,
    code: int,
    depth: type[np.uint8] | type[np.uint16],
) -> None:
    value = round((code - 64) / 876 * np.iinfo(depth).max)
    data = cv2.imencode(".png", np.full((20, 30, 3), value, depth))[1].tobytes()
    chunk = b"cICP" + bytes([signal[1], signal[0], 0, 1])
    chunk = struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path = tmp_path / "a.png"
    path.write_bytes(data[:33] + chunk + data[33:])  # behind the header
    assert np.abs(only_image(path).astype(int) - expected).max() <= 2


@pytest.mark.parametrize("cut", [0.2, 0.6, 0.95])
def test_a_cut_off_hdr_picture_is_refused_in_one_sentence(tmp_path: Path, cut: float) -> None:
    rng = np.random.default_rng(3)
    luma = rng.integers(64, 940, (64, 64), np.uint16)
    path = write_avif(tmp_path / "a.avif", luma, PQ)
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data))])
    with pytest.raises(SalstreamError, match="cannot be decoded"):
        only_image(path)
