"""HDR pictures become SDR ones that look the same."""

from __future__ import annotations

import io
import logging
import math
import tempfile
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from salstream.runtime.errors import SalstreamError
from salstream.runtime.sources import hdr
from salstream.runtime.sources.video import open_file

HEIGHT, WIDTH = 32, 32

# The matrices of BT.2087 and their like, from published tables.
TO_709 = {
    9: np.array(
        [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
    ),
    1: np.eye(3),
    12: np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]]),
}


def pq_code(light: float) -> float:
    """Signal of PQ (BT.2100, table 4) for light in cd/m²."""
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    y = (light / 10000) ** m1
    return float(((c1 + c2 * y) / (1 + c3 * y)) ** m2)


def pq_light(code: float) -> float:
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    y = code ** (1 / m2)
    return float(10000 * (max(y - c1, 0) / (c2 - c3 * y)) ** (1 / m1))


def hlg_lights(codes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Light of HLG (BT.2100, table 5) on a display of 1000 cd/m²; the luma is BT.2020's."""
    a, b, c = 0.17883277, 1 - 4 * 0.17883277, 0.5 - 0.17883277 * math.log(4 * 0.17883277)
    scene = [e * e / 3 if e <= 0.5 else (math.exp((e - c) / a) + b) / 12 for e in codes]
    luminance = 0.2627 * scene[0] + 0.6780 * scene[1] + 0.0593 * scene[2]
    return np.array([1000 * luminance**0.2 * e for e in scene])


def rolled_off(light: float) -> float:
    """The documented curve, in multiples of half of diffuse white."""
    x = min(light, 1000) / 101.5
    if x > 1:
        most = 1000 / 101.5 - 1
        x = 1 + (x - 1) * (1 + (x - 1) / most**2) / x
    return x * 101.5


def reference(codes: NDArray[np.float64], transfer: int, primaries: int) -> NDArray[np.float64]:
    """What a colour has to become: linear RGB, of 0 to 1 where BT.709 can hold it."""
    lights = np.array([pq_light(e) for e in codes]) if transfer == hdr.PQ else hlg_lights(codes)
    brightest = float(lights.max())
    return np.asarray(TO_709[primaries] @ (lights * rolled_off(brightest) / brightest) / 203)


def encoded(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(255 * linear ** (1 / 2.4))


def write(
    path: Path,
    codec: str,
    yuv: tuple[int, int, int],
    *,
    transfer: int,
    primaries: int = 9,
    matrix: int = 9,
    pix_fmt: str = "yuv420p10le",
) -> Path:
    options = {"x265-params": "log-level=none:bframes=0"} if codec == "libx265" else {}
    if codec == "libsvtav1":
        options = {"preset": "12", "svtav1-params": "lp=1"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24, options=options)
        assert isinstance(stream, av.VideoStream)
        size = 64 if codec == "libsvtav1" else WIDTH
        stream.width = stream.height = size
        stream.pix_fmt = pix_fmt
        context = stream.codec_context
        context.color_primaries, context.color_trc = primaries, transfer
        context.colorspace, context.color_range = matrix, 1
        frame = av.VideoFrame(size, size, pix_fmt)
        frame.color_primaries, frame.color_trc = primaries, transfer
        frame.colorspace, frame.color_range = matrix, 1
        for plane, value in zip(frame.planes, yuv, strict=True):
            kind = np.uint16 if "10" in pix_fmt else np.uint8
            plane.update(np.full(plane.buffer_size // kind().itemsize, value, kind).tobytes())
        for index in range(2):
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def colour(path: Path) -> NDArray[np.float64]:
    with open_file(path) as video:
        return np.asarray(next(iter(video)).image.reshape(-1, 3).mean(0))


FILES = [
    (".mov", "libx264", "yuv420p10le"),
    (".mp4", "libx265", "yuv420p10le"),
    (".mkv", "libx265", "yuv420p10le"),
    (".webm", "libvpx-vp9", "yuv420p"),
    (".mkv", "libsvtav1", "yuv420p10le"),
    (".avif", "libsvtav1", "yuv420p10le"),
    (".ts", "libx265", "yuv420p10le"),
    (".mkv", "libx264", "yuv444p10le"),
    (".mp4", "libx264", "yuv420p"),
]


@pytest.mark.parametrize(("suffix", "codec", "pix_fmt"), FILES)
def test_white_and_grey_of_every_container(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    suffix: str,
    codec: str,
    pix_fmt: str,
) -> None:
    shift = 0 if "10" in pix_fmt else 2
    # BT.2408: diffuse white lies at 75 % of HLG and 58 % of PQ, a grey card of 18 % at 38 %
    for transfer, name, white in ((hdr.HLG, "HLG", 721), (hdr.PQ, "PQ", 573)):
        for luma, expected in ((white, 227), (397, 108), (64, 0), (940, 255)):
            caplog.clear()
            yuv = (luma >> shift, 512 >> shift, 512 >> shift)
            path = write(tmp_path / f"a{suffix}", codec, yuv, transfer=transfer, pix_fmt=pix_fmt)
            with caplog.at_level(logging.INFO, "salstream"):
                found = colour(path)
            assert np.abs(found - expected).max() <= (3 if shift == 0 else 5), (name, luma)
            assert [r for r in caplog.messages if f"HDR ({name})" in r and path.name in r]
            assert len(caplog.messages) == 1


def test_colours_of_a_file(tmp_path: Path) -> None:
    # luma and chroma of RGB (0.5, 0.4, 0.3) in BT.2020, 10 bits
    codes = np.array([0.5, 0.4, 0.3])
    luma = float(np.array([0.2627, 0.6780, 0.0593]) @ codes)
    chroma = (0.3 - luma) / 1.8814, (0.5 - luma) / 1.4746
    cb, cr = (round(512 + 896 * c) for c in chroma)
    yuv = round(64 + 876 * luma), cb, cr
    for transfer in (hdr.PQ, hdr.HLG):
        # files that leave the matrix open mean BT.2020's
        for matrix in (9, 2):
            path = write(tmp_path / "a.mkv", "libx264", yuv, transfer=transfer, matrix=matrix)
            expected = encoded(reference(codes, transfer, 9))[::-1]
            assert np.abs(colour(path) - expected).max() < 3, (transfer, matrix)


@pytest.mark.parametrize("transfer", [0, 1, 3, 4, 9, 10, 14, 15])
def test_other_transfers_are_left_as_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, transfer: int
) -> None:
    with caplog.at_level(logging.INFO, "salstream"):
        found = colour(write(tmp_path / "a.mkv", "libx264", (502, 512, 512), transfer=transfer))
    assert np.abs(found - 127.5).max() <= 2
    assert not caplog.messages


def test_like_the_formulas_of_the_standards() -> None:
    rng = np.random.default_rng(7)
    checked = 0
    for transfer, primaries in ((hdr.PQ, 9), (hdr.PQ, 1), (hdr.PQ, 12), (hdr.PQ, 2), (hdr.HLG, 9)):
        codes = rng.uniform(0.05, 0.75, (300, 1)) + rng.uniform(-0.05, 0.05, (300, 3))
        found = 255 * hdr.to_sdr(codes, transfer, primaries)
        for code, got in zip(codes, found, strict=True):
            linear = reference(code, transfer, 9 if primaries == 2 else primaries)
            luminance = float(linear @ [0.2126, 0.7152, 0.0722])
            # what is saturated or lies beyond BT.709 is led into it; the rest is exact
            if linear.max() < 1 and linear.min() > 0.16 * luminance:
                assert np.abs(got - encoded(linear)).max() < 0.5
                checked += 1
    assert checked > 700


@pytest.mark.parametrize("transfer", [hdr.PQ, hdr.HLG])
def test_the_hue_of_saturated_colours_stays(transfer: int) -> None:
    rng = np.random.default_rng(8)
    codes = rng.uniform(0, 0.75, (2000, 3))
    found = hdr.to_sdr(codes, transfer, 1)
    assert found.min() >= 0
    assert found.max() <= 1
    # components keep their order, and what differs stays different
    order = np.argsort(codes, axis=1)
    ordered = np.take_along_axis(found, order, axis=1)
    assert (np.diff(ordered, axis=1) >= -1e-9).all()


def test_highlights_up_to_1000_candela_stay_apart() -> None:
    lights = np.array([203.0, 300, 450, 650, 800, 900, 990])
    codes = np.repeat([[pq_code(light)] for light in lights], 3, axis=1)
    found = 255 * hdr.to_sdr(codes, hdr.PQ, 9)[:, 0]
    assert (np.diff(found) > 0.2).all()
    assert 215 <= found[0] < found[-1] < 255


@pytest.mark.parametrize("transfer", [hdr.PQ, hdr.HLG])
def test_what_lies_between_the_points_of_the_table(transfer: int) -> None:
    from salstream.runtime.sources.convert import Converter

    # as in films: colours of BT.709 and greys of all lightnesses
    rng = np.random.default_rng(9)
    linear = rng.uniform(0.1, 1, (64, 64, 3)) * rng.uniform(0.01, 1, (64, 64, 1)) ** 2
    lights = 203 * linear @ np.linalg.inv(TO_709[9]).T
    codes = np.vectorize(pq_code)(lights)
    frame = av.VideoFrame.from_ndarray((codes * 65535).astype(np.uint16), format="rgb48le")
    frame.color_trc, frame.color_primaries = transfer, 9
    data = io.BytesIO()
    with av.open(data, "w", format="nut") as container:
        stream = container.add_stream("rawvideo", rate=1)
        assert isinstance(stream, av.VideoStream)
        image, _ = Converter(stream, "clip")(frame)
    expected = 255 * hdr.to_sdr(codes, transfer, 9)[..., ::-1]
    error = np.abs(image - expected)
    assert error.mean() < 0.8
    assert np.percentile(error, 99) < 4


def test_without_a_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.mov", "libx264", (721, 512, 512), transfer=hdr.HLG)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(SalstreamError, match="TMPDIR"):
        colour(path)
