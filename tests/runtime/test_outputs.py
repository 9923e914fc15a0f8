"""What other programs read: points as JSON, segments of video, lists of cameras."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from salstream.runtime import Result, SalstreamError, UsageError
from salstream.runtime.live.listing import read_cameras
from salstream.runtime.live.points import JsonLines, points
from salstream.runtime.outputs import Outputs
from salstream.runtime.segments import Segments


def result_of(
    saliency: NDArray[np.float32],
    size: tuple[int, int] = (100, 200),
    index: int = 0,
    seconds: float | None = 0.0,
    letterbox: tuple[int, int] | None = None,
) -> Result:
    frame = np.zeros((*size, 3), np.uint8)
    return Result(index, seconds, frame, saliency, letterbox=letterbox)


# Points


def test_peak_centre_and_regions_in_pixels_of_the_frame() -> None:
    saliency = np.zeros((10, 20), np.float32)
    saliency[2:4, 5:8] = 0.6
    saliency[3, 6] = 1.0
    saliency[8, 18] = 0.9
    saliency[0, 0] = 0.4  # below the threshold
    said = points(result_of(saliency, index=7, seconds=0.25), 0.5)
    total = 5 * 0.6 + 1.0 + 0.9 + 0.4
    assert (said["index"], said["time"], said["width"], said["height"]) == (7, 0.25, 200, 100)
    assert said["peak"] == {"x": 65.0, "y": 35.0, "value": 1.0}
    assert said["regions"] == [
        {"x": 50.0, "y": 20.0, "width": 30.0, "height": 20.0, "mass": round(4.0 / total, 4)},
        {"x": 180.0, "y": 80.0, "width": 10.0, "height": 10.0, "mass": round(0.9 / total, 4)},
    ]
    json.dumps(said)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), threshold=st.floats(0.05, 1))
def test_points_agree_with_plain_sums(seed: int, threshold: float) -> None:
    saliency = np.random.default_rng(seed).random((9, 14), np.float32)
    said = points(result_of(saliency, (9, 14)), threshold)
    ys, xs = np.mgrid[:9, :14] + 0.5
    total = saliency.sum(dtype=np.float64)
    assert said["centre"]["x"] == pytest.approx((saliency * xs).sum() / total, abs=0.01)
    assert said["centre"]["y"] == pytest.approx((saliency * ys).sum() / total, abs=0.01)
    mass = saliency[saliency >= np.float32(threshold)].sum(dtype=np.float64) / total
    regions = said["regions"]
    assert sum(region["mass"] for region in regions) == pytest.approx(mass, abs=0.01)
    assert regions == sorted(regions, key=lambda region: -region["mass"])
    for region in regions:
        assert 0 <= region["x"] < region["x"] + region["width"] <= 14
        assert 0 <= region["y"] < region["y"] + region["height"] <= 9


def test_a_map_of_zeros_and_a_frame_in_a_letterbox() -> None:
    said = points(result_of(np.zeros((4, 6), np.float32)))
    assert (said["centre"], said["regions"]) == (None, [])
    # a frame of 100 x 100 in the middle of an input of 64 x 128: columns 32 to 95
    saliency = np.zeros((32, 64), np.float32)
    saliency[16, 16] = 1.0  # the first column of the frame
    said = points(result_of(saliency, (100, 100), letterbox=(64, 128)))
    assert said["peak"]["x"] == pytest.approx(100 / 32 / 2, abs=0.01)
    assert said["peak"]["y"] == pytest.approx(16.5 / 32 * 100, abs=0.01)


def test_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "points.jsonl"
    saliency = np.ones((4, 6), np.float32)
    for name in ("door", "yard"):  # a second run adds to the file
        lines = JsonLines(path, name)
        lines.write(result_of(saliency))
        lines.close()
        lines.close()
    read = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["camera"] for line in read] == ["door", "yard"]
    stream = io.BytesIO()
    lines = JsonLines(stream, "door")
    lines.write(result_of(saliency))
    lines.close()
    assert json.loads(stream.getvalue())["camera"] == "door"
    with pytest.raises(UsageError, match="threshold"):
        JsonLines(stream, "door", 0)
    with pytest.raises(SalstreamError, match="cannot write"):
        JsonLines(tmp_path, "door")


# Segments


def written(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def frames_in(path: Path) -> list[float]:
    with av.open(path) as container:
        return [frame.time or 0.0 for frame in container.decode(video=0)]


def test_segments_hold_every_frame_from_their_own_beginning(tmp_path: Path) -> None:
    segments = Segments(tmp_path / "door.mp4", 1.0)
    for index in range(25):
        segments.write(result_of(np.ones((4, 6), np.float32), (32, 48), index, 100 + index / 10))
        time.sleep(0.002)  # their names are times in milliseconds
    segments.close()
    times = [frames_in(path) for path in written(tmp_path)]
    assert [len(pieces) for pieces in times] == [10, 10, 5]
    for piece in times:
        assert piece == pytest.approx([n / 10 for n in range(len(piece))], abs=0.01)


def test_old_and_large_segments_go_and_other_files_stay(tmp_path: Path) -> None:
    old = tmp_path / "door-20200101T000000.000Z.mp4"
    others = [
        tmp_path / name
        for name in ("door.mp4", "yard-20200101T000000.000Z.mp4", "door-20200101.mp4", "notes.txt")
    ]
    for path in (old, *others):
        path.write_bytes(b"x" * 1000)
        os.utime(path, (0, 0))
    Segments(tmp_path / "door.mp4", 10, keep_hours=1).close()
    assert not old.exists()
    assert all(path.exists() for path in others)

    noise = np.random.default_rng(0)
    limit = 60_000
    segments = Segments(tmp_path / "full.mp4", 0.5, keep_gb=limit / 1e9)
    for index in range(60):
        result = Result(
            index,
            index / 10,
            noise.integers(0, 256, (64, 96, 3), np.uint8),
            np.zeros((4, 6), np.float32),
        )
        segments.write(result)
    segments.close()
    pieces = [path for path in written(tmp_path) if path.name.startswith("full")]
    assert 1 <= len(pieces) < 12
    sizes = [path.stat().st_size for path in pieces]
    assert sum(sizes) <= max(limit, sizes[-1])


def test_segments_age_while_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of a camera that is away do."""
    monkeypatch.setattr("salstream.runtime.segments._CHECK_S", 0.05)
    old = tmp_path / "door-20200101T000000.000Z.mp4"

    def put() -> None:
        old.write_bytes(b"x")
        os.utime(old, (0, 0))

    segments = Segments(tmp_path / "door.mp4", 10, keep_hours=1)
    segments.write(result_of(np.ones((4, 6), np.float32)))
    (current,) = written(tmp_path)
    os.utime(current, (0, 0))
    for _ in range(2):
        put()
        end = time.monotonic() + 5
        while old.exists():
            assert time.monotonic() < end, "it is still there"
            time.sleep(0.01)
    assert current.exists(), "it is being written"
    segments.close()
    segments.close()
    put()
    time.sleep(0.2)
    assert old.exists(), "whoever is closed removes nothing more"
    assert not [t for t in threading.enumerate() if t.name == "salstream-segments"]


@pytest.mark.parametrize(
    ("limits", "threads"), [({}, 0), ({"keep_gb": 1}, 1), ({"keep_hours": 1}, 1)]
)
def test_only_segments_with_a_limit_have_a_thread(
    tmp_path: Path, limits: dict[str, Any], threads: int
) -> None:
    segments = Segments(tmp_path / "door.mp4", 10, **limits)
    ours = [thread for thread in threading.enumerate() if thread.name == "salstream-segments"]
    segments.close()
    assert len(ours) == threads


def test_limits_of_segments(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="length"):
        Segments(tmp_path / "a.mp4", 0)
    with pytest.raises(UsageError, match="suffixes"):
        Segments(tmp_path / "a.avi", 1)


# Lists of cameras


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (Outputs(save="a/x.mp4", jsonl="a/../a/x.mp4"), "--save and --jsonl both want"),
        (Outputs(maps="a", conspicuity="a"), "--maps and --conspicuity both want a"),
        (Outputs(save="{camera}.mp4", jsonl="door.mp4"), "--save and --jsonl both want door.mp4"),
    ],
)
def test_outputs_do_not_overwrite_each_other(outputs: Outputs, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        outputs.check({"door": "0"}, as_json=False)
    Outputs(jsonl="all.jsonl").check({"door": "0", "yard": "1"}, as_json=False)


def test_cameras_from_the_command_line_and_a_file(tmp_path: Path) -> None:
    listing = tmp_path / "cameras.txt"
    listing.write_text(
        "# the house\n\ndoor = rtsp://me:p#w@host/1?x=y # in front\n  rtsp://host/2\n"
        "v4l2src device=/dev/video0 ! videoconvert ! appsink\n"
    )
    assert read_cameras(["0", "roof=http://host/?a=b"], listing) == {
        "camera1": "0",
        "roof": "http://host/?a=b",
        "door": "rtsp://me:p#w@host/1?x=y",
        "camera4": "rtsp://host/2",
        "camera5": "v4l2src device=/dev/video0 ! videoconvert ! appsink",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = 0\n\na = 1\n", ("line 3", "two cameras", "'a'")),
        ("a = 0\nmy door = 1\n", ("line 2", "'my door = 1'", "name = source")),
        ("a = \n", ("line 1", "name = source")),
        ("yard rtsp://me:geheim@host\n", ("line 1", "yard rtsp://me:***@host", "name = source")),
        ("a.b = rtsp://me:geheim@host\n", ("line 1", "name = source")),
        ("a = rtps://me:geheim@host\n", ("line 1", "rtps://me:***@host", "rtsp://")),
        ("a = 0\nb = nothing.mp4\n", ("line 2", "nothing.mp4")),
        ("# nothing\n", ("no source", "cameras.txt")),
    ],
)
def test_lists_with_a_bad_line(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    listing = tmp_path / "cameras.txt"
    listing.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_cameras([], listing)
    for word in words:
        assert word in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_no_camera_and_no_list(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no source"):
        read_cameras([])
    with pytest.raises(UsageError, match="cannot be read"):
        read_cameras([], tmp_path / "missing.txt")
    with pytest.raises(UsageError, match=r"b: nothing\.mp4 does not exist"):
        read_cameras(["a=0", "b=nothing.mp4"])
    with pytest.raises(UsageError, match=r"'do\.or=rtsp://host' is not a camera: .* letters"):
        read_cameras(["do.or=rtsp://host"])
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not text"):
        read_cameras([], binary)


@pytest.mark.parametrize(
    ("outputs", "word"),
    [
        (Outputs(save="-", jsonl="-"), "standard output"),
        (Outputs(save="out.mp4"), "{camera}"),
        (Outputs(maps="maps"), "{camera}"),
        (Outputs(save="{camera}.mp4", keep_gb=1), "--segment-seconds"),
        (Outputs(segment_s=10), "--save"),
        (Outputs(show=True), "--show"),
        (Outputs(form="gif"), "gif"),
        (Outputs(threshold=0), "threshold"),
        (Outputs(threshold=1.01), "1.01"),
        (Outputs(threshold=float("nan")), "nan"),
    ],
)
def test_outputs_that_get_in_each_other_s_way(outputs: Outputs, word: str) -> None:
    with pytest.raises(UsageError) as caught:
        outputs.check({"door": "0", "yard": "1"}, as_json=False)
    assert word in str(caught.value)


@pytest.mark.parametrize("option", ["save", "maps", "conspicuity", "jsonl"])
@pytest.mark.parametrize("typo", ["{camara}", "{}", "{Camera}", "{camera }", "{camera}-{name}"])
@pytest.mark.parametrize("sources", [{"door": "0"}, {"door": "0", "yard": "1"}])
def test_a_placeholder_that_stands_for_nothing(
    option: str, typo: str, sources: dict[str, str]
) -> None:
    outputs = Outputs(**{option: f"{{camera}}/out-{typo}.mp4"})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=rf"--{option} .* stands for nothing; only {{camera}}"):
        outputs.check(sources, as_json=False)


@pytest.mark.parametrize(
    "outputs",
    [
        Outputs(save="{camera}.mp4"),
        Outputs(save="deep/../{camera}.mp4"),
        Outputs(jsonl="b.mp4"),
        Outputs(jsonl="{camera}.mp4"),
        Outputs(maps="{camera}"),
        Outputs(conspicuity="{camera}"),
    ],
)
@pytest.mark.parametrize("names", [("a", "b"), ("b", "a"), ("other", "a")])
def test_no_camera_writes_over_a_source(
    outputs: Outputs, names: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Be it its own source or another camera's."""
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b", "deep"):
        (tmp_path / folder).mkdir()
    sources = ("a", "b") if outputs.maps or outputs.conspicuity else ("a.mp4", "b.mp4")
    for file in ("a.mp4", "b.mp4"):
        (tmp_path / file).touch()
    named = dict(zip(names, sources, strict=True))
    with pytest.raises(UsageError, match="would be written over"):
        outputs.check(named, as_json=False)


def test_outputs_beside_the_sources_are_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("a.mp4", "b.mp4", "points.jsonl", "out-b.mp4"):
        (tmp_path / file).touch()
    outputs = Outputs(save="out-{camera}.mp4", maps="maps/{camera}", jsonl="points.jsonl")
    outputs.check({"a": "a.mp4", "b": "b.mp4"}, as_json=False)
    Outputs(save="{camera}/{camera}.mp4", jsonl="a{b.jsonl").check({"a": "a.mp4"}, as_json=False)
    pipeline = "videotestsrc ! " + "videoconvert ! " * 50 + "appsink"
    outputs.check({"a": "a.mp4", "b": pipeline}, as_json=False)
