"""Pictures of every format that FFmpeg knows become frames, or are refused in order."""

from __future__ import annotations

import io
from collections.abc import Iterator

import av
import av.filter
import numpy as np
import pytest
from av.video.format import names as format_names  # type: ignore[attr-defined]
from numpy.typing import NDArray

from salstream.runtime.sources.convert import Converter

# FFmpeg's own scaler aborts on them, and none of its decoders gives them.
ABORTS = {"yaf32be", "yaf32le"}
# Its scaler writes them wrongly, so the test cannot make them.
MISMADE = {"bgr555be", "bgr565be", "rgb555be", "rgb565be"}
# Formats so coarse that a flat grey becomes a pattern; its mean stays.
COARSE = 24
# Fewer than FFmpeg 8.1 can make of grey and turn back.
LEAST = 170


@pytest.fixture
def stream() -> Iterator[av.VideoStream]:
    with av.open(io.BytesIO(), "w", format="nut") as container:
        stream = container.add_stream("rawvideo", rate=1)
        assert isinstance(stream, av.VideoStream)
        yield stream


def picture(image: NDArray[np.uint8], pixel_format: str) -> av.VideoFrame | None:
    """Return a picture in a pixel format; None where FFmpeg cannot make one."""
    frame = av.VideoFrame.from_ndarray(image, format="bgr24")
    graph = av.filter.Graph()
    size = f"{frame.width}x{frame.height}"
    source = graph.add("buffer", video_size=size, pix_fmt="bgr24", time_base="1/1")
    nodes = [source, graph.add("format", pixel_format), graph.add("buffersink")]
    try:
        graph.link_nodes(*nodes).configure()
        graph.vpush(frame)
        return graph.vpull()
    except (av.FFmpegError, NotImplementedError, ValueError):
        return None


@pytest.mark.parametrize("size", [(48, 64), (17, 33), (1, 1)])
def test_every_pixel_format(stream: av.VideoStream, size: tuple[int, int]) -> None:
    convert = Converter(stream, "clip")
    grey = np.full((*size, 3), 128, np.uint8)
    made = 0
    for name in sorted(format_names - ABORTS - MISMADE):
        source = picture(grey, name)
        if source is None:
            continue
        try:
            image, aspect = convert(source)
        except av.FFmpegError:
            continue
        assert image.shape == (*size, 3), name
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        assert aspect == 1
        if size != (1, 1):
            assert abs(image.mean() - 128) < COARSE, name
        made += 1
    assert made >= LEAST


@pytest.mark.parametrize(
    "name", ["yuv420p", "yuv444p12le", "gbrp10le", "gray10le", "rgb48be", "bgr24", "pal8", "nv12"]
)
@pytest.mark.parametrize("size", [(48, 64), (17, 33), (1, 1)])
def test_hdr_of_other_formats(stream: av.VideoStream, size: tuple[int, int], name: str) -> None:
    source = picture(np.full((*size, 3), 148, np.uint8), name)  # PQ's diffuse white
    assert source is not None
    source.color_trc = 16
    image, _ = Converter(stream, "clip")(source)
    assert image.shape == (*size, 3)
    if name != "pal8":
        assert np.abs(image.astype(int) - 227).max() < 16  # the way to 8 bits of Y, U and V rounds


@pytest.mark.parametrize(
    "name", ["yuv444p12le", "yuvj420p", "gray10le", "gbrpf32le", "rgb48be", "pal8", "yuv411p"]
)
def test_colours_of_other_formats(stream: av.VideoStream, name: str) -> None:
    ramp = np.linspace(20, 235, 64).astype(np.uint8)
    image = np.repeat(np.tile(ramp, (48, 1))[:, :, None], 3, axis=2)
    source = picture(image, name)
    assert source is not None
    shown, _ = Converter(stream, "clip")(source)
    assert np.abs(shown.astype(int) - image).mean() < (20 if name == "pal8" else 2)


def test_unknown_colours_are_no_reason_to_refuse(stream: av.VideoStream) -> None:
    convert = Converter(stream, "clip")
    expected, _ = convert(flat("yuv420p"))
    for number in (0, 3, 9, 10, 19, 99, 255):
        for what in ("color_trc", "color_primaries", "colorspace"):
            source = flat("yuv420p")
            setattr(source, what, number)
            image, _ = convert(source)
            if what != "colorspace" or number not in (0, 9):
                assert np.array_equal(image, expected), (what, number)


def flat(pixel_format: str) -> av.VideoFrame:
    source = picture(np.full((48, 64, 3), (40, 90, 200), np.uint8), pixel_format)
    assert source is not None
    return source


@pytest.mark.parametrize("name", ["rgba", "bgra", "gbrap", "yuva420p", "ya8"])
def test_colours_count_where_they_are_transparent(stream: av.VideoStream, name: str) -> None:
    opaque = flat(name)
    expected, _ = Converter(stream, "clip")(opaque)
    clear = flat(name)
    step, offset, plane = {
        "rgba": (4, 3, 0),
        "bgra": (4, 3, 0),
        "gbrap": (1, 0, 3),
        "yuva420p": (1, 0, 3),
        "ya8": (2, 1, 0),
    }[name]
    values = bytearray(bytes(clear.planes[plane]))
    values[offset::step] = bytes(len(values[offset::step]))
    clear.planes[plane].update(bytes(values))
    shown, _ = Converter(stream, "clip")(clear)
    assert np.array_equal(shown, expected)
