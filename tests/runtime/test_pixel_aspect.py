"""Pixels that are not square: what is shown has the proportions that a player shows."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from salstream.runtime import Result
from salstream.runtime.live.points import points
from salstream.runtime.segments import Segments
from salstream.runtime.serve.pictures import View, jpeg, png
from salstream.runtime.sinks import Figures, OverlayVideo, Picture, RawFrames, Window

WIDE = 64 / 45  # 720x576 as 16:9


def result(
    index: int = 0, size: tuple[int, int] = (576, 720), pixel_aspect: float = WIDE
) -> Result:
    image = np.full((*size, 3), 128, np.uint8)
    saliency = np.zeros((36, 48), np.float32)
    return Result(index, index / 25, image, saliency, pixel_aspect=pixel_aspect)


def shown(path: Path) -> float:
    """Return width / height as a player shows it."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        return float(stream.width * (stream.sample_aspect_ratio or 1) / stream.height)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize(
    ("size", "pixel_aspect"),
    [
        ((576, 720), WIDE),
        ((480, 720), 8 / 9),  # NTSC as 4:3
        ((480, 720), 32 / 27),
        ((1080, 1440), 4 / 3),  # HDV
        ((96, 128), 1.0),
    ],
)
def test_an_overlay_video_says_the_aspect_of_its_pixels(
    tmp_path: Path, size: tuple[int, int], pixel_aspect: float, suffix: str
) -> None:
    video = OverlayVideo(tmp_path / f"o{suffix}")
    segments = Segments(tmp_path / f"s{suffix}", 0.04)
    for index in range(2):
        video.write(result(index, size, pixel_aspect))
        segments.write(result(index, size, pixel_aspect))
    video.close()
    segments.close()
    paths = list(tmp_path.iterdir())
    assert len(paths) == 3
    for path in paths:
        assert shown(path) == pytest.approx(size[1] * pixel_aspect / size[0], abs=0.001)
        with av.open(path) as container:
            stream = container.streams.video[0]
            assert (stream.height, stream.width) == size, "the frame's own pixels"


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_the_container_says_it_too(tmp_path: Path, suffix: str) -> None:
    video = OverlayVideo(tmp_path / f"o{suffix}")
    video.write(result())
    video.close()
    content = (tmp_path / f"o{suffix}").read_bytes()
    assert b"pasp" + struct.pack(">II", 64, 45) in content


def test_an_odd_size_keeps_its_aspect(tmp_path: Path) -> None:
    video = OverlayVideo(tmp_path / "o.mp4")
    video.write(result(0, (47, 63), WIDE))
    video.close()
    assert shown(tmp_path / "o.mp4") == pytest.approx(64 * WIDE / 48, abs=0.001)


@pytest.mark.parametrize(
    ("first", "then", "bars"),
    [
        # 4:3, then 16:9: bars above and below, an eighth each
        (((576, 720), 16 / 15), ((576, 720), WIDE), (72, 0)),
        # 16:9, then 4:3: bars at the sides
        (((576, 720), WIDE), ((576, 720), 16 / 15), (0, 90)),
        # another size that looks the same
        (((576, 720), WIDE), ((90, 160), 1.0), (0, 0)),
        (((576, 720), WIDE), ((288, 360), WIDE), (0, 0)),
        (((90, 160), 1.0), ((160, 90), 1.0), (0, 55)),  # turned
    ],
)
def test_frames_of_another_aspect_look_right_in_the_first_ones(
    tmp_path: Path,
    first: tuple[tuple[int, int], float],
    then: tuple[tuple[int, int], float],
    bars: tuple[int, int],
) -> None:
    results = [replace(result(0, *first)), replace(result(1, *then))]
    video, raw = OverlayVideo(tmp_path / "o.mkv"), io.BytesIO()
    pipe = RawFrames(raw)
    for item in results:
        video.write(item)
        pipe.write(item)
    video.close()
    with av.open(tmp_path / "o.mkv") as container:
        image = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)][1]
    height, width = first[0]
    piped = np.frombuffer(raw.getvalue()[height * width * 3 :], np.uint8).reshape(height, width, 3)
    for picture in (image, piped[..., 0]):
        rows = np.flatnonzero(picture[:, width // 2] > 30)
        columns = np.flatnonzero(picture[height // 2] > 30)
        assert (rows[0], columns[0]) == pytest.approx(bars, abs=2)
        assert (height - 1 - rows[-1], width - 1 - columns[-1]) == pytest.approx(bars, abs=2)


def test_pictures_have_square_pixels(tmp_path: Path) -> None:
    picture = Picture(tmp_path / "p.png", 0)
    picture.write(result())
    picture.close()
    Figures(tmp_path).write(result())
    for name in ("p.png", "000000.png"):
        image = cv2.imread(str(tmp_path / name))
        assert image is not None
        assert image.shape == (576, 2 * 1024, 3)
    for pixel_aspect, width in ((WIDE, 1024), (8 / 9, 640), (1.0, 720)):
        item = result(pixel_aspect=pixel_aspect)
        for draw in (jpeg, png):
            image = cv2.imdecode(np.frombuffer(draw(item, View()), np.uint8), cv2.IMREAD_COLOR)
            assert image is not None
            assert image.shape[:2] == (576, width)
    large = cv2.imdecode(
        np.frombuffer(jpeg(result(0, (1080, 1440), 4 / 3), View()), np.uint8), cv2.IMREAD_COLOR
    )
    assert large is not None
    assert large.shape == (720, 1280, 3)


def test_a_window_has_square_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    window = Window("salstream")
    try:
        window.write(result())
        assert pygame.display.get_surface().get_size() == (1024, 576)
    finally:
        window.close()


def test_what_a_letterboxing_network_sees_lies_where_it_is_shown() -> None:
    """720x576 as 16:9 lies as 180x320 in 256x320; its middle and its edges come back."""
    saliency = np.zeros((256, 320), np.float32)
    saliency[38:218] = 0.25  # where the frame lies
    saliency[38 + 45 : 38 + 135, 80:240] = 1.0  # its middle, half as high and wide
    item = replace(result(), map=saliency, letterbox=(256, 320))
    at_frame = item.saliency
    assert at_frame.shape == (576, 720)
    assert at_frame[:140].max() <= 0.5 < at_frame[150:426, 190:530].min()
    assert at_frame.min() == pytest.approx(0.25)
    assert item.as_shown().saliency.shape == (576, 1024)
    assert item.as_shown().saliency[150:426, 270:750].min() > 0.5
    said = points(item)
    assert (said["width"], said["height"]) == (720, 576)
    (box,) = said["regions"]
    assert (box["x"], box["width"]) == pytest.approx((180, 360), abs=3)
    assert (box["y"], box["height"]) == pytest.approx((144, 288), abs=3)
    square = replace(item, pixel_aspect=1.0)  # would lie as 256x320
    assert square.saliency.min() == 0
