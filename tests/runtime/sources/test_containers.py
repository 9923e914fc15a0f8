"""What FFmpeg passes over in silence, or calls damaged: it is said, or read all the same."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest

from made import joined, video
from salstream.runtime import SalstreamError
from salstream.runtime.errors import UnusableSource
from salstream.runtime.sources import Frame, open_source

FFMPEG = shutil.which("ffmpeg")


def read(path: Path | str) -> tuple[list[Frame], str]:
    """Return the frames of a source, and what it says at its end."""
    frames: list[Frame] = []
    try:
        with open_source(path) as source:
            frames.extend(source)
    except SalstreamError as error:
        return frames, str(error)
    return frames, ""


def segments(folder: Path, count: int) -> list[str]:
    """Make segments of HLS of ten frames each, whose packets are all counted from 0."""
    for n in range(count):
        video(folder / f"s{n}.ts", count=10, begin_s=n / 3, options={"bf": "0"})
    return [f"s{n}.ts" for n in range(count)]


def playlist(path: Path, names: list[str]) -> Path:
    entries = "".join(f"#EXTINF:0.333,\n{name}\n" for name in names)
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n{entries}#EXT-X-ENDLIST\n")
    return path


def test_segments_that_count_their_packets_anew_lose_no_frame(tmp_path: Path) -> None:
    frames, said = read(playlist(tmp_path / "a.m3u8", segments(tmp_path, 6)))
    assert len(frames) == 60
    assert not said


def test_a_missing_segment_is_named(tmp_path: Path) -> None:
    names = segments(tmp_path, 3)
    frames, said = read(playlist(tmp_path / "a.m3u8", [names[0], "gone.ts", names[2]]))
    assert len(frames) >= 10
    assert "lacks 1 of its segments" in said
    assert "gone.ts" in said


def test_a_transport_stream_goes_on_with_other_streams(tmp_path: Path) -> None:
    parts = []
    for name, pid in (("a", 0x100), ("b", 0x200)):
        path = tmp_path / f"{name}.ts"
        options = {"mpegts_start_pid": str(pid), "mpegts_pmt_start_pid": str(0x1000 + pid)}
        with av.open(path, "w", options=options) as container:
            stream = container.add_stream("libx264", rate=30)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
            for number in range(60):
                image = np.full((96, 128, 3), 4 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
            container.mux(stream.encode(None))
        parts.append(path)
    frames, said = read(joined(tmp_path / "all.ts", parts))
    assert not said
    assert [frame.time for frame in frames] == pytest.approx([i / 30 for i in range(120)])
    assert [frame.index for frame in frames] == list(range(120))
    assert [frame.index for frame in frames if frame.cut] == [60]


@pytest.mark.parametrize("seconds", [0.0, 0.5, 3600.0, 2147483.63])
def test_a_flash_video_is_whole_if_it_ends_with_a_whole_tag(tmp_path: Path, seconds: float) -> None:
    data = bytearray(video(tmp_path / "a.flv").read_bytes())
    at = data.index(b"duration") + len("duration") + 1
    data[at : at + 8] = struct.pack(">d", seconds)
    (tmp_path / "a.flv").write_bytes(data)
    frames, said = read(tmp_path / "a.flv")
    assert len(frames) == 60
    assert not said
    if seconds > 60:
        (tmp_path / "a.flv").write_bytes(data[: len(data) // 2])
        assert "cut off" in read(tmp_path / "a.flv")[1]


CODECS = {
    "y4m": "wrapped_avframe",
    "mxf": "mpeg2video",
    "wmv": "wmv2",
    "avi": "mjpeg",
    "mp4": "mpeg4",
    "mkv": "mpeg4",
    "flv": "libx264",
    "ivf": "libvpx",
}


@pytest.mark.parametrize("container", CODECS)
def test_half_a_file_ends_with_an_error_after_its_last_frame(
    tmp_path: Path, container: str
) -> None:
    path = video(tmp_path / f"a.{container}", CODECS[container])
    frames, said = read(path)
    assert len(frames) == 60
    assert not said
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 11 // 20])
    frames, said = read(path)
    assert len(frames) < 60
    assert re.search("cut off|damaged", said)


def test_half_a_gif_is_cut_off(tmp_path: Path) -> None:
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), np.uint8)
    first, *others = [Image.fromarray(image) for image in noise]
    path = tmp_path / "a.gif"
    first.save(path, save_all=True, append_images=others, duration=100)
    assert read(path)[1] == ""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    frames, said = read(path)
    assert 0 < len(frames) < 12
    assert "cut off" in said


def test_an_encrypted_video_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    options = {
        "encryption_scheme": "cenc-aes-ctr",
        "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
        "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
    }
    with av.open(path, "w", options=options) as container:
        stream = container.add_stream("libx264", rate=30)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame(128, 96, "yuv420p")))
        container.mux(stream.encode(None))
    with pytest.raises(UnusableSource, match="encrypted"):
        open_source(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_cannot_be_rewound(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"qp": "5"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        for seed in range(20):
            noise = np.random.default_rng(seed).integers(0, 256, (480, 640, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="bgr24")))
        container.mux(stream.encode(None))
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)

    def feed() -> None:
        with suppress(BrokenPipeError):  # its reader has seen enough
            pipe.write_bytes(path.read_bytes())

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    assert "faststart" in read(pipe)[1]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.yuv", "pipe them as a video"),
        ("a.m4s", "cat init.mp4 FRAGMENT > whole.mp4"),
        ("a.m3u8", "one of its segments cannot be read"),
        ("a.ffconcat", "one of its files cannot be read"),
        ("a.bin", "damaged, cut off or no video at all"),
    ],
)
def test_what_is_no_video_for_ffmpeg_gets_a_hint(tmp_path: Path, name: str, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(bytes(range(256)) * 64)
    assert words in read(path)[1]


@pytest.mark.parametrize("form", ["file://{}", "file:{}", "FILE://localhost{}"])
def test_a_file_url_is_a_path(tmp_path: Path, form: str) -> None:
    path = video(tmp_path / "a clip #1?.mp4", count=3)
    assert len(read(form.format(path))[0]) == 3
    escaped = str(path).replace(" ", "%20").replace("#", "%23").replace("?", "%3F")
    assert len(read(form.format(escaped))[0]) == 3


@pytest.mark.parametrize("container", ["ts", "m2ts", "mkv", "webm"])
@pytest.mark.parametrize("share", [0.55, 0.8, 0.95])
def test_a_little_that_is_missing_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, container: str, share: float
) -> None:
    codec = "libvpx" if container == "webm" else "libx264"
    path = video(tmp_path / f"a.{container}", codec, 24)
    assert read(path)[1] == ""
    data = path.read_bytes()
    cut = int(len(data) * share)
    path.write_bytes(data[: cut + (cut % 188 == 0 or cut % 192 == 0)])
    frames, said = read(path)
    assert len(frames) < 24 or container == "m2ts"  # which ends with empty packets
    assert "cut off" in (caplog.text if container in ("ts", "m2ts") else said)


@pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg here (Debian: ffmpeg)")
def test_ogg_is_whole_joined_and_cut_off(tmp_path: Path) -> None:
    parts = []
    for serial in (1000, 2000):
        part = tmp_path / f"{serial}.ogv"
        make = [str(FFMPEG), "-v", "error", "-f", "lavfi", "-i", "testsrc=s=128x96:r=10:d=2"]
        make += ["-f", "lavfi", "-i", "sine=d=2", "-c:v", "libtheora", "-c:a", "libvorbis"]
        subprocess.run([*make, "-serial_offset", str(serial), str(part)], check=True, timeout=60)
        parts.append(part)
    assert (len(read(parts[0])[0]), read(parts[0])[1]) == (20, "")
    frames, said = read(joined(tmp_path / "all.ogv", parts))
    assert said == ""
    assert [frame.time for frame in frames] == pytest.approx([i / 10 for i in range(40)])
    data = parts[0].read_bytes()
    for share in (0.5, 0.85):
        parts[0].write_bytes(data[: int(len(data) * share)])
        assert "cut off" in read(parts[0])[1]
