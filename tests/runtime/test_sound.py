"""Overlay videos have the sound of their source, in time."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from salstream.runtime import Result, UsageError
from salstream.runtime.outputs import Outputs
from salstream.runtime.segments import Segments
from salstream.runtime.sinks import OverlayVideo
from salstream.runtime.sound import Sound

RATE = 48_000
FPS = 30


def film(
    path: Path, sound: str, *, video_at: float = 0.0, sound_at: float = 0.0, click_at: float = 1.0
) -> Path:
    """Write two seconds of pictures, and of sound that is silent before a time."""
    codecs = {".ts": "mpeg2video", ".mpg": "mpeg1video", ".flv": "flv"}
    with av.open(path, "w") as container:
        video = container.add_stream(codecs.get(path.suffix, "mpeg4"), rate=FPS)
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream(sound, rate=RATE)
        assert isinstance(audio, av.AudioStream)
        audio.layout = "mono"
        frames: list[tuple[float, Callable[[], list[Any]]]] = []
        for index in range(2 * FPS):
            image = np.full((48, 64, 3), 4 * index, np.uint8)
            picture = av.VideoFrame.from_ndarray(image, format="bgr24")
            picture.time_base, picture.pts = Fraction(1, FPS), round(video_at * FPS) + index
            frames.append((video_at + index / FPS, partial(video.encode, picture)))
        moments = sound_at + np.arange(round((video_at + 2 - sound_at) * RATE)) / RATE
        wave = np.where(moments < click_at, 0, 15_000 * np.sin(moments * 6000)).astype(np.int16)
        for begin in range(0, len(wave), 1024):
            heard = av.AudioFrame.from_ndarray(wave[None, begin : begin + 1024], "s16", "mono")
            heard.sample_rate, heard.time_base = RATE, Fraction(1, RATE)
            heard.pts = round(sound_at * RATE) + begin
            frames.append((sound_at + begin / RATE, partial(audio.encode, heard)))
        for _, encode in sorted(frames, key=lambda item: item[0]):
            container.mux(encode())
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


def write(
    sink: OverlayVideo | Segments, n: int = 2 * FPS, *, fps: float = FPS, first: int = 0
) -> None:
    for index in range(first, n):
        image = np.full((48, 64, 3), 4 * index % 256, np.uint8)
        sink.write(Result(index, index / fps, image, np.zeros((6, 8), np.float32)))
    sink.close()


def first_video_s(path: Path) -> float:
    with av.open(path) as container:
        return min(
            float(packet.pts * packet.time_base)
            for packet in container.demux(video=0)
            if packet.pts is not None
        )


def sound_of(path: Path) -> Sound:
    return Sound(SimpleNamespace(path=path, offsets=[-first_video_s(path)]))


def clicks(path: Path) -> list[float]:
    """When silence ends, in seconds on the clock of the pictures."""
    found, loud = [], False
    with av.open(path) as container:
        for frame in container.decode(audio=0):
            wave = np.abs(frame.to_ndarray().astype(np.float64)).reshape(-1)
            full = {"s16": 2**15, "s16p": 2**15, "s32": 2**31, "s32p": 2**31}
            wave = np.abs(wave - 128) / 128 if frame.format.name == "u8" else wave
            above = np.flatnonzero(wave / full.get(frame.format.name, 1) > 0.1)
            if len(above) and not loud:
                found.append((frame.time or 0.0) + float(above[0]) / frame.sample_rate)
            loud = bool(len(above))
    return found


def codec_of(path: Path) -> str:
    with av.open(path) as container:
        assert len(container.streams.audio) == 1
        return container.streams.audio[0].codec_context.codec.canonical_name


def packets_of(path: Path) -> list[bytes]:
    with av.open(path) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize(
    ("source", "sound", "encoded"),
    [
        ("a.mp4", "aac", ""),
        ("a.ts", "aac", ""),  # in ADTS
        ("a.flv", "aac", ""),
        ("a.mkv", "libmp3lame", ""),
        ("a.mkv", "libopus", ".mov"),
        ("a.mkv", "flac", ".mov"),
        ("a.ts", "ac3", ""),
        ("a.mpg", "mp2", ".mp4 .mov"),
        ("a.avi", "pcm_s16le", ""),
        ("a.mov", "alac", ""),
        ("a.mov", "pcm_mulaw", ".mp4 .mkv"),
        ("a.avi", "adpcm_ima_wav", ".mp4 .mov .mkv"),
        ("a.avi", "pcm_u8", ".mp4"),
    ],
)
def test_sound_is_copied_in_time_where_the_container_takes_it(
    tmp_path: Path, source: str, sound: str, encoded: str, suffix: str
) -> None:
    path, out = film(tmp_path / source, sound), tmp_path / f"out{suffix}"
    write(OverlayVideo(out, FPS, sound=sound_of(path)))
    begin = first_video_s(path)
    expected = [click - begin for click in clicks(path)]
    assert clicks(out) == pytest.approx(expected, abs=0.004)
    if suffix in encoded.split():
        assert codec_of(out) == "aac"
    else:
        before, after = packets_of(path), packets_of(out)
        assert sound in ("aac", "mp2") or codec_of(out) == codec_of(path)
        headers = 7 if path.suffix == ".ts" and sound == "aac" else 0
        assert {packet[headers:] for packet in before} >= set(after), "not the same packets"
        assert len(after) >= len(before) - 3


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(("video_at", "sound_at"), [(0.5, 0.0), (0.0, 0.5), (3.0, 2.7)])
def test_sound_and_pictures_may_begin_apart(
    tmp_path: Path, suffix: str, video_at: float, sound_at: float
) -> None:
    path = tmp_path / f"a{suffix}"
    film(path, "aac", video_at=video_at, sound_at=sound_at, click_at=video_at + 1)
    out = tmp_path / f"out{suffix}"
    write(OverlayVideo(out, FPS, sound=sound_of(path)))
    assert clicks(out) == pytest.approx([1.0], abs=0.004)
    with av.open(out) as container:
        assert next(container.decode(video=0)).time == 0


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_sound_ends_with_the_pictures(tmp_path: Path, suffix: str) -> None:
    path, out = film(tmp_path / "a.mp4", "aac"), tmp_path / f"out{suffix}"
    write(OverlayVideo(out, FPS, sound=sound_of(path)), 15)
    with av.open(out) as container:
        assert container.duration is not None
        assert 0.5 <= container.duration / av.time_base < 0.53
        ends = [
            float((packet.pts + (packet.duration or 0)) * packet.time_base)
            for packet in container.demux(audio=0)
            if packet.pts is not None and packet.size
        ]
    assert 0.47 < max(ends) < 0.53


@pytest.mark.parametrize("name", ["a.ts", "a.mpg"])
def test_sound_of_joined_files_follows_the_pictures(tmp_path: Path, name: str) -> None:
    """Whose clock begins anew; a container that keeps time is joined by its timestamps."""
    part = film(tmp_path / name, "mp2")
    joined = tmp_path / f"joined-{name}"
    joined.write_bytes(3 * part.read_bytes())
    begin = first_video_s(part)
    source = SimpleNamespace(path=joined, offsets=[-begin])
    out = tmp_path / "out.mkv"
    video = OverlayVideo(out, FPS, sound=Sound(source))
    for index in range(6 * FPS):
        if index % (2 * FPS) == 0 and index:  # the reader of the pictures comes to a seam
            source.offsets.append(index / FPS - begin)
        image = np.zeros((48, 64, 3), np.uint8)
        video.write(Result(index, index / FPS, image, np.zeros((6, 8), np.float32)))
    video.close()
    with av.open(out) as container:
        stamps = [packet.pts for packet in container.demux(audio=0) if packet.pts is not None]
    assert all(a < b for a, b in pairwise(stamps))
    assert clicks(out) == pytest.approx([1, 3, 5], abs=0.03)


def test_segments_share_the_sound_out(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", "aac")
    folder = tmp_path / "pieces"
    write(Segments(folder / "o.mp4", 0.7, sound=sound_of(path)))
    pieces = sorted(folder.iterdir())
    assert len(pieces) == 3
    assert not clicks(pieces[0])
    assert clicks(pieces[1]) == pytest.approx([0.3], abs=0.004)
    heard = [packet for piece in pieces for packet in packets_of(piece)]
    assert heard == packets_of(path)[: len(heard)]
    assert len(heard) >= 2 * RATE // 1024


def test_sound_is_written_along_with_the_pictures(tmp_path: Path) -> None:
    """A killed run leaves both."""
    path, out = film(tmp_path / "a.mp4", "aac"), tmp_path / "out.mp4"
    program = f"""
        import os
        from pathlib import Path
        from types import SimpleNamespace
        import numpy as np
        from salstream.runtime import Result
        from salstream.runtime.sinks import OverlayVideo
        from salstream.runtime.sound import Sound
        sound = Sound(SimpleNamespace(path=Path({str(path)!r}), offsets=[0.0]))
        video = OverlayVideo(Path({str(out)!r}), 30.0, sound=sound)
        for index in range(150):  # longer than the sound
            image = np.zeros((48, 64, 3), np.uint8)
            video.write(Result(index, index / 30, image, np.ones((6, 8), np.float32)))
        os._exit(9)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False, timeout=60)
    assert clicks(out) == pytest.approx([1.0], abs=0.004)
    with av.open(out) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 80


def test_a_damaged_track_never_ends_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = film(tmp_path / "a.mkv", "flac")
    content, rng = bytearray(path.read_bytes()), np.random.default_rng(0)
    for packet in packets_of(path)[-10:-4]:
        at = content.index(packet)
        content[at : at + len(packet)] = rng.bytes(len(packet))
    path.write_bytes(content)
    for suffix in (".mp4", ".mov"):  # copied, decoded
        out = tmp_path / f"out{suffix}"
        write(OverlayVideo(out, FPS, sound=sound_of(path)))
        with av.open(out) as container:
            assert sum(1 for _ in container.decode(video=0)) == 2 * FPS
            assert container.streams.audio
    assert "damaged sound is left out" in caplog.text


def test_a_file_that_goes_away_takes_only_its_sound(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out.mp4"
    source = SimpleNamespace(path=tmp_path / "gone.mp4", offsets=[0.0])
    write(OverlayVideo(out, FPS, sound=Sound(source)))
    with av.open(out) as container:
        assert [stream.type for stream in container.streams] == ["video"]
    assert "there is no sound" in caplog.text


def test_what_has_no_sound(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No plain file, or nothing to be heard: in silence. A rate by hand: with a warning."""
    path = film(tmp_path / "a.mp4", "aac")
    with av.open(tmp_path / "mute.mp4", "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(stream.encode(None))
    sources = {
        "live": SimpleNamespace(name="rtsp://host"),
        "pipe": SimpleNamespace(path=None, offsets=[0.0]),
        "mute": SimpleNamespace(path=tmp_path / "mute.mp4", offsets=[0.0]),
        "paced": SimpleNamespace(path=path, offsets=[]),
    }
    for name, source in sources.items():
        with caplog.at_level(logging.WARNING, "salstream"):
            caplog.clear()
            write(OverlayVideo(tmp_path / f"{name}-out.mp4", FPS, sound=Sound(source)))
            assert len(caplog.records) == (name == "paced")
        with av.open(tmp_path / f"{name}-out.mp4") as container:
            assert [stream.type for stream in container.streams] == ["video"]
    assert "--fps" in caplog.text


def test_no_sound_is_for_an_overlay_video() -> None:
    for save in (None, "-"):
        with pytest.raises(UsageError, match="--no-sound is for the overlay video: add --save"):
            Outputs(save=save, sound=False).check({"a": "a.mp4"}, as_json=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "streams"),
    [
        (["run", "a.mp4", "--save", "out.mp4"], ["video", "audio"]),
        (["run", "a.mp4", "--save", "out.mp4", "--no-sound"], ["video"]),
        (["run", "a.mp4", "a.mp4", "--save", "{camera}.mp4"], ["video", "audio"]),
        (["demo", "a.mp4", "-o", "."], ["video", "audio"]),
    ],
)
def test_sound_on_the_command_line(
    tmp_path: Path, arguments: list[str], streams: list[str]
) -> None:
    film(tmp_path / "a.mp4", "aac")
    program = "from salstream.runtime.cli import main; main()"
    command = [sys.executable, "-c", program, *arguments]
    subprocess.run(command, check=True, cwd=tmp_path, timeout=120)
    outs = [path for path in tmp_path.glob("*.mp4") if path.name != "a.mp4"]
    assert outs
    for out in outs:
        with av.open(out) as container:
            assert [stream.type for stream in container.streams] == streams
        if "audio" in streams:
            assert clicks(out) == pytest.approx([1.0], abs=0.004)


@pytest.mark.slow
@pytest.mark.parametrize("container", ["mp4", "mov", "mkv", "ts", "flv", "avi"])
def test_joined_files_keep_their_sound_with_their_pictures(tmp_path: Path, container: str) -> None:
    part = tmp_path / f"talk.{container}"
    codec = "mp3" if container == "avi" else "aac"
    with av.open(part, "w") as made:
        pictures = made.add_stream("libx264", rate=30)
        sound = made.add_stream(codec, rate=44100)
        assert isinstance(pictures, av.VideoStream)
        assert isinstance(sound, av.AudioStream)
        pictures.width, pictures.height, pictures.pix_fmt = 128, 96, "yuv420p"
        sound.layout = "mono"
        for number in range(60):
            image = np.full((96, 128, 3), 4 * number, np.uint8)
            made.mux(pictures.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        for number in range(86):
            wave = np.sin(np.arange(number * 1024, number * 1024 + 1024) / 16)[None]
            form = "fltp"
            samples = av.AudioFrame.from_ndarray(wave.astype("f4"), form, "mono")
            samples.sample_rate, samples.pts = 44100, 1024 * number
            made.mux(sound.encode(samples))
        for stream in (pictures, sound):
            made.mux(stream.encode(None))
    joined = tmp_path / f"joined.{container}"
    joined.write_bytes(part.read_bytes() * 3)
    out = tmp_path / "out.mp4"
    done = subprocess.run(
        [Path(sys.executable).parent / "salstream", "run", joined, "--save", out],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "sound" not in done.stderr
    assert end_of(out, "video") == pytest.approx(6.0, abs=0.05)
    assert end_of(out, "audio") == pytest.approx(6.0, abs=0.15)


def end_of(path: Path, kind: str) -> float:
    """Return when the last packet of a track ends, in seconds."""
    with av.open(path) as container:
        (stream,) = (stream for stream in container.streams if stream.type == kind)
        return max(
            float((packet.pts + (packet.duration or 0)) * packet.time_base)
            for packet in container.demux(stream)
            if packet.pts is not None
        )
