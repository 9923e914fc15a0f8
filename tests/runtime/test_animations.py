"""Pictures that move: every frame as browsers show it, at its own time; pages are no frames."""

from __future__ import annotations

import logging
from itertools import accumulate
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from salstream.runtime.errors import SalstreamError, UsageError
from salstream.runtime.sources import Frame, open_source

DURATIONS = [100, 50, 200, 100, 30, 100]


def drawings(count: int = len(DURATIONS), mode: str = "RGB") -> list[Image.Image]:
    colour = (40, 40, 40) if mode == "RGB" else (0, 0, 0, 0)
    images = [Image.new(mode, (160, 120), colour) for _ in range(count)]
    for number, image in enumerate(images):
        x = 20 * number
        ImageDraw.Draw(image).ellipse([x, 40, x + 30, 70], fill=(255, 220, 0))
    return images


def write(path: Path, images: list[Image.Image], **options: Any) -> Path:
    images[0].save(path, save_all=True, append_images=images[1:], **options)
    return path


def bgr(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.convert("RGB"))[:, :, ::-1]


def assert_as_pillow_plays(path: Path, frames: list[Frame], skipped: int = 0) -> None:
    with Image.open(path) as played:
        assert len(frames) == played.n_frames - skipped  # type: ignore[attr-defined]
        for frame in frames:
            played.seek(frame.index + skipped)
            np.testing.assert_array_equal(frame.image, bgr(played))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}),
        ("a.apng", {}),
        ("a.png", {"disposal": 1}),
        ("a.png", {"disposal": 2}),
        ("a.png", {"blend": 1}),
        ("a.webp", {"lossless": True}),
        ("a.webp", {"lossless": True, "kmin": 3, "kmax": 5}),
        ("a", {"format": "WEBP", "lossless": True}),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_frames_and_times(tmp_path: Path, name: str, options: dict[str, object], mode: str) -> None:
    images = drawings(mode=mode)
    if "format" not in options and name.endswith("apng"):
        options = {**options, "format": "PNG"}
    path = write(tmp_path / name, images, duration=DURATIONS, **options)
    with open_source(path) as source:
        assert source.frame_count == len(images)
        assert source.fps == pytest.approx(5 / 0.48)  # the last one's hold does not count
        frames = list(source)
    expected = [ms / 1000 for ms in accumulate(DURATIONS[:-1], initial=0)]
    assert [frame.time for frame in frames] == pytest.approx(expected)
    assert not any(frame.cut for frame in frames)
    assert_as_pillow_plays(path, frames)


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.gif"])
@pytest.mark.parametrize(
    ("durations", "fps"),
    [([100] * 11 + [5000], 10), ([40] * 9 + [2000], 25), ([20, 30] * 6 + [900], 40)],
)
def test_the_rate_is_that_of_the_steps_not_of_the_last_hold(
    tmp_path: Path, name: str, durations: list[int], fps: float
) -> None:
    images = [Image.new("RGB", (32, 24), (10 * number,) * 3) for number in range(len(durations))]
    path = write(tmp_path / name, images, duration=durations)
    with open_source(path) as source:
        assert source.fps == pytest.approx(fps, rel=0.01)
        assert sum(1 for _ in source) == len(durations)


def test_a_chosen_rate_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.webp", drawings(4), duration=[100, 100, 100, 5000])
    with open_source(path, fps=24) as source:
        assert source.fps == 24
        assert [frame.time for frame in source] == pytest.approx([0, 1 / 24, 2 / 24, 3 / 24])


def test_an_animated_png_is_as_ffmpeg_plays_it(tmp_path: Path) -> None:
    images = drawings()
    path = write(tmp_path / "a.png", images, duration=100)
    with av.open(str(path), format="apng") as container:
        expected = [picture.to_ndarray(format="bgr24") for picture in container.decode(video=0)]
    frames = list(open_source(path))
    assert len(frames) == len(expected)
    for frame, picture in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(frame.image, picture)


def test_what_is_shown_in_place_of_an_animation_is_no_frame_of_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", drawings(), duration=100, default_image=True)
    frames = list(open_source(path))
    assert [frame.time for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert_as_pillow_plays(path, frames, skipped=1)


@pytest.mark.parametrize("name", ["a.webp", "a.png"])
def test_frames_that_want_no_time_are_shown_as_browsers_do(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, drawings(3), duration=0)
    assert [frame.time for frame in open_source(path)] == pytest.approx([0, 0.1, 0.2])


def test_an_animated_png_of_16_bits(tmp_path: Path) -> None:
    greys = [np.full((20, 30), 256 * number + 77, np.uint16) for number in (0, 90)]
    path = write(tmp_path / "a.png", [Image.fromarray(grey) for grey in greys], duration=100)
    assert [int(frame.image[5, 5, 1]) for frame in open_source(path)] == [0, 90]


def test_an_animated_webp_is_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = write(tmp_path / "a.webp", drawings(), duration=100, lossless=True, exif=exif)
    frames = list(open_source(path))
    assert len(frames) == len(DURATIONS)
    with Image.open(path) as played:
        played.seek(2)
        np.testing.assert_array_equal(frames[2].image, np.rot90(bgr(played), -1))


@pytest.mark.parametrize("name", ["a.gif", "a.avif"])
def test_others_are_videos_too(tmp_path: Path, name: str) -> None:
    frames = list(open_source(write(tmp_path / name, drawings(), duration=100)))
    assert [frame.time for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    for frame, drawn in zip(frames, drawings(), strict=True):
        assert np.abs(frame.image.astype(int) - bgr(drawn)).mean() < 4


def test_an_animation_that_is_cut_off(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", drawings(), duration=100)
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"fcTL") - 20])
    frames = []
    with pytest.raises(SalstreamError, match="of 6 frames"):
        for frame in open_source(path):
            frames.append(frame)
    assert 3 <= len(frames) < 6


def test_an_animation_is_no_set_of_pictures(tmp_path: Path) -> None:
    path = write(tmp_path / "a.webp", drawings(), duration=100)
    with pytest.raises(UsageError, match="no set of pictures"):
        open_source(path, pictures="single")


@pytest.mark.parametrize(
    ("name", "said"),
    [("pages.tiff", "pages.tiff (5 more)"), ("a.gif", None), ("still.webp", None)],
)
def test_of_pages_the_first_is_read_and_the_others_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, said: str | None
) -> None:
    path = tmp_path / name
    if said:
        write(path, drawings())
    else:
        drawings(1)[0].save(path)
    with caplog.at_level(logging.WARNING, "salstream"):
        (frame,) = list(open_source(path))
    assert frame.image.shape == (120, 160, 3)
    assert np.abs(frame.image.astype(int) - bgr(drawings(1)[0])).mean() < 2
    assert len(caplog.records) == bool(said)
    assert (said or "") in caplog.text


def test_of_animations_among_pictures_the_first_frame_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    drawings(1)[0].save(tmp_path / "still.png")
    for name in ("a.gif", "b.webp", "c.png", "d.avif"):
        write(tmp_path / name, drawings(), duration=100)
    with caplog.at_level(logging.WARNING, "salstream"):
        frames = list(open_source(tmp_path))
    assert [frame.name for frame in frames] == ["a.gif", "b.webp", "c.png", "d.avif", "still.png"]
    (record,) = caplog.records
    for name in ("a.gif", "b.webp", "c.png", "d.avif"):
        assert f"{name} (5 more)" in record.getMessage()
    for frame in frames:
        assert np.abs(frame.image.astype(int) - bgr(drawings(1)[0])).mean() < 4
