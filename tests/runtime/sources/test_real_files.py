"""Files of real phones, cameras and recorders are read as other programs show them."""

from __future__ import annotations

import logging
import shutil
import struct
import subprocess
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from real_files import real_file
from salstream.runtime import Result, SalstreamError
from salstream.runtime.sinks import OverlayVideo
from salstream.runtime.sound import Sound
from salstream.runtime.sources.base import Frame, Source
from salstream.runtime.sources.open import open_source

CAMERAS = ("canon", "casio", "olympus", "pana", "pen", "ricoh", "sigma", "sony")
# Height and width as they are shown.
HEIC = {
    "sample.heic": (960, 1440),
    "arrow.heic": (4032, 3024),  # Apple iPhone 8 Plus, held upright
    "empty_icc.heic": (900, 1025),  # Apple iPhone XS
    "pug.heic": (3024, 4032),  # Apple iPhone 13 Pro
    "spatial_photo.heic": (2560, 2560),  # Apple Vision Pro, two views
    "aux_YCbCr.heic": (1848, 4000),  # Samsung Galaxy S25 Ultra, with other layers
    "xiaomi.heic": (1944, 2592),  # Xiaomi M2012K11AG
    "alpha.heic": (960, 1440),  # from Nokia
}
# Name, how many frames, their height and width, frames per second, stream.
VIDEOS = {
    "quicktime.mp4": (149, (240, 190), 30.0, 0),
    "sample.mov": (25, (240, 320), 25.0, 0),
    "flashmob.mkv": (446, (288, 384), 25.0, 0),
    "10min.mkv": (600, (288, 384), 1.0, 0),
}


def frames_of(path: Path) -> list[Frame]:
    with open_source(path) as source:
        return list(source)


def shown(path: Path) -> NDArray[np.uint8]:
    (frame,) = frames_of(path)
    return frame.image


def as_bgr(picture: Image.Image) -> NDArray[np.uint8]:
    return np.array(picture.convert("RGB"), np.uint8)[:, :, ::-1]


def by_pillow(path: Path) -> NDArray[np.uint8]:
    """The reference, BGR."""
    with Image.open(path) as picture:
        return as_bgr(ImageOps.exif_transpose(picture))


def assert_alike(image: NDArray[np.uint8], reference: NDArray[np.uint8], most: int = 2) -> None:
    assert image.shape == reference.shape
    assert cv2.absdiff(image, np.ascontiguousarray(reference)).max() <= most


def with_orientation(exif: bytes, orientation: int) -> bytes:
    """Change the orientation in a camera's own EXIF data, in place."""
    begin = len(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}[exif[begin : begin + 2]]
    directory = begin + int(struct.unpack_from(order + "I", exif, begin + 4)[0])
    (count,) = struct.unpack_from(order + "H", exif, directory)
    changed = bytearray(exif)
    for at in range(directory + 2, directory + 2 + 12 * count, 12):
        if struct.unpack_from(order + "H", exif, at)[0] == 0x0112:
            struct.pack_into(order + "H", changed, at + 8, orientation)
            return bytes(changed)
    raise AssertionError("no orientation")


def read_until_it_breaks(source: Source) -> tuple[list[Frame], str]:
    frames: list[Frame] = []
    with source, pytest.raises(SalstreamError) as caught:
        frames.extend(source)  # keeps what came before the error
    return frames, str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        *("01.tif", "02.jpg", "L01.jpg", "large.jpg"),  # Casio; 02.jpg is grey
        *("sample.jpg", "sample.avif"),  # Kyocera
        *("gps.jpg", "usa_railroad.jpg"),  # KDDI, Fujifilm
        *("green_fire.jpg", "jpeg.exif.photoshop.jpg"),  # CMYK; thumbnail by Photoshop
    ],
)
def test_photographs_look_as_in_pillow(name: str) -> None:
    path = real_file(name)
    assert_alike(shown(path), by_pillow(path))


@pytest.mark.parametrize("camera", CAMERAS)
def test_photographs_of_each_camera_are_turned(camera: str, tmp_path: Path) -> None:
    # their pictures are of one colour, but the EXIF data are as the cameras wrote them
    with Image.open(real_file(f"r_{camera}.jpg")) as picture:
        exif = picture.info["exif"]
    seen = []
    with Image.open(real_file("L01.jpg")) as photograph:
        for orientation in range(1, 9):
            path = tmp_path / f"{orientation}.jpg"
            photograph.save(path, exif=with_orientation(exif, orientation))
            seen.append(shown(path))
            assert_alike(seen[-1], by_pillow(path))
    assert len({(image.shape, image.tobytes()) for image in seen}) == 8


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("sample.jpg", "sample.HEIC"),
        ("large.jpg", "large.png"),
        ("usa_railroad.jpg", "usa_railroad"),
        ("01.tif", "01.jpg"),
        ("sample.avif", "sample.heic"),
        ("sample.heic", "sample.jpg"),
        ("sample.heic", "sample"),
    ],
)
def test_photographs_are_known_by_their_content(name: str, other: str, tmp_path: Path) -> None:
    right = real_file(name)
    wrong = tmp_path / other
    wrong.write_bytes(right.read_bytes())
    if name.endswith(".heic"):
        pytest.importorskip("pi_heif")
    assert_alike(shown(wrong), shown(right), most=0)


def test_a_folder_of_photographs_is_no_video(tmp_path: Path) -> None:
    for camera in CAMERAS:
        shutil.copy(real_file(f"r_{camera}.jpg"), tmp_path)
    frames = frames_of(tmp_path)
    assert [frame.name for frame in frames] == [f"r_{camera}.jpg" for camera in CAMERAS]
    assert all(frame.cut and frame.time is None for frame in frames)


@pytest.mark.parametrize("name", [*HEIC, pytest.param("guitar_cw90.hif", marks=pytest.mark.slow)])
def test_heic_of_phones_and_cameras(name: str) -> None:
    pi_heif = pytest.importorskip("pi_heif")
    path = real_file(name)
    image = shown(path)
    assert image.shape[:2] == HEIC.get(name, (7008, 4672))  # Sony ILCE-7M4, held upright
    reference = pi_heif.open_heif(path, convert_hdr_to_8bit=True).to_pillow()
    assert_alike(image, as_bgr(reference))


def test_a_burst_is_a_film(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = real_file("bird_burst.heic")
    with av.open(path) as container:
        film = max(container.streams.video, key=lambda video: (video.frames, video.width))
        last = np.array(list(container.decode(film))[-1].to_ndarray(format="bgr24"), np.uint8)
    frames = frames_of(path)
    assert len(frames) == 90
    assert frames[-1].time == pytest.approx(89 / 30)
    assert_alike(frames[-1].image, last)

    # among photographs it is its main picture, and that is said
    pi_heif = pytest.importorskip("pi_heif")
    shutil.copy(path, tmp_path)
    shutil.copy(real_file("sample.heic"), tmp_path)
    with caplog.at_level(logging.WARNING, "salstream"):
        first, _ = frames_of(tmp_path)
    assert "bird_burst.heic (89 more)" in caplog.text
    assert_alike(first.image, as_bgr(pi_heif.open_heif(path).to_pillow()))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("canon.raw.cr2", "CR2 is not supported: convert to PNG or JPEG"),
        ("corrupted.hif", "is damaged, or not an image"),
        ("png_331x90x8_truncated.png", "is damaged, or not an image"),
        ("smallville.s03e02.avi", "no frame that can be decoded"),
        ("pentax_320x240.mov", "ended after 0 of 149 frames: it is cut off"),
    ],
)
def test_what_cannot_be_read_is_said(name: str, why: str) -> None:
    if name.endswith(".hif"):
        pytest.importorskip("pi_heif")
    frames, said = read_until_it_breaks(open_source(real_file(name)))
    assert not frames
    assert why in said


def test_a_raw_photograph_under_another_name_is_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "photograph.tif"
    path.write_bytes(real_file("canon.raw.cr2").read_bytes())
    _, said = read_until_it_breaks(open_source(path))
    assert "photograph.tif cannot be decoded" in said


@pytest.mark.parametrize("name", VIDEOS)
def test_videos(name: str) -> None:
    count, size, rate, stream = VIDEOS[name]
    path = real_file(name)
    with av.open(path) as container:
        video = container.streams.video[stream]
        decoded = list(container.decode(video))
        times = [frame.time for frame in decoded if frame.time is not None]
        last = decoded[-1].to_ndarray(format="bgr24")
    with open_source(path) as source:
        frames = list(source)
        assert source.fps == pytest.approx(rate)
    assert len(frames) == count == len(decoded)
    assert [frame.time for frame in frames] == pytest.approx([at - times[0] for at in times])
    assert frames[-1].image.shape[:2] == size
    assert np.abs(frames[-1].image.astype(int) - last).mean() < 2
    assert not any(frame.cut for frame in frames[1:])


@pytest.mark.parametrize(
    ("name", "count", "size"),
    [("breakdance.flv", 44, (240, 320)), ("matrix_ping_pong.wmv", 44, (150, 200))],
)
def test_videos_that_are_cut_off_give_what_they_have(
    name: str, count: int, size: tuple[int, int]
) -> None:
    path = real_file(name)
    frames, said = read_until_it_breaks(open_source(path))
    assert len(frames) == count
    assert f"ended after {count}" in said
    assert frames[0].image.shape[:2] == size
    times = [frame.time for frame in frames if frame.time is not None]
    assert len(times) == count
    assert all(one < other for one, other in pairwise(times))


def test_a_broadcast_has_its_pixels() -> None:
    frame, *_ = frames_of(real_file("sample.ts"))
    assert frame.image.shape[:2] == (576, 720)
    assert frame.pixel_aspect == pytest.approx(64 / 45)


def test_a_phone_held_upright(tmp_path: Path) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is the reference, and is not installed")
    data = real_file("quicktime.mp4").read_bytes()
    one = 1 << 16
    lying = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    turned = struct.pack(">9i", 0, one, 0, -one, 0, 0, 240 * one, 0, 1 << 30)
    track = data.index(lying + struct.pack(">2I", 190 * one, 240 * one))
    path = tmp_path / "upright.mp4"
    path.write_bytes(data[:track] + turned + data[track + 36 :])
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "bgr24"]
    raw = subprocess.run([*command, "-frames:v", "1", "-"], check=True, capture_output=True).stdout
    frames = frames_of(path)
    assert len(frames) == 149
    reference = np.frombuffer(raw, np.uint8).reshape(190, 240, 3)
    assert frames[0].image.shape == reference.shape
    assert np.abs(frames[0].image.astype(int) - reference).mean() < 3


@pytest.mark.parametrize(
    ("name", "suffix", "codec"),
    [
        ("quicktime.mp4", ".mp4", "aac"),
        ("quicktime.mp4", ".mkv", "aac"),
        ("flashmob.mkv", ".mp4", "vorbis"),
    ],
)
def test_the_overlay_has_the_sound(name: str, suffix: str, codec: str, tmp_path: Path) -> None:
    out = tmp_path / f"out{suffix}"
    with open_source(real_file(name)) as source:
        assert source.fps is not None
        sink = OverlayVideo(out, source.fps, sound=Sound(source))
        count = 0
        for frame in source:
            assert frame.time is not None
            saliency = np.zeros((6, 8), np.float32)
            sink.write(Result(frame.index, frame.time, frame.image, saliency))
            count += 1
        sink.close()
        seconds = count / source.fps
    with av.open(out) as container:
        sound = container.streams.audio[0]
        assert sound.codec_context.name.startswith(codec)
        heard = list(container.decode(sound))
    assert heard[0].time == pytest.approx(0, abs=0.06)
    assert heard[-1].time is not None
    assert heard[-1].time + heard[-1].samples / heard[-1].sample_rate == pytest.approx(
        seconds, abs=0.1
    )
