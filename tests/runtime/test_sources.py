"""Every kind of source: whole, damaged, missing and misused."""

from __future__ import annotations

import json
import logging
import os
import re
import struct
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any, cast

import av
import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clips import FRAME_COUNTS, clip, number_image, numbered_clip, read_number
from salstream.runtime.errors import SalstreamError, UsageError
from salstream.runtime.sources import Frame, Source, open_source, redact
from salstream.runtime.sources.camera import Capture
from salstream.runtime.sources.video import Video

Image = NDArray[np.uint8]


def read(source: object, **options: object) -> tuple[list[Frame], SalstreamError | None]:
    """Everything that a source gives, and the error that ended it."""
    frames: list[Frame] = []
    try:
        with cast(Callable[..., Source], open_source)(source, **options) as opened:
            for frame in opened:
                frames.append(frame)
    except SalstreamError as error:
        return frames, error
    return frames, None


def numbers(frames: Iterable[Frame]) -> list[int | None]:
    return [read_number(frame.image) for frame in frames]


def is_one_sentence(error: SalstreamError | None) -> bool:
    text = str(error)
    return error is not None and "\n" not in text and "Errno" not in text and not text.endswith(".")


def opencv_frames(path: Path) -> Iterator[Image]:
    capture = cv2.VideoCapture(str(path))
    while True:
        good, image = capture.read()
        if not good:
            return
        yield np.asarray(image, np.uint8)


# Video files


@pytest.mark.parametrize("name", sorted(FRAME_COUNTS))
def test_real_clips_agree_with_an_independent_decoder(name: str) -> None:
    path = clip(name)
    capture = cv2.VideoCapture(str(path))
    worst, count = 0.0, 0
    with open_source(path) as source:
        assert not source.live
        assert source.frame_count == FRAME_COUNTS[name]
        assert source.fps is not None
        assert source.fps == pytest.approx(capture.get(cv2.CAP_PROP_FPS))
        for frame, expected in zip(source, opencv_frames(path), strict=True):
            assert frame.index == count
            assert frame.time == pytest.approx(count / source.fps, abs=1e-3)
            assert frame.image.shape == expected.shape
            assert frame.image.dtype == np.uint8
            assert frame.image.flags.c_contiguous
            difference = np.abs(frame.image.astype(np.int16) - expected)
            worst = max(worst, float(difference.mean()))
            count += 1
    assert count == FRAME_COUNTS[name]
    assert worst < 1.0


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        (".mp4", "libx264", {}),
        (".mp4", "libx264", {"bf": "3", "g": "250"}),
        (".mp4", "libx265", {"x265-params": "log-level=none"}),
        (".mkv", "libx264", {"bf": "2"}),
        (".mov", "mjpeg", {}),
        (".avi", "mpeg4", {}),
        (".ts", "libx264", {"bf": "2"}),
        (".flv", "libx264", {}),
        (".webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
        (".h264", "libx264", {"bf": "2"}),
        (".mjpeg", "mjpeg", {}),
    ],
)
def test_every_frame_comes_in_order(
    tmp_path: Path, suffix: str, codec: str, options: dict[str, str]
) -> None:
    path = numbered_clip(tmp_path / f"clip{suffix}", 70, fps=25, codec=codec, options=options)
    frames, error = read(path)
    assert error is None
    assert numbers(frames) == list(range(70))
    assert [frame.index for frame in frames] == list(range(70))
    # Matroska and FLV round times to milliseconds
    times = [frame.time for frame in frames]
    assert times == pytest.approx([number / 25 for number in range(70)], abs=1.1e-3)


def test_times_come_from_the_file_and_not_from_the_rate(tmp_path: Path) -> None:
    there = [0, 1, 2, 10, 11, 30]
    frames, error = read(numbered_clip(tmp_path / "gaps.mp4", 31, fps=10, numbers=there))
    assert error is None
    assert numbers(frames) == there
    assert [frame.time for frame in frames] == pytest.approx([number / 10 for number in there])


def test_time_starts_at_the_first_frame(tmp_path: Path) -> None:
    frames, _ = read(numbered_clip(tmp_path / "late.mkv", 60, fps=10, numbers=range(50, 60)))
    assert numbers(frames) == list(range(50, 60))
    assert frames[0].time == 0
    assert frames[-1].time == pytest.approx(0.9, abs=2e-3)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_phone_videos_stand_upright(tmp_path: Path, degrees: int) -> None:
    path = numbered_clip(tmp_path / "phone.mp4", 5, size=(64, 128))
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    one = 1 << 16
    data[matrix : matrix + 20] = struct.pack(">5i", cos * one, sin * one, 0, -sin * one, cos * one)
    path.write_bytes(data)

    frames, error = read(path)
    assert error is None
    # The matrix turns clockwise: turned back, the numbers can be read.
    turned_back = [np.rot90(frame.image, degrees // 90) for frame in frames]
    assert [read_number(image) for image in turned_back] == list(range(5))
    for frame, expected in zip(frames, opencv_frames(path), strict=True):
        assert np.abs(frame.image.astype(np.int16) - expected).mean() < 1


@pytest.mark.parametrize(
    ("matrix", "kr", "kb", "full"),
    [
        ("bt709", 0.2126, 0.0722, False),
        ("bt709", 0.2126, 0.0722, True),
        ("smpte170m", 0.299, 0.114, False),
        ("smpte170m", 0.299, 0.114, True),
        ("bt2020nc", 0.2627, 0.0593, False),
        (None, 0.299, 0.114, False),
    ],
)
def test_colours_follow_the_declared_matrix_and_range(
    tmp_path: Path, matrix: str | None, kr: float, kb: float, full: bool
) -> None:
    # The formulas of the standards, written out: what goes in as RGB has to come out.
    bgr = np.array([[220, 40, 30], [30, 200, 60], [40, 60, 230], [128, 128, 128], [90, 180, 220]])
    blue, green, red = bgr.T / 255
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma_b, chroma_r = (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))
    y = luma * 255 if full else 16 + luma * 219
    u, v = (128 + chroma * (255 if full else 224) for chroma in (chroma_b, chroma_r))
    planes = np.round([y, u, v]).astype(np.uint8)
    picture = np.repeat(np.repeat(planes[:, None, :], 32, axis=2), 48, axis=1)

    path = tmp_path / "colours.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1, options={"qp": "0", "preset": "ultrafast"})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = 48, 160, "yuv444p"
        if matrix:
            codes = {"bt709": 1, "smpte170m": 6, "bt2020nc": 9}
            stream.codec_context.colorspace = codes[matrix]
            stream.codec_context.color_range = 2 if full else 1
        frame = av.VideoFrame.from_ndarray(picture, format="yuv444p")
        frame.pts, frame.time_base = 0, Fraction(1, 1)
        if matrix:
            frame.colorspace, frame.color_range = codes[matrix], 2 if full else 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

    frames, error = read(path)
    assert error is None
    seen = frames[0].image[24, 16::32].astype(int)
    assert np.abs(seen - bgr).max() <= 2


def test_a_matrix_that_nobody_can_convert_counts_as_none(tmp_path: Path) -> None:
    path = numbered_clip(
        tmp_path / "clip.mp4", 5, options={"x264-params": "colormatrix=YCgCo:overscan=undef"}
    )
    frames, error = read(path)
    assert error is None
    assert numbers(frames) == list(range(5))


def test_titles_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "title.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "a title"
        stream = container.add_stream("mjpeg", rate=1)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuvj420p"
        image = av.VideoFrame.from_ndarray(number_image(7, (64, 64)), format="bgr24")
        container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    assert b"a title" in data
    path.write_bytes(data.replace(b"a title", "ä titel".encode("latin-1")))
    frames, error = read(path)
    assert error is None
    assert numbers(frames) == [7]


def test_streams_that_join_on_the_way(tmp_path: Path) -> None:
    alone = numbered_clip(tmp_path / "alone.ts", 10, size=(64, 64))
    both = write_sound(tmp_path / "both.ts", seconds=1, picture_count=10, tracks=12)
    path = tmp_path / "joined.ts"
    path.write_bytes(alone.read_bytes() + both.read_bytes())
    frames, error = read(path)
    assert error is None
    assert numbers(frames) == [*range(10), *range(10)]


def test_rows_with_padding_and_frames_that_outlive_the_source(tmp_path: Path) -> None:
    path = numbered_clip(tmp_path / "odd.mkv", 20, size=(54, 86), codec="ffv1")
    frames, error = read(path)
    assert error is None
    assert numbers(frames) == list(range(20))
    for frame in frames:
        assert frame.image.shape == (54, 86, 3)
        assert frame.image.flags.c_contiguous
        frame.image[:] = 0  # drawing on a frame touches no other
    again, _ = read(path)
    assert numbers(again) == list(range(20))


def test_drawing_on_a_frame_changes_no_later_one(tmp_path: Path) -> None:
    # this codec decodes to BGR, and repeats what has not changed
    path = numbered_clip(
        tmp_path / "screen.flv", 30, size=(256, 256), codec="flashsv", pix_fmt="bgr24"
    )
    seen = []
    for frame in open_source(path):
        seen.append(read_number(frame.image))
        frame.image[:] = 128
    assert seen == list(range(30))


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [
        (".mkv", "ffv1", "yuv422p10le"),
        (".mkv", "ffv1", "gray"),
        (".mkv", "ffv1", "gray16le"),
        (".mkv", "ffv1", "bgra"),
        (".mkv", "ffv1", "gbrp10le"),
        (".mov", "png", "rgb24"),
        (".mkv", "rawvideo", "nv12"),
        (".avi", "rawvideo", "bgr24"),
        (".mkv", "libx264", "yuv444p"),
    ],
)
def test_every_pixel_format(tmp_path: Path, suffix: str, codec: str, pix_fmt: str) -> None:
    path = numbered_clip(tmp_path / f"clip{suffix}", 3, codec=codec, pix_fmt=pix_fmt)
    frames, error = read(path)
    assert error is None
    assert numbers(frames) == [0, 1, 2]
    for frame in frames:
        expected = number_image(frame.index, (96, 128)).astype(int)
        assert np.abs(frame.image - expected).mean() < 3


def test_a_size_that_changes_on_the_way(tmp_path: Path) -> None:
    small = numbered_clip(tmp_path / "small.ts", 10, size=(64, 96))
    large = numbered_clip(tmp_path / "large.ts", 20, size=(128, 160), numbers=range(10, 20))
    joined = tmp_path / "joined.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    frames, error = read(joined)
    assert error is None
    assert numbers(frames) == list(range(20))
    assert [frame.image.shape for frame in frames] == [(64, 96, 3)] * 10 + [(128, 160, 3)] * 10


def test_names_that_ffmpeg_would_take_for_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a:b.mp4", "frame%03d.mp4", "pipe:0", "clip [1].mp4", "ünïcode ♥.mp4", "-x.mp4"):
        path = numbered_clip(tmp_path / "clip.mp4", 3).rename(tmp_path / name)
        for source in (path, Path(name), name):
            frames, error = read(source)
            assert error is None, name
            assert len(frames) == 3, name


# Damage


def packets_of(path: Path) -> list[tuple[int, int]]:
    """Where the content of each video packet lies in the file: position and size."""
    data = path.read_bytes()
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        return [(data.index(bytes(packet), packet.pos or 0), packet.size) for packet in packets]


def cut_inside(path: Path, packet: int) -> Path:
    """Copy a file up to the middle of a packet."""
    position, size = packets_of(path)[packet]
    cut = path.with_name("cut" + path.suffix)
    cut.write_bytes(path.read_bytes()[: position + size // 2])
    return cut


@pytest.mark.parametrize(
    ("suffix", "codec", "container_options", "total"),
    [
        (".mp4", "libx264", {"movflags": "faststart"}, "100"),
        (".mov", "mjpeg", {"movflags": "faststart"}, "100"),
        (".avi", "mpeg4", {}, "100"),
        (".avi", "mjpeg", {}, "100"),
        (".mkv", "libx264", {}, "about 100"),
        (".flv", "libx264", {}, "about (99|100|101)"),
        # each fragment counts its own frames
        (".mp4", "libx264", {"movflags": "frag_every_frame+empty_moov"}, None),
    ],
)
@pytest.mark.parametrize("packet", [3, 40, 80])
def test_a_file_cut_off_gives_what_it_has_and_says_so(
    *,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    suffix: str,
    codec: str,
    container_options: Mapping[str, str],
    total: str | None,
    packet: int,
) -> None:
    path = numbered_clip(
        tmp_path / f"clip{suffix}",
        100,
        codec=codec,
        options={"bf": "0"},
        container_options=container_options,
    )
    frames, error = read(cut_inside(path, packet))
    assert numbers(frames) == list(range(packet))
    assert is_one_sentence(error)
    assert isinstance(error, SalstreamError)
    assert not isinstance(error, UsageError)
    expected = f"cut{suffix} ended after {packet} of {total or packet + 1} frames"
    assert re.search(expected, str(error))
    assert capfd.readouterr().err == ""


def test_an_avi_cut_between_two_frames(tmp_path: Path) -> None:
    path = numbered_clip(tmp_path / "clip.avi", 100, codec="mjpeg")
    position, _ = packets_of(path)[60]
    path.write_bytes(path.read_bytes()[: position - 8])  # where its chunk begins
    frames, error = read(path)
    assert numbers(frames) == list(range(60))
    assert "ended after 60 of 100 frames" in str(error)


def test_a_container_that_declares_nothing_ends_where_it_ends(tmp_path: Path) -> None:
    path = numbered_clip(tmp_path / "clip.ts", 100, options={"bf": "0"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    frames, error = read(path)
    assert error is None
    assert 20 < len(frames) < 80
    assert numbers(frames) == list(range(len(frames)))


def test_real_clips_cut_off(tmp_path: Path) -> None:
    whole = av.open(str(clip("bikes.mp4")))
    stream = whole.streams.video[0]
    path = tmp_path / "front.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as copy:
        target = copy.add_stream_from_template(stream)
        for packet in whole.demux(stream):
            if packet.size:
                packet.stream = target
                copy.mux(packet)
    frames, error = read(cut_inside(path, 120))
    assert f"ended after {len(frames)} of 250 frames" in str(error)
    assert len(frames) == 120
    by_number = {round((frame.time or 0) * 25): frame for frame in frames}
    compared = 0
    for number, expected in enumerate(opencv_frames(clip("bikes.mp4"))):
        if number in by_number and number < 115:  # later ones may refer to what was lost
            difference = by_number[number].image.astype(np.int16) - expected
            assert np.abs(difference).mean() < 1
            compared += 1
    assert compared == 115


def test_an_edit_list_is_no_truncation(tmp_path: Path) -> None:
    path = numbered_clip(tmp_path / "edited.mp4", 60, options={"g": "10"})
    data = bytearray(path.read_bytes())
    duration = data.index(b"elst") + 12  # half of it is to be shown
    (length,) = struct.unpack(">I", data[duration : duration + 4])
    data[duration : duration + 4] = struct.pack(">I", length // 2)
    path.write_bytes(data)
    frames, error = read(path)
    assert error is None
    assert numbers(frames) == list(range(30))


def test_gaps_in_an_avi_are_no_truncation(tmp_path: Path) -> None:
    there = [*range(10), *range(25, 40)]  # the header counts the gap as frames
    path = numbered_clip(tmp_path / "gaps.avi", 40, codec="mpeg4", numbers=there)
    frames, error = read(path)
    assert error is None
    assert numbers(frames) == there


def test_sound_that_outlasts_the_pictures_is_no_truncation(tmp_path: Path) -> None:
    path = tmp_path / "long sound.mkv"
    write_sound(path, seconds=4, picture_count=20)
    frames, error = read(path)
    assert error is None
    assert numbers(frames) == list(range(20))
    # the same, cut off
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])
    frames, error = read(path)
    assert "ended after 20 of about" in str(error)


def write_sound(path: Path, *, seconds: int, picture_count: int = 0, tracks: int = 1) -> Path:
    with av.open(str(path), "w") as container:
        if picture_count:
            video = container.add_stream("libx264", rate=10)
            assert isinstance(video, av.VideoStream)
            video.height, video.width, video.pix_fmt = 64, 64, "yuv420p"
        audios = [container.add_stream("aac", rate=16000) for _ in range(tracks)]
        for number in range(picture_count):
            image = av.VideoFrame.from_ndarray(number_image(number, (64, 64)), format="bgr24")
            image.pts, image.time_base = number, Fraction(1, 10)
            container.mux(video.encode(image))
        if picture_count:
            container.mux(video.encode(None))
        noise = np.random.default_rng(0).normal(size=(1, 16000 * seconds)).astype(np.float32)
        for audio in audios:
            assert isinstance(audio, av.AudioStream)
            for start in range(0, noise.shape[1], 1024):
                samples = np.ascontiguousarray(noise[:, start : start + 1024] * 0.1)
                sound = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
                sound.sample_rate, sound.pts, sound.time_base = 16000, start, Fraction(1, 16000)
                container.mux(audio.encode(sound))
            container.mux(audio.encode(None))
    return path


def damage(path: Path, which: Iterable[int], *, seed: int = 0) -> Path:
    """Overwrite whole packets with noise."""
    places = packets_of(path)
    data = bytearray(path.read_bytes())
    for number in which:
        position, size = places[number]
        data[position : position + size] = Random(seed).randbytes(size)
    damaged = path.with_name("damaged" + path.suffix)
    damaged.write_bytes(data)
    return damaged


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        (".avi", "mjpeg", {}),
        (".mkv", "mjpeg", {}),
        (".mov", "mjpeg", {}),
        (".mp4", "libx264", {"g": "1"}),
        (".mkv", "libx264", {"g": "1"}),
    ],
)
def test_damaged_packets_are_left_out_and_counted(
    *,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    suffix: str,
    codec: str,
    options: Mapping[str, str],
) -> None:
    path = numbered_clip(tmp_path / f"clip{suffix}", 60, codec=codec, options=options)
    bad = [0, 20, 21, 40]
    with caplog.at_level(logging.WARNING, "salstream"):
        source = open_source(damage(path, bad))
        assert isinstance(source, Video)
        with source:
            frames = list(source)
    assert numbers(frames) == [number for number in range(60) if number not in bad]
    assert [frame.index for frame in frames] == list(range(56))
    assert source.damaged == len(bad)
    assert len(caplog.records) == 1
    assert "damaged packets left out: 4" in caplog.text
    assert capfd.readouterr().err == ""  # ffmpeg would have much to say


def test_damage_costs_no_more_than_what_refers_to_it(tmp_path: Path) -> None:
    path = numbered_clip(tmp_path / "clip.mp4", 60, options={"g": "10", "bf": "0"})
    frames, error = read(damage(path, [33]))
    assert error is None
    assert set(range(60)) - set(numbers(frames)) <= set(range(33, 40))


# Bad input


def test_missing_files_are_wrong_use(tmp_path: Path) -> None:
    missing = tmp_path / "missing.mp4"
    for source in (missing, str(missing), "no such file", str(missing / "deeper.mp4")):
        frames, error = read(source)
        assert not frames
        assert is_one_sentence(error)
        assert isinstance(error, UsageError)
        assert "does not exist" in str(error)


def _text(path: Path) -> None:
    path.write_text("This is not a video, it is a text.\n" * 100)


def _empty(path: Path) -> None:
    path.touch()


def _index_lost(path: Path) -> None:
    data = numbered_clip(path, 50).read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])


def _sound_only(path: Path) -> None:
    write_sound(path, seconds=1)


def _no_frames(path: Path) -> None:
    data = bytearray(numbered_clip(path, 1, codec="mpeg4").read_bytes())
    data[data.index(b"movi") - 4 :] = struct.pack("<I4s", 4, b"movi")
    path.write_bytes(data)


def _noise(path: Path) -> None:
    path.write_bytes(Random(1).randbytes(100_000))


@pytest.mark.parametrize(
    ("name", "write", "expected"),
    [
        ("text.mp4", _text, "no video"),
        ("text.txt", _text, "no video"),
        ("noise.mp4", _noise, "no video"),
        ("empty.mp4", _empty, "is empty"),
        ("index lost.mp4", _index_lost, "cut off"),
        ("sound.mp4", _sound_only, "has no video"),
        ("sound.mkv", _sound_only, "has no video"),
        ("no frames.avi", _no_frames, "no frame"),
    ],
)
def test_files_that_are_no_video(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    name: str,
    write: Callable[[Path], object],
    expected: str,
) -> None:
    path = tmp_path / name
    write(path)
    frames, error = read(path)
    assert not frames
    assert is_one_sentence(error)
    assert isinstance(error, SalstreamError)
    assert not isinstance(error, UsageError)
    assert expected in str(error)
    assert str(error).startswith(str(path))
    assert capfd.readouterr().err == ""


def test_music_with_a_cover_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "cover.mp4"
    with av.open(str(write_sound(tmp_path / "sound.mp4", seconds=1))) as sound:
        source = sound.streams.audio[0]
        with av.open(str(path), "w") as container:
            target = container.add_stream_from_template(source)
            cover = container.add_stream("mjpeg", rate=1)
            assert isinstance(cover, av.VideoStream)
            cover.height, cover.width, cover.pix_fmt = 64, 64, "yuvj420p"
            cover.disposition = av.stream.Disposition.attached_pic
            image = av.VideoFrame.from_ndarray(number_image(1, (64, 64)), format="bgr24")
            container.mux(cover.encode(image))
            for packet in sound.demux(source):
                if packet.size:
                    packet.stream = target
                    container.mux(packet)
    frames, error = read(path)
    assert not frames
    assert "cover" in str(error)


@contextmanager
def nobody() -> Iterator[Path]:
    """A folder, and rights that end where the file's mode says so, even for root."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    is_root = os.geteuid() == 0
    try:
        yield folder
    finally:
        if is_root:
            os.seteuid(0)
        for path in folder.rglob("*"):
            path.chmod(0o700)
        subprocess.run(["rm", "-r", str(folder)], check=True)


def drop_rights() -> None:
    if os.geteuid() == 0:
        os.seteuid(65534)


def test_files_that_may_not_be_read() -> None:
    with nobody() as folder:
        video = numbered_clip(folder / "video.mp4", 3)
        image = folder / "image.png"
        cv2.imwrite(str(image), number_image(1, (64, 64)))
        locked = folder / "locked"
        locked.mkdir()
        cv2.imwrite(str(locked / "a.png"), number_image(1, (64, 64)))
        for path in (video, image, locked):
            path.chmod(0)
        drop_rights()
        for path in (video, image, locked, locked / "a.png"):
            frames, error = read(path)
            assert not frames
            assert is_one_sentence(error)
            assert isinstance(error, SalstreamError)
            assert not isinstance(error, UsageError)
            assert "permission denied" in str(error)
            assert path.name in str(error)


@pytest.mark.parametrize(
    ("source", "options", "expected"),
    [
        ("gopher://host/video", {}, "rtsp://"),
        ("rtps://me:geheim@host/video", {}, "rtsp://"),
        ("clip.mp4", {"fps": 0}, "fps"),
        ("clip.mp4", {"fps": float("nan")}, "fps"),
        ("clip.mp4", {"raw_size": (4, 4)}, "raw_size"),
        (-1, {}, "camera"),
        (None, {}, "NoneType"),
        (2.5, {}, "float"),
        ("/dev/video", {}, "/dev/video0"),
    ],
)
def test_wrong_use(source: object, options: dict[str, object], expected: str) -> None:
    frames, error = read(source, **options)
    assert not frames
    assert is_one_sentence(error)
    assert isinstance(error, UsageError)
    assert expected in str(error)
    assert "geheim" not in str(error)


# Images


def write_images(folder: Path, names: Iterable[str]) -> None:
    for number, name in enumerate(names):
        cv2.imwrite(str(folder / name), number_image(number, (64, 80)))


def test_a_folder_of_images_in_natural_order(tmp_path: Path) -> None:
    names = ["a1.png", "a2.PNG", "a10.jpg", "A11.jpeg", "b.bmp", "b.webp", "b1x.tif", "b01y.tiff"]
    write_images(tmp_path, names)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "._a1.png").write_bytes(b"not an image either")
    (tmp_path / "a3.png").mkdir()
    with open_source(tmp_path) as source:
        assert source.frame_count == len(names)
        assert source.fps is None
        assert not source.live
        frames = list(source)
    assert numbers(frames) == list(range(len(names)))
    assert [frame.time for frame in frames] == [None] * len(names)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 10**6), unique=True, max_size=6))
def test_numbers_in_names_count_as_numbers(chosen: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), [f"frame{number}.bmp" for number in sorted(chosen)])
        frames, error = read(Path(folder))
    assert numbers(frames) == list(range(len(chosen)))
    assert bool(error) == (not chosen)


def test_a_glob_an_image_and_a_rate(tmp_path: Path) -> None:
    write_images(tmp_path, ["a1.png", "a2.png", "a10.png", "b.jpg"])
    frames, error = read(str(tmp_path / "a*.png"), fps=4.0)
    assert error is None
    assert numbers(frames) == [0, 1, 2]
    assert [frame.time for frame in frames] == [0, 0.25, 0.5]
    frames, error = read(str(tmp_path / "b.jpg"))
    assert numbers(frames) == [3]
    frames, error = read(str(tmp_path / "c*.jpg"))
    assert isinstance(error, UsageError)
    assert "no images" in str(error)


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    _, error = read(tmp_path)
    assert is_one_sentence(error)
    assert isinstance(error, UsageError)
    assert str(tmp_path) in str(error)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_all_images_become_bgr_of_8_bits(
    tmp_path: Path, suffix: str, channels: int, dtype: type[np.unsignedinteger[Any]]
) -> None:
    scale = np.iinfo(dtype).max // 255
    colour = np.array([40, 120, 200, 77][:channels]) * scale
    image = np.broadcast_to(colour, (6, 8, channels)).astype(dtype)
    cv2.imwrite(str(tmp_path / f"image{suffix}"), image)
    frames, error = read(tmp_path)
    assert error is None
    assert frames[0].image.dtype == np.uint8
    expected = [40, 40, 40] if channels == 1 else [40, 120, 200]
    assert np.abs(frames[0].image.astype(int) - expected).max() <= 1
    assert frames[0].image.shape == (6, 8, 3)


@pytest.mark.parametrize("content", [b"", b"not an image", "half"])
def test_a_broken_image_is_named_and_the_others_are_read(
    tmp_path: Path, content: bytes | str
) -> None:
    write_images(tmp_path, ["1.png", "2.png", "3.png"])
    broken = tmp_path / "2.png"
    data = broken.read_bytes()
    broken.write_bytes(content if isinstance(content, bytes) else data[: len(data) // 2])
    frames, error = read(tmp_path)
    assert numbers(frames) == [0, 2]
    assert [frame.index for frame in frames] == [0, 2]
    assert is_one_sentence(error)
    assert isinstance(error, SalstreamError)
    assert not isinstance(error, UsageError)
    assert "2.png" in str(error)
    frames, error = read(broken)
    assert not frames
    assert is_one_sentence(error)
    assert str(broken) in str(error)


# Iterables


def test_an_iterable_of_frames_is_read_as_it_goes() -> None:
    made: list[int] = []

    def images() -> Iterator[Image]:
        for number in range(5):
            made.append(number)
            yield number_image(number, (64, 64))

    with open_source(images(), fps=10) as source:
        assert (source.fps, source.live, source.frame_count) == (10, False, None)
        for expected, frame in enumerate(source):
            assert made == list(range(expected + 1))
            assert read_number(frame.image) == frame.index == expected
            assert frame.time == pytest.approx(expected / 10)
    frames, error = read(np.zeros((3, 4, 5, 3), np.uint8))
    assert error is None
    assert [(frame.index, frame.time, frame.image.shape) for frame in frames] == [
        (number, None, (4, 5, 3)) for number in range(3)
    ]


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4), np.uint8), "(4, 4)"),
        (np.zeros((4, 4, 4), np.uint8), "(4, 4, 4)"),
        (np.zeros((0, 4, 3), np.uint8), "(0, 4, 3)"),
        ([[0, 0, 0]], "list"),
        (None, "NoneType"),
    ],
)
def test_frames_of_the_wrong_kind(bad: object, expected: str) -> None:
    good = np.zeros((4, 4, 3), np.uint8)
    frames, error = read([good, good, bad, good])
    assert len(frames) == 2
    assert is_one_sentence(error)
    assert isinstance(error, UsageError)
    assert "frame 2" in str(error)
    assert expected in str(error)


def test_an_error_of_the_iterable_is_its_own() -> None:
    def images() -> Iterator[Image]:
        yield np.zeros((4, 4, 3), np.uint8)
        raise RuntimeError("out of film")

    source = open_source(images())
    assert next(iter(source)).index == 0
    with pytest.raises(RuntimeError, match="out of film"):
        next(iter(source))


# Cameras and pipelines


@pytest.mark.skipif(Path("/dev/video97").exists(), reason="there is a camera 97")
@pytest.mark.parametrize("source", [97, "97", "/dev/video97"])
def test_a_camera_that_is_not_there(capfd: pytest.CaptureFixture[str], source: int | str) -> None:
    frames, error = read(source)
    assert not frames
    assert is_one_sentence(error)
    assert isinstance(error, SalstreamError)
    assert not isinstance(error, UsageError)
    assert "camera 97 cannot be opened" in str(error)
    assert capfd.readouterr().err == ""


def test_a_camera_gives_frames_and_stops_with_an_error(tmp_path: Path) -> None:
    # no camera here: OpenCV reads a file in its place, and the file's end is its unplugging
    path = numbered_clip(tmp_path / "camera.avi", 12, codec="mjpeg", fps=15)
    source = Capture(cv2.VideoCapture(str(path)), "camera 0", ends=False)
    assert source.live
    assert source.fps == 15
    frames = []
    with pytest.raises(SalstreamError, match="camera 0 gave no frame after the first 12"):
        for frame in source:
            frames.append(frame)
    assert numbers(frames) == list(range(12))
    times = [frame.time or 0.0 for frame in frames]
    assert times[0] == 0
    assert times == sorted(times)
    assert times[-1] > 0

    pipeline = Capture(cv2.VideoCapture(str(path)), "a ! b", ends=True)
    assert numbers(pipeline) == list(range(12))


def test_a_pipeline_without_gstreamer() -> None:
    if "YES" in cv2.getBuildInformation().partition("GStreamer:")[2].partition("\n")[0]:
        pytest.skip("this OpenCV has GStreamer")
    frames, error = read("rtspsrc location=rtsp://me:geheim@host/ ! decodebin ! appsink")
    assert not frames
    assert is_one_sentence(error)
    assert "GStreamer" in str(error)
    assert "python3-opencv" in str(error)
    assert "geheim" not in str(error)


# Standard input

READ_STANDARD_INPUT = """
import json, sys
from salstream.runtime.errors import SalstreamError
from salstream.runtime.sources import open_source
from clips import read_number
options = json.loads(sys.argv[1])
numbers, times, error = [], [], None
try:
    with open_source("-", **options) as source:
        for frame in source:
            numbers.append(read_number(frame.image))
            if sys.argv[2:]:
                print(numbers[-1], flush=True)
            times.append(frame.time)
except SalstreamError as caught:
    error = [type(caught).__name__, str(caught)]
print(json.dumps([numbers, times, error]))
"""


def pipe(data: bytes | Path, **options: object) -> tuple[list[int], list[float], list[str] | None]:
    """Feed a reader of standard input, from a file or through a real pipe."""
    command = [sys.executable, "-c", READ_STANDARD_INPUT, json.dumps(options)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    if isinstance(data, Path):
        with data.open("rb") as file:
            done = subprocess.run(
                command, stdin=file, capture_output=True, env=environment, timeout=60, check=False
            )
    else:
        done = subprocess.run(
            command, input=data, capture_output=True, env=environment, timeout=60, check=False
        )
    assert done.stderr == b""
    seen, times, error = json.loads(done.stdout)
    return seen, times, error


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".y4m", "wrapped_avframe"), (".ts", "libx264"), (".nut", "mpeg4"), (".mkv", "libx264")],
)
def test_standard_input_takes_any_container(tmp_path: Path, suffix: str, codec: str) -> None:
    path = numbered_clip(tmp_path / f"clip{suffix}", 40, fps=20, codec=codec)
    seen, times, error = pipe(path.read_bytes())
    assert error is None
    assert seen == list(range(40))
    assert times == pytest.approx([number / 20 for number in range(40)], abs=1e-3)


def test_frames_on_standard_input_do_not_wait_for_later_ones(tmp_path: Path) -> None:
    data = numbered_clip(tmp_path / "clip.ts", 60, options={"bf": "0"}).read_bytes()
    assert len(data) < 32768  # what a buffered reader would wait for
    with subprocess.Popen(
        [sys.executable, "-c", READ_STANDARD_INPUT, "{}", "each"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as reader:
        watchdog = threading.Timer(20, reader.kill)
        watchdog.start()
        try:
            assert reader.stdin is not None
            assert reader.stdout is not None
            reader.stdin.write(data[: len(data) * 5 // 6])
            reader.stdin.flush()
            assert [int(reader.stdout.readline()) for _ in range(30)] == list(range(30))
            reader.stdin.write(data[len(data) * 5 // 6 :])
            reader.stdin.close()
            assert [int(reader.stdout.readline()) for _ in range(30)] == list(range(30, 60))
        finally:
            watchdog.cancel()
            reader.kill()


def test_standard_input_takes_raw_frames() -> None:
    data = b"".join(number_image(number, (48, 64)).tobytes() for number in range(7))
    seen, times, error = pipe(data, raw_size=(48, 64))
    assert error is None
    assert seen == list(range(7))
    assert times == pytest.approx([number / 30 for number in range(7)])
    _, times, _ = pipe(data, raw_size=(48, 64), fps=2)
    assert times == pytest.approx([number / 2 for number in range(7)])

    seen, _, error = pipe(data[:-100], raw_size=(48, 64))
    assert seen == list(range(6))
    assert error is not None
    assert error[0] == "SalstreamError"
    assert "inside frame 6" in error[1]


def test_standard_input_with_an_index_at_the_end(tmp_path: Path) -> None:
    path = numbered_clip(tmp_path / "clip.mp4", 40, codec="mjpeg", size=(240, 320))
    seen, _, error = pipe(path)  # a file can be rewound
    assert (seen, error) == (list(range(40)), None)
    seen, _, error = pipe(path.read_bytes())
    assert seen == []
    assert error is not None
    assert "faststart" in error[1]


@pytest.mark.parametrize("data", [b"", b"not a video at all\n" * 50])
def test_standard_input_without_a_video(data: bytes) -> None:
    seen, _, error = pipe(data)
    assert seen == []
    assert error is not None
    assert error[1].startswith("standard input cannot be opened as a video")


# Names without passwords


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rtsp://me:geheim@host:554/cam", "rtsp://me:***@host:554/cam"),
        ("rtsp://me:ge@heim@host/cam", "rtsp://me:***@host/cam"),
        ("rtsp://me:ge/heim@host/cam", "rtsp://me:***@host/cam"),
        ("rtsp://:geheim@host/cam", "rtsp://:***@host/cam"),
        ("http://host:8080/a@b?x=1", "http://host:8080/a@b?x=1"),
        ("http://host/v?user=me&password=geheim&n=1", "http://host/v?user=me&password=***&n=1"),
        ("http://host/v?access_token=geheim", "http://host/v?access_token=***"),
        ("srt://host:9?passphrase=geheim", "srt://host:9?passphrase=***"),
        ("rtsp://host/cam", "rtsp://host/cam"),
        ("clips/a:b@c.mp4", "clips/a:b@c.mp4"),
        (
            'rtspsrc location=rtsp://me:geheim@host/ user-pw="ge heim" ! appsink',
            "rtspsrc location=rtsp://me:***@host/ user-pw=*** ! appsink",
        ),
        (
            "rtsp://h/user=admin_password=geheim_channel=1_stream=0.sdp?real_stream",
            "rtsp://h/user=admin_password=***_channel=1_stream=0.sdp?real_stream",
        ),
        ("rtsp://h/user=a&password=ge@heim&channel=1", "rtsp://h/user=a&password=***&channel=1"),
        ("rtsp://h:554/user=a&password=ge@heim", "rtsp://h:554/user=a&password=***"),
        ("http://h/v?loginuse=admin&loginpas=geheim", "http://h/v?loginuse=admin&loginpas=***"),
        ("http://h/v?usr=admin&psw=geheim", "http://h/v?usr=admin&psw=***"),
        ("http://h/v?usr=admin&PWD=geheim&x=1", "http://h/v?usr=admin&PWD=***&x=1"),
        ("http://h/v?u=a&p=geheim", "http://h/v?u=a&p=***"),
        ("http://h/v?p=geheim&u=a", "http://h/v?p=***&u=a"),
        ("http://h/v?credentials=geheim", "http://h/v?credentials=***"),
        ("http://h/v?X-Amz-Signature=geheim&step=2", "http://h/v?X-Amz-Signature=***&step=2"),
        ("http://h/v?token=eyJ_geheim=", "http://h/v?token=***"),
        ("rtspsrc user-pw='my geheim' ! appsink", "rtspsrc user-pw=*** ! appsink"),
        ("rtspsrc user-pw = geheim ! appsink", "rtspsrc user-pw = *** ! appsink"),
        (r"rtspsrc user-pw=my\ geheim ! appsink", "rtspsrc user-pw=*** ! appsink"),
        (r'rtspsrc user-pw="my\" geheim" ! appsink', "rtspsrc user-pw=*** ! appsink"),
        ('rtspsrc user-pw="my geheim ! appsink', "rtspsrc user-pw=***"),
        ('urisrc uri="http://h/?key=geheim" ! a', 'urisrc uri="http://h/?key=***" ! a'),
        ("rtsp://me:12/heim@host", "rtsp://me:***@host"),
        ("rtsp://me:12/heim@10.0.0.5:554/cam?x=1", "rtsp://me:***@10.0.0.5:554/cam?x=1"),
        ("rtsp://me@home:geheim@host/cam", "rtsp://me@home:***@host/cam"),
        ("rtsp://me@host:554/cam", "rtsp://me@host:554/cam"),
        ("http://host:8080/v?mail=me@host", "http://host:8080/v?mail=me@host"),
        ("v4l2src device=/dev/video0 ! appsink", "v4l2src device=/dev/video0 ! appsink"),
        ("rtsp://me:ge heim@host:1/x", "rtsp://me:***@host:1/x"),
        ("rtsp:///me:geheim@host:1/x", "rtsp:///me:***@host:1/x"),
        ("rtsp:/me:geheim@host/1", "rtsp:/me:***@host/1"),
        ("rtsps:/me:geheim@host/1", "rtsps:/me:***@host/1"),
        ("rtsp//me:geheim@host/1", "rtsp//me:***@host/1"),
        ("rtsp/me:geheim@host/1", "rtsp/me:***@host/1"),
        ("rtsp;//me:geheim@host/1", "rtsp;//me:***@host/1"),
        (r"rtsp:\\me:geheim@host/1", r"rtsp:\\me:***@host/1"),
        ("rtsp:me:geheim@host:554/1", "rtsp:me:***@host:554/1"),
        ("me:geheim@host/1", "me:***@host/1"),
        ("me:12@host/1", "me:***@host/1"),
        ("door=rtsp:/me:geheim@[::1]:554/1", "door=rtsp:/me:***@[::1]:554/1"),
        ("door = rtsp/me:geheim@host", "door = rtsp/me:***@host"),
        ("clips/2026-01-31T10:20:30@home.mp4", "clips/2026-01-31T10:20:30@home.mp4"),
    ],
)
def test_redaction(text: str, expected: str) -> None:
    assert redact(text) == expected


_WORDS = st.text("abcXYZ019-._~!$&'()*+,;=%@:", min_size=1, max_size=12)


@given(_WORDS, st.sampled_from(["rtsp", "http", "udp"]))
@example("a@b:c", "rtsp")
def test_no_password_survives(secret: str, scheme: str) -> None:
    secret = "<" + secret + ">"  # so that it cannot be found elsewhere by chance
    shown = redact(f"{scheme}://user:{secret}@host.example:80/path?x=1")
    assert shown == f"{scheme}://user:***@host.example:80/path?x=1"


@given(
    st.sampled_from(["pass", "loginpas", "psw", "user_pwd", "pw", "apiKey", "auth", "sig", "p"]),
    _WORDS.map(lambda word: f"<{word.replace('=', '').replace('&', '')}>"),
)
def test_no_password_in_a_query_survives(name: str, secret: str) -> None:
    shown = redact(f"http://host:80/v?user=me&{name}={secret}&n=1")
    assert shown == f"http://host:80/v?user=me&{name}=***&n=1"
    if name != "p":  # says nothing elsewhere
        shown = redact(f"rtsp://host/user=me_{name}={secret}_channel=1")
        assert shown == f"rtsp://host/user=me_{name}=***_channel=1"


@given(_WORDS, st.sampled_from("\"'"))
def test_no_quoted_password_survives(secret: str, quote: str) -> None:
    secret = secret.replace("'", "") + " & " + secret.replace("'", "")
    shown = redact(f"rtspsrc user-pw={quote}{secret}{quote} latency=0 ! appsink")
    assert shown == "rtspsrc user-pw=*** latency=0 ! appsink"


# Letting go


def is_open(path: Path) -> bool:
    return any(os.path.realpath(link) == str(path) for link in Path("/proc/self/fd").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_files_are_let_go(tmp_path: Path) -> None:
    path = numbered_clip(tmp_path / "clip.mp4", 20)

    with open_source(path) as source:  # left early
        assert is_open(path)
        next(iter(source))
    assert not is_open(path)
    source.close()
    assert list(source) == []

    source = open_source(path)  # never read
    source.close()
    source.close()
    assert not is_open(path)
    assert list(source) == []

    source = open_source(path)  # read to its end
    assert len(list(source)) == 20
    assert not is_open(path)

    source = open_source(path)  # closed on the way
    seen = 0
    for _ in source:
        seen += 1
        source.close()
    assert seen == 1
    assert not is_open(path)


def test_a_file_that_is_no_video_is_let_go(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "sound.mp4", seconds=1)
    _, error = read(path)
    assert error is not None
    assert not is_open(path)


def test_closing_from_another_thread() -> None:
    entered, leave = threading.Event(), threading.Event()
    seen: list[int] = []

    def images() -> Iterator[Image]:
        for number in range(100):
            if number == 3:
                entered.set()
                leave.wait(10)
            yield number_image(number, (64, 64))

    source = open_source(images())
    thread = threading.Thread(target=lambda: seen.extend(frame.index for frame in source))
    thread.start()
    assert entered.wait(10)
    source.close()  # while the thread waits for its frame
    leave.set()
    thread.join(10)
    assert not thread.is_alive()
    assert seen == [0, 1, 2]


def test_closing_a_video_at_any_moment(tmp_path: Path) -> None:
    path = numbered_clip(tmp_path / "clip.mp4", 300, size=(240, 320))
    for moment in range(15):
        source = open_source(path)
        thread = threading.Thread(target=lambda source=source: [None for _ in source])
        thread.start()
        time.sleep(moment / 500)
        source.close()
        thread.join(10)
        assert not thread.is_alive()
        assert list(source) == []


def test_frames_are_not_kept(tmp_path: Path) -> None:
    path = numbered_clip(tmp_path / "clip.mp4", 30)
    alive: list[weakref.ref[Image]] = []
    for frame in open_source(path):
        alive.append(weakref.ref(frame.image))
        assert sum(reference() is not None for reference in alive) <= 2
    assert len(alive) == 30
