"""Times, rates and the choice of the film, in files as recorders and people make them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest

from made import joined, tracks, video
from salstream.runtime import SaliencyModel
from salstream.runtime.sources import Frame, open_source

FFMPEG = shutil.which("ffmpeg")


def frames_of(path: Path | str, fps: float | None = None) -> list[Frame]:
    with open_source(path, fps=fps) as source:
        return list(source)


def bars(frames: list[Frame]) -> list[int]:
    """Return the numbers of the frames, by the left edge of their bar."""
    return [int(np.argmax(frame.image[..., 1].mean(0) > 100)) // 2 for frame in frames]


CONTAINERS = {
    "ts": "mpeg2video",
    "m2ts": "libx264",
    "mpg": "mpeg2video",
    "vob": "mpeg2video",
    "mkv": "libx264",
    "webm": "libvpx",
    # where FFmpeg itself stops at the first seam
    "mp4": "libx264",
    "mov": "mpeg4",
    "3gp": "mpeg4",
    "asf": "mpeg4",
    "flv": "libx264",
    "ivf": "libvpx",
    "nut": "mpeg4",
    "y4m": "wrapped_avframe",
}
JOINS = {
    "again": (0, 0, 0),
    "ahead": (0, 100),
    "hours": (0, 7200),
    "back": (100, 0),
    "overlap": (0, 1.5),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("join", JOINS)
def test_joined_files_have_one_clock(tmp_path: Path, container: str, join: str) -> None:
    codec = CONTAINERS[container]
    begins = JOINS[join]
    parts = [
        video(tmp_path / f"{n}.{container}", codec, 30, begin_s=begin_s)
        for n, begin_s in enumerate(begins)
    ]
    if join == "overlap":
        parts[0] = video(tmp_path / f"0.{container}", codec, 60)
    frames = frames_of(joined(tmp_path / f"all.{container}", parts))
    count = 30 * len(parts) + 30 * (join == "overlap")
    assert [frame.time for frame in frames] == pytest.approx(
        [i / 30 for i in range(count)], abs=0.0011
    )
    assert sum(frame.cut for frame in frames) == len(parts) - 1


@pytest.mark.parametrize("container", ["mov", "mkv", "avi"])
def test_slides_of_uneven_length_keep_it(tmp_path: Path, container: str) -> None:
    times_s = [0.0, 5.0, 12.0, 40.0, 46.0, 90.0, 95.0, 100.0, 130.0]
    frames = frames_of(video(tmp_path / f"a.{container}", "mpeg4", times_s=times_s))
    assert [frame.time for frame in frames] == pytest.approx(times_s, abs=0.01)
    assert not any(frame.cut for frame in frames)


@pytest.mark.slow
def test_hundreds_of_joined_parts(tmp_path: Path) -> None:
    part = video(tmp_path / "a.mp4", count=3)
    with open_source(joined(tmp_path / "all.mp4", [part] * 300)) as source:
        times = [frame.time for frame in source]
    assert times == pytest.approx([i / 30 for i in range(900)])


def test_a_joined_avi_is_read_to_its_end(tmp_path: Path) -> None:
    part = video(tmp_path / "a.avi", count=30)
    frames = frames_of(joined(tmp_path / "all.avi", [part] * 3))
    assert [frame.time for frame in frames] == pytest.approx([i / 30 for i in range(90)])


@pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg here (Debian: ffmpeg)")
def test_joined_ogg_files_have_one_clock(tmp_path: Path) -> None:
    clip = video(tmp_path / "a.mkv", count=30)
    ogg = tmp_path / "a.ogv"
    convert = [str(FFMPEG), "-v", "error", "-i", str(clip), "-c:v", "libtheora", str(ogg)]
    subprocess.run(convert, check=True)
    frames = frames_of(joined(tmp_path / "all.ogv", [ogg, ogg, ogg]))
    assert [frame.time for frame in frames] == pytest.approx([i / 30 for i in range(90)], abs=0.01)


def test_discontinuities_of_hls_are_cuts(tmp_path: Path) -> None:
    for name, begin_s in (("a", 0), ("b", 50)):
        video(tmp_path / f"{name}.ts", count=60, begin_s=begin_s)
    entries = "#EXT-X-DISCONTINUITY\n".join(f"#EXTINF:2,\n{name}.ts\n" for name in "aba")
    playlist = tmp_path / "all.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n{entries}#EXT-X-ENDLIST\n")
    frames = frames_of(playlist)
    assert [frame.time for frame in frames] == pytest.approx([i / 30 for i in range(180)])
    assert [frame.index for frame in frames if frame.cut] == [60, 120]


def test_the_clock_of_mpeg_ts_wraps(tmp_path: Path) -> None:
    wraps_s = (1 << 33) / 90_000
    frames = frames_of(video(tmp_path / "a.ts", "mpeg2video", begin_s=wraps_s - 1.4 - 1))
    assert [frame.time for frame in frames] == pytest.approx([i / 30 for i in range(60)])
    assert not any(frame.cut for frame in frames)


REORDERED = {
    "libx264": {"bf": "2", "b_strategy": "0"},
    "pyramid": {"bf": "5", "b_strategy": "0", "x264-params": "b-pyramid=normal"},
    "mpeg4": {"bf": "2"},
    "mpeg2video": {"bf": "2"},
}


@pytest.mark.parametrize("container", ["avi", "asf", "mxf", "mkv", "mp4", "ts"])
@pytest.mark.parametrize("codec", REORDERED)
def test_frames_out_of_order_have_their_own_times(
    tmp_path: Path, container: str, codec: str
) -> None:
    if (container, codec) == ("mxf", "mpeg4"):
        pytest.skip("MXF does not take MPEG-4")
    encoder = "libx264" if codec == "pyramid" else codec
    path = video(tmp_path / f"b.{container}", encoder, 62, options=REORDERED[codec])
    frames = frames_of(path)
    assert bars(frames) == list(range(62))
    # ASF counts in milliseconds, from its first packet
    assert [frame.time for frame in frames] == pytest.approx(
        [i / 30 for i in range(62)], abs=0.034 if container == "asf" else 0.0011
    )
    assert not any(frame.cut for frame in frames)


@pytest.mark.parametrize("container", ["ts", "mkv", "mp4", "mpg"])
def test_an_encoder_that_could_reorder_and_does_not(tmp_path: Path, container: str) -> None:
    """Its timestamps lie apart from those of decoding all the same."""
    codec = "mpeg2video" if container == "mpg" else "libx264"
    path = video(tmp_path / f"a.{container}", codec, 40, options={"bf": "2", "b_strategy": "1"})
    with av.open(path) as opened:
        first = next(p for p in opened.demux(video=0) if p.pts is not None)
        begin_s = float((first.pts or 0) * first.time_base)
    with open_source(path) as source:
        times = [frame.time or 0.0 for frame in source]
        assert getattr(source, "offsets", None) == pytest.approx([-begin_s])
    assert times == pytest.approx([i / 30 for i in range(40)], abs=0.0011)


@pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg here (Debian: ffmpeg)")
def test_an_mp4_that_was_copied_from_an_avi_has_its_times_in_order(tmp_path: Path) -> None:
    avi = video(tmp_path / "b.avi", options=REORDERED["libx264"])
    mp4 = tmp_path / "b.mp4"
    subprocess.run([str(FFMPEG), "-v", "quiet", "-i", avi, "-c", "copy", mp4], check=True)
    frames = frames_of(mp4)
    assert [frame.time for frame in frames] == pytest.approx([i / 30 for i in range(60)])


def test_damaged_packets_of_an_avi_leave_the_other_times_as_they_are(tmp_path: Path) -> None:
    path = video(tmp_path / "b.avi", count=62, options={**REORDERED["libx264"], "g": "15"})
    data = bytearray(path.read_bytes())
    at = [i for i in range(len(data)) if data[i : i + 4] == b"00dc"][15]
    data[at + 8 : at + 40] = b"\xff" * 32
    path.write_bytes(data)
    times = [frame.time or 0.0 for frame in frames_of(path)]
    assert len(times) >= 40
    assert min(np.diff(times)) > 0
    assert times[-1] == pytest.approx(61 / 30, abs=3 / 30)


@pytest.mark.parametrize("container", ["mp4", "mov", "mkv", "webm", "avi", "flv"])
@pytest.mark.parametrize("keyframes", ["1", "100"])
def test_a_pause_of_a_recording_keeps_its_length(
    tmp_path: Path, container: str, keyframes: str
) -> None:
    second = [i / 30 for i in range(30)]
    path = video(
        tmp_path / f"a.{container}",
        "libvpx" if container == "webm" else "libx264",
        times_s=[*second, *(61 + t for t in second)],
        options={"g": keyframes},
    )
    with open_source(path) as source:
        assert source.fps == pytest.approx(30)
        times = [frame.time or 0.0 for frame in source]
    assert times[-1] == pytest.approx(61 + 29 / 30, abs=0.1)
    assert max(np.diff(times)) == pytest.approx(60 + 1 / 30, abs=0.1)


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
def test_a_gap_of_hours_is_a_cut(tmp_path: Path, container: str) -> None:
    second = [i / 30 for i in range(30)]
    path = video(tmp_path / f"a.{container}", times_s=[*second, *(10_801 + t for t in second)])
    with open_source(path) as source:
        assert source.fps == pytest.approx(30)
        frames = list(source)
    assert frames[-1].time == pytest.approx(59 / 30, abs=0.002)
    assert [frame.index for frame in frames if frame.cut] == [30]


# Rates


def test_a_rate_that_timestamps_contradict_is_not_believed(tmp_path: Path) -> None:
    """An AVI that counts in 1/600 s for frames at 30 per second, and one that leaves most out."""
    model = SaliencyModel.open("unisal-dhf1k")
    claims = {
        "600.avi": video(
            tmp_path / "600.avi", "mpeg4", rate=600, times_s=[i / 30 for i in range(90)]
        ),
        "30.avi": video(tmp_path / "30.avi", "mpeg4", times_s=[i / 5 for i in range(40)]),
    }
    streams = [model.stream(path) for path in claims.values()]
    assert [stream.predictor.phases for stream in streams] == [5, 1]
    for stream, count in zip(streams, (90, 40), strict=True):
        assert stream.source.frame_count == count
        stream.close()


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
def test_slides_have_the_rate_of_slides(tmp_path: Path, container: str) -> None:
    path = video(tmp_path / f"a.{container}", times_s=[15.0 * i for i in range(8)])
    with open_source(path) as source:
        assert source.fps == pytest.approx(1 / 15, rel=0.2)
        frames = list(source)
    assert [frame.time for frame in frames] == pytest.approx([15.0 * i for i in range(8)], abs=0.01)
    assert not any(frame.cut for frame in frames)


BARE = {
    "h264": "libx264",
    "hevc": "libx265",
    "m2v": "mpeg2video",
    "y4m": "wrapped_avframe",
    "ivf": "libvpx",
}


@pytest.mark.parametrize("container", BARE)
@pytest.mark.parametrize("rate", [30, 50])
def test_a_bare_stream_has_the_rate_of_its_own_headers(
    tmp_path: Path, container: str, rate: int
) -> None:
    path = video(tmp_path / f"raw.{container}", BARE[container], 60, rate=rate)
    with open_source(path) as source:
        assert source.fps == rate
        assert [frame.time for frame in source][-1] == pytest.approx(59 / rate)


@pytest.mark.parametrize("name", ["raw.mjpeg", "raw.h264", "a.mp4", "b.avi"])
def test_a_rate_by_hand_overrules(tmp_path: Path, name: str) -> None:
    codec = "mjpeg" if name.endswith("mjpeg") else "libx264"
    if codec == "mjpeg":
        made = video(tmp_path / "made.mov", codec, 20)
        path = tmp_path / name
        with path.open("wb") as file, av.open(made) as container:
            for packet in container.demux(video=0):
                file.write(bytes(packet))
    else:
        path = video(tmp_path / name, codec, 20, rate=25)
    with open_source(path, fps=50) as source:
        assert source.fps == 50
        assert [frame.time for frame in source] == [i / 50 for i in range(20)]


# The film


STILL = ("mjpeg", (1200, 1600), 1)
FILM = ("libx264", (360, 640), 40)
SMALL = ("libx264", (180, 320), 40)


@pytest.mark.parametrize("container", ["mp4", "mov", "mkv", "nut", "avi"])
@pytest.mark.parametrize("order", [("still", "film"), ("film", "still")])
def test_a_still_does_not_hide_the_film(
    tmp_path: Path, container: str, order: tuple[str, str]
) -> None:
    kinds = {"still": STILL, "film": FILM}
    path = tracks(tmp_path / f"a.{container}", {name: kinds[name] for name in order})
    frames = frames_of(path)
    assert len(frames) == 40
    assert frames[0].image.shape == (360, 640, 3)


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_stills_do_not_hide_the_film(tmp_path: Path, container: str) -> None:
    kinds = {"stills": ("mjpeg", (1080, 1920), 2), "film": FILM}
    assert len(frames_of(tracks(tmp_path / f"a.{container}", kinds))) == 40


def test_of_two_films_the_larger_one_is_shown(tmp_path: Path) -> None:
    frames = frames_of(tracks(tmp_path / "a.mkv", {"small": SMALL, "film": FILM}))
    assert frames[0].image.shape == (360, 640, 3)
