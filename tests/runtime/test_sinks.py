"""What is written can be read again, whatever happened on the way."""

from __future__ import annotations

import io
import subprocess
import sys
import textwrap
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from salstream.runtime import Result, SalstreamError, UsageError
from salstream.runtime.overlay import to_8_bits
from salstream.runtime.segments import Segments
from salstream.runtime.sinks import MapFolder, OverlayVideo, Picture, RawFrames


def result(index: int, size: tuple[int, int] = (48, 64), time: float | None = None) -> Result:
    image = np.full((*size, 3), 10 * index % 256, np.uint8)
    saliency = np.linspace(0, 1, 24 * 32, dtype=np.float32).reshape(24, 32)
    return Result(index, time, image, saliency)


def frames_of(path: Path) -> list[av.VideoFrame]:
    with av.open(path) as container:
        return list(container.decode(video=0))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_an_overlay_video_has_every_frame_in_its_colours(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"overlay{suffix}"
    video = OverlayVideo(path, fps=25)
    results = [result(index, time=index / 25) for index in range(30)]
    for item in results:
        video.write(item)
    video.close()
    video.close()
    frames = frames_of(path)
    assert len(frames) == 30
    shown = frames[7].to_ndarray(format="bgr24").astype(float)
    assert np.abs(shown - results[7].overlay()).mean() < 6  # 4:2:0 and compression


def test_a_video_without_a_frame_leaves_no_file(tmp_path: Path) -> None:
    older = tmp_path / "older.mp4"
    older.write_bytes(b"what was there")
    for path in (tmp_path / "new.mp4", tmp_path / "new.mkv", older):
        video = OverlayVideo(path)
        assert path.exists(), "whether it can be written shows at once"
        video.close()
    segments = Segments(tmp_path / "piece.mp4", 10)
    segments.close()
    segments.close()
    assert list(tmp_path.iterdir()) == [older]
    assert older.read_bytes() == b"what was there"
    older.write_bytes(b"")  # not ours to remove
    OverlayVideo(older).close()
    assert older.exists()


def test_an_overlay_video_keeps_the_times_of_the_source(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.5, 0.5, 0.45, 1.0]  # variable, standing still, jumping back
    video = OverlayVideo(tmp_path / "o.mp4", fps=25)
    for index, time in enumerate(times):
        video.write(result(index, time=time))
    video.close()
    shown = [frame.time or 0.0 for frame in frames_of(tmp_path / "o.mp4")]
    assert shown == pytest.approx([0.0, 0.04, 0.5, 0.5, 0.5, 1.0], abs=0.003)


def test_odd_and_changing_sizes_make_one_video(tmp_path: Path) -> None:
    video = OverlayVideo(tmp_path / "o.mp4")
    for index, size in enumerate([(47, 63), (47, 63), (90, 120)]):
        video.write(result(index, size))
    video.close()
    assert {(f.height, f.width) for f in frames_of(tmp_path / "o.mp4")} == {(48, 64)}


def test_maps_are_written_at_the_frames_own_size(tmp_path: Path) -> None:
    item = result(3, (50, 70))
    MapFolder(tmp_path / "a" / "png").write(item)
    MapFolder(tmp_path / "npy", "npy").write(item)
    png = cv2.imread(str(tmp_path / "a" / "png" / "000003.png"), cv2.IMREAD_UNCHANGED)
    assert png is not None
    np.testing.assert_array_equal(png, to_8_bits(item.saliency))
    npy = np.load(tmp_path / "npy" / "000003.npy")
    assert npy.dtype == np.float32
    np.testing.assert_array_equal(npy, item.saliency)
    assert [p.name for p in (tmp_path / "npy").iterdir()] == ["000003.npy"]


def test_a_picture_shows_the_wanted_frame_or_the_last_before_it(tmp_path: Path) -> None:
    for wanted, shown in ((2, 2), (99, 4)):
        picture = Picture(tmp_path / "p.png", wanted)
        for index in range(5):
            picture.write(result(index))
        picture.close()
        image = cv2.imread(str(tmp_path / "p.png"))
        assert image is not None
        assert image.shape == (48, 128, 3)
        assert image[0, 0, 0] == 10 * shown


def test_raw_frames_are_bgr_bytes() -> None:
    out = io.BytesIO()
    raw = RawFrames(out)
    raw.write(result(0))
    raw.write(result(1, (96, 128)))
    raw.close()
    assert len(out.getvalue()) == 2 * 48 * 64 * 3
    assert out.getvalue()[: 48 * 64 * 3] == result(0).overlay().tobytes()


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="expected one of the suffixes"):
        OverlayVideo(tmp_path / "overlay.gif")
    with pytest.raises(UsageError, match="unknown map format 'jpg'; known: png, npy"):
        MapFolder(tmp_path, "jpg")  # type: ignore[arg-type]
    with pytest.raises(SalstreamError, match="cannot write"):
        OverlayVideo(tmp_path / "file" / "o.mp4")
    with pytest.raises(SalstreamError, match="cannot write maps to"):
        MapFolder(tmp_path / "file" / "maps")


# A limit on the size of files makes writing fail like a full disk does.
_FULL_DISK = """
    import resource, sys
    from pathlib import Path
    import numpy as np
    from salstream.runtime import Result, SalstreamError
    from salstream.runtime.sinks import MapFolder, OverlayVideo

    folder, limit = Path(sys.argv[1]), int(sys.argv[2])
    kind = sys.argv[3]
    sink = MapFolder(folder, "npy") if kind == "maps" else OverlayVideo(folder / f"o.{kind}")
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    rng = np.random.default_rng(0)
    try:
        for index in range(200):
            size = (240, 320) if index < 100 or kind != "maps" else (480, 640)
            image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            sink.write(Result(index, index / 30, image, np.zeros((24, 32), np.float32)))
    except SalstreamError as error:
        print("write:", error)
    try:
        sink.close()
    except SalstreamError as error:
        print("close:", error)
"""


def run_until_full(folder: Path, limit: int, kind: str) -> str:
    command = [sys.executable, "-c", textwrap.dedent(_FULL_DISK), str(folder), str(limit), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_video_stays_playable_when_the_process_is_killed(tmp_path: Path, suffix: str) -> None:
    """All but its last second or two, however little there is."""
    path = tmp_path / f"o.{suffix}"
    program = f"""
        import os
        from pathlib import Path
        import numpy as np
        from salstream.runtime import Result
        from salstream.runtime.sinks import OverlayVideo
        video = OverlayVideo(Path({str(path)!r}), 30.0)
        still = np.zeros((64, 96, 3), np.uint8)
        for index in range(150):
            video.write(Result(index, index / 30, still, np.ones((8, 12), np.float32)))
        os.kill(os.getpid(), 9)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False, timeout=60)
    assert len(frames_of(path)) >= 90


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_video_stays_playable_when_the_disk_is_full(tmp_path: Path) -> None:
    assert "cannot write" in run_until_full(tmp_path, 3_000_000, "mp4")
    assert (tmp_path / "o.mp4").stat().st_size <= 3_000_000
    capture = cv2.VideoCapture(str(tmp_path / "o.mp4"))
    playable = 0
    while capture.read()[0]:
        playable += 1
    assert playable > 60


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("limit", [0, 600, 5_000])
def test_a_disk_that_is_full_at_once_is_one_sentence(
    tmp_path: Path, suffix: str, limit: int
) -> None:
    """Be it at the header or the first packets."""
    said = run_until_full(tmp_path, limit, suffix).splitlines()
    assert said[0].startswith(f"write: cannot write {tmp_path / f'o.{suffix}'}: ")
    assert len(said) <= 2


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_maps_stay_whole_when_the_disk_is_full(tmp_path: Path) -> None:
    assert "cannot write" in run_until_full(tmp_path, 500_000, "maps")
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{n:06d}.npy" for n in range(100)]
    assert np.load(tmp_path / "000099.npy").shape == (240, 320)
