"""`salstream prepare`: every layout, in line, resumable, and honest about what is wrong."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

import trees
from clips import read_number
from reference import data
from salstream.runtime import GraphSpec, SalstreamError, UsageError
from salstream.runtime.cli import load_commands
from salstream.runtime.preprocess import prepare
from salstream.runtime.sources import open_source
from salstream.training.data.packed import PackedVideo, open_packed
from salstream.training.data.prepare import Options, check_dataset, prepare_dataset
from salstream.training.data.readers import find_recordings

SIZE = (48, 64)
QUICK = Options(size=SIZE)
Splits = dict[str, list[str]]

LAYOUTS: dict[str, tuple[str, Callable[[Path], None], Splits]] = {
    "DHF1K as downloaded": (
        "dhf1k",
        trees.dhf1k_downloaded,
        {"train": ["0001"], "val": ["0601"], "test": ["0701"]},
    ),
    "DHF1K as UNISAL has it": (
        "dhf1k",
        trees.dhf1k_unisal,
        {"train": ["0001"], "val": ["0601"], "test": []},
    ),
    "DHF1K as HD2S has it": (
        "dhf1k",
        trees.dhf1k_hd2s,
        {"train": ["0001"], "val": ["0601"], "test": []},
    ),
    "DHF1K as ViNet has it": (
        "dhf1k",
        trees.dhf1k_vinet,
        {"train": ["0001"], "val": ["0601"], "test": []},
    ),
    "LEDOV": ("ledov", trees.ledov, {"train": ["a"], "val": ["b"], "test": ["c"]}),
    "LEDOV, MATLAB 7.3": (
        "ledov",
        partial(trees.ledov, version="7.3"),
        {"train": ["a"], "val": ["b"], "test": ["c"]},
    ),
    "DIEM in images": ("diem", trees.diem_images, {"train": ["a"], "val": [], "test": ["b"]}),
    "folders": (
        "folder",
        trees.plain_videos,
        {"train": ["train-clip"], "val": ["val-clip"], "test": ["test-clip"]},
    ),
}
SEEDED: dict[str, tuple[str, Callable[[Path], None], int]] = {
    "UCF Sports": ("ucfsports", trees.ucfsports, 3),
    "Hollywood-2": ("hollywood2", trees.hollywood2, 6),
    "DIEM as downloaded": ("diem", trees.diem, 5),
    "OSIE": ("osie", trees.osie, 5),
    "OSIE as downloaded": ("osie", trees.osie_matlab, 5),
    "remega": ("remega", trees.remega, 5),
    "videos with a table": ("folder", trees.remega, 5),
    "images with a table": ("folder", trees.osie, 5),
    "images with maps": ("folder", trees.plain_images, 5),
}


def assert_in_line(video: PackedVideo, frames: int = 6) -> None:
    """Every frame's own number says where its people look."""
    assert len(video) == frames
    for index, frame in enumerate(video.frames):
        number = read_number(np.ascontiguousarray(frame))
        assert number is not None
        if frames > 1:
            assert number == index
        if video.maps is None:
            continue
        y, x = trees.place(number)
        assert video.fixation_size == trees.SIZE
        points = video.fixations(index)
        assert len(points) == 0 or (points == (y, x)).all()
        peak = np.unravel_index(video.maps[index].argmax(), SIZE)
        assert abs(peak[0] - y * SIZE[0] / trees.SIZE[0]) <= 1
        assert abs(peak[1] - x * SIZE[1] / trees.SIZE[1]) <= 1
        assert video.maps[index].max() == 255


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_with_splits_of_their_own(layout: str, tmp_path: Path) -> None:
    dataset, build, splits = LAYOUTS[layout]
    build(tmp_path / "raw")
    report = prepare_dataset(dataset, tmp_path / "raw", tmp_path / "packed", QUICK)
    packed = open_packed(tmp_path / "packed")
    assert not packed.static
    for split, names in splits.items():
        assert [video.name for video in packed.videos(split)] == names
    for video in packed.videos("all"):
        assert video.fps is not None
        assert_in_line(video)
        has_fixations = "HD2S" not in layout and video.labelled
        assert len(video.fixations(2)) == (1 if has_fixations else 0)
    assert report.counts["unlabelled"] == (layout == "DHF1K as downloaded")
    assert report.counts["short"] == report.recordings


@pytest.mark.parametrize("layout", SEEDED)
def test_layouts_that_are_split_by_seed(layout: str, tmp_path: Path) -> None:
    dataset, build, count = SEEDED[layout]
    build(tmp_path / "raw")
    found = find_recordings(dataset, tmp_path / "raw")
    again = find_recordings(dataset, tmp_path / "raw")
    for a, b in zip(found.recordings, again.recordings, strict=True):
        assert (a.name, a.split) == (b.name, b.split)
    prepare_dataset(dataset, tmp_path / "raw", tmp_path / "packed", QUICK)
    packed = open_packed(tmp_path / "packed")
    assert len(packed.videos("all")) == count
    if count == 5:
        assert [len(packed.videos(split)) for split in ("train", "val", "test")] == [3, 1, 1]
    for video in packed.videos("all"):
        assert_in_line(video, 1 if packed.static else 6)
        assert len(video.fixations(0)) >= 1


def test_people_are_told_apart_where_the_dataset_does(tmp_path: Path) -> None:
    trees.remega(tmp_path / "raw", videos=1)
    prepare_dataset("remega", tmp_path / "raw", tmp_path / "packed", QUICK)
    (video,) = open_packed(tmp_path / "packed").videos("all")
    assert video.fixations_by_subject(3)[:, 0].tolist() == [1, 2, 3]


def test_salicon_has_its_own_size_and_splits(tmp_path: Path) -> None:
    trees.salicon(tmp_path / "raw")
    prepare_dataset("salicon", tmp_path / "raw", tmp_path / "packed", QUICK)
    packed = open_packed(tmp_path / "packed")
    assert packed.static
    for split, number in (("train", 1), ("val", 2)):
        (picture,) = packed.videos(split)
        y, x = trees.place(number)
        assert picture.fixation_size == (480, 640)
        assert picture.fixations_by_subject(0).tolist() == [[0, 5 * y, 5 * x], [1, 5 * y, 5 * x]]
        assert read_number(np.ascontiguousarray(picture.frames[0])) == number
    (picture,) = packed.videos("test")
    assert picture.maps is None


def test_shots_of_a_video_stay_together(tmp_path: Path) -> None:
    trees.hollywood2(tmp_path, frames=1)
    recordings = find_recordings("hollywood2", tmp_path).recordings
    splits = {recording.name: recording.split for recording in recordings}
    assert splits["actioncliptrain00001_1"] == splits["actioncliptrain00001_2"]
    assert Counter(splits.values())["test"] == 3
    assert set(splits.values()) == {"train", "val", "test"}
    rows = check_dataset("hollywood2", tmp_path).rows
    assert [rows[split]["expected"] for split in ("train", "val", "test")] == [740, 83, 884]
    assert sum(row["found"] or 0 for row in rows.values()) < len(recordings)  # videos, not shots


def test_official_splits_are_by_number(tmp_path: Path) -> None:
    for number in (1, 600, 601, 700, 701, 1000):
        trees.image(tmp_path / f"annotation/{number:04d}/images/0001.png", 0)
    splits = [recording.split for recording in find_recordings("dhf1k", tmp_path).recordings]
    assert splits == ["train", "train", "val", "val", "test", "test"]


def test_frames_are_those_that_a_graph_is_given(tmp_path: Path) -> None:
    """The very bytes that the runtime hands to a model, from a real video."""
    root = tmp_path / "raw"
    (root / "videos").mkdir(parents=True)
    real = data("remega") / "videos" / "BlowingBubbles.avi"
    (root / "videos" / real.name).symlink_to(real)
    shutil.copy(data("remega") / "fixations.csv", root)
    report = prepare_dataset("remega", root, tmp_path / "packed")
    (video,) = open_packed(tmp_path / "packed").videos("all")
    assert (len(video), video.fps, video.fixation_size) == (500, 50.0, (240, 416))
    spec = GraphSpec(model="m", domain="", height=128, width=192)
    with open_source(real) as source:
        for frame in source:
            if frame.index % 50 == 0:
                assert np.array_equal(video.frames[frame.index], prepare(frame, spec))
            if frame.index > 200:
                break
    rows = [line.split(",") for line in (root / "fixations.csv").read_text().splitlines()[1:]]
    for index in (0, 123, 400):
        now = index * 1000 / 50
        looking = {
            row[1]
            for row in rows
            if row[0] == "BlowingBubbles" and float(row[2]) <= now < float(row[2]) + float(row[3])
        }
        assert sorted(map(str, video.fixations_by_subject(index)[:, 0])) == sorted(looking)
    assert report.counts["nobody"] == np.count_nonzero(~video.fixated)


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    trees.remega(tmp_path / "raw", videos=8, frames=40)
    prepare_dataset("remega", tmp_path / "raw", tmp_path / "whole", QUICK)
    program = Path(sys.executable).with_name("salstream")
    packed = tmp_path / "packed"
    options = ["--size", "48x64", "--workers", "1"]
    running = subprocess.Popen(
        [program, "prepare", "remega", tmp_path / "raw", "-o", packed, *options],
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while not list(packed.glob("packs/*/pack.json")):
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    there = {path: path.stat().st_mtime_ns for path in packed.glob("packs/*/pack.json")}
    assert 1 <= len(there) < 8
    with pytest.raises(SalstreamError, match="goes on where it was"):
        open_packed(packed)
    report = prepare_dataset("remega", tmp_path / "raw", packed, QUICK)
    assert (report.recordings, report.packed) == (8, 8 - len(there))
    assert {path: path.stat().st_mtime_ns for path in there} == there
    wanted = open_packed(tmp_path / "whole").videos("all")
    for got, want in zip(open_packed(packed).videos("all"), wanted, strict=True):
        assert (got.name, got.split) == (want.name, want.split)
        assert np.array_equal(got.frames, want.frames)
        assert got.maps is not None
        assert want.maps is not None
        assert np.array_equal(got.maps, want.maps)
    assert not (packed / "parts").exists()


def test_nothing_is_in_two_splits_when_recordings_are_added(tmp_path: Path) -> None:
    for count in (4, 9):
        shutil.rmtree(tmp_path / "raw", ignore_errors=True)
        trees.remega(tmp_path / "raw", videos=count, frames=2)
        prepare_dataset("remega", tmp_path / "raw", tmp_path / "packed", QUICK)
        packed = open_packed(tmp_path / "packed").videos("all")
        assert [video.name for video in packed] == [*"abcdefghij"[:count]]
        found = find_recordings("remega", tmp_path / "raw").recordings
        assert [video.split for video in packed] == [recording.split for recording in found]


def test_another_dataset_is_not_mixed_in(tmp_path: Path) -> None:
    trees.osie(tmp_path / "raw")
    prepare_dataset("osie", tmp_path / "raw", tmp_path / "packed", QUICK)
    with pytest.raises(UsageError, match="was prepared with size"):
        prepare_dataset("osie", tmp_path / "raw", tmp_path / "packed", Options(size=(32, 32)))
    with pytest.raises(UsageError, match="was prepared with name osie"):
        prepare_dataset("folder", tmp_path / "raw", tmp_path / "packed", QUICK)
    with pytest.raises(UsageError, match="holds other files"):
        prepare_dataset("osie", tmp_path / "raw", tmp_path / "raw", QUICK)


def test_a_damaged_image_is_named_or_left_out(tmp_path: Path, caplog: Any) -> None:
    trees.dhf1k_unisal(tmp_path / "raw")
    damaged = tmp_path / "raw/annotation/0001/images/0003.png"
    damaged.write_bytes(damaged.read_bytes()[:40])
    with pytest.raises(SalstreamError, match=r"0001/images/0003\.png cannot be decoded"):
        prepare_dataset("dhf1k", tmp_path / "raw", tmp_path / "packed", QUICK)
    with pytest.raises(SalstreamError, match="not finished"):
        open_packed(tmp_path / "packed")
    skip = Options(size=SIZE, on_error="skip")
    report = prepare_dataset("dhf1k", tmp_path / "raw", tmp_path / "packed", skip)
    assert report.counts["damaged"] == 1
    assert "0003.png" in caplog.text
    (video,) = open_packed(tmp_path / "packed").videos("train")
    numbers = [read_number(np.ascontiguousarray(frame)) for frame in video.frames]
    assert numbers == [0, 1, 3, 4, 5]
    for index, number in enumerate(numbers):
        assert number is not None
        assert video.fixations(index).tolist() == [list(trees.place(number))]


def test_a_damaged_picture_among_images_is_left_out_alone(tmp_path: Path) -> None:
    trees.osie(tmp_path / "raw")
    (tmp_path / "raw/images/1003.jpg").write_bytes(b"no image")
    with pytest.raises(SalstreamError, match=r"1003\.jpg cannot be decoded"):
        prepare_dataset("osie", tmp_path / "raw", tmp_path / "packed", QUICK)
    skip = Options(size=SIZE, on_error="skip")
    report = prepare_dataset("osie", tmp_path / "raw", tmp_path / "packed", skip)
    assert list(report.left_out) == ["1003.jpg"]
    names = [video.name for video in open_packed(tmp_path / "packed").videos("all")]
    assert names == ["1001.jpg", "1002.jpg", "1004.jpg", "1005.jpg"]
    for video in open_packed(tmp_path / "packed").videos("all"):
        assert_in_line(video, 1)
    again = prepare_dataset("osie", tmp_path / "raw", tmp_path / "packed", skip)
    assert (again.packed, again.recordings, list(again.left_out)) == (0, 4, ["1003.jpg"])


@pytest.mark.parametrize("kind", ["images", "maps", "fixation"])
def test_counts_that_differ_are_refused(kind: str, tmp_path: Path) -> None:
    trees.dhf1k_unisal(tmp_path / "raw")
    folder = tmp_path / "raw/annotation/0601" / kind
    (folder / "0006.png").unlink()
    prepare_dataset("dhf1k", tmp_path / "raw", tmp_path / "one", QUICK)
    (folder / "0005.png").unlink()
    with pytest.raises(SalstreamError, match=r"0601 has \d frames, but .*: expected one for each"):
        prepare_dataset("dhf1k", tmp_path / "raw", tmp_path / "two", QUICK)
    skip = Options(size=SIZE, on_error="skip")
    report = prepare_dataset("dhf1k", tmp_path / "raw", tmp_path / "two", skip)
    assert list(report.left_out) == ["0601"]
    assert [video.name for video in open_packed(tmp_path / "two").videos("all")] == ["0001"]


def test_a_frame_whose_map_is_missing_is_no_target(tmp_path: Path) -> None:
    trees.dhf1k_unisal(tmp_path / "raw")
    for kind in ("maps", "fixation"):
        (tmp_path / "raw/annotation/0001" / kind / "0003.png").unlink()
    report = prepare_dataset("dhf1k", tmp_path / "raw", tmp_path / "packed", QUICK)
    assert report.counts["nobody"] == 1
    (video,) = open_packed(tmp_path / "packed").videos("train")
    assert video.fixated.tolist() == [True, True, False, True, True, True]
    assert video.fixations(3).tolist() == [list(trees.place(3))]


def test_fixations_outside_of_the_frame_are_left_out_and_counted(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    trees.osie(root, images=2)
    rows = [line.split(",") for line in (root / "fixations.csv").read_text().splitlines()]
    rows += [["1001.jpg", "4", "100", x, y] for x, y in (("-0.5", "3"), ("128", "3"), ("5", "96"))]
    trees.table(root / "fixations.csv", rows[0], rows[1:])
    report = prepare_dataset("osie", root, tmp_path / "packed", QUICK)
    assert report.counts["outside"] == 3
    picture = open_packed(tmp_path / "packed").videos("all")[0]
    assert len(picture.fixations(0)) == 3


def test_a_video_that_breaks_off_is_left_out_whole(tmp_path: Path) -> None:
    trees.remega(tmp_path / "raw", videos=3, frames=60)
    broken = tmp_path / "raw/videos/b.avi"
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    with pytest.raises(SalstreamError, match=r"b\.avi.*--on-error skip"):
        prepare_dataset("remega", tmp_path / "raw", tmp_path / "packed", QUICK)
    skip = Options(size=SIZE, on_error="skip")
    report = prepare_dataset("remega", tmp_path / "raw", tmp_path / "packed", skip)
    assert list(report.left_out) == ["b"]
    assert [video.name for video in open_packed(tmp_path / "packed").videos("all")] == ["a", "c"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_ends_the_run_even_when_errors_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees.osie(tmp_path / "raw", images=40)
    opened = Path.open

    def full(self: Path, *args: Any, **kwargs: Any) -> Any:
        return opened(Path("/dev/full") if self.name == "frames.npy" else self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(SalstreamError, match="no space left on device"):
        prepare_dataset("osie", tmp_path / "raw", tmp_path / "packed", Options(on_error="skip"))
    assert not list(tmp_path.glob("packed/pa*/*"))


def test_letterboxed_maps_lie_where_the_frame_lies(tmp_path: Path) -> None:
    trees.osie(tmp_path / "raw", images=1)
    options = Options(size=(64, 128), fit="letterbox")  # the frame is 96x128, so 64x85 of it
    prepare_dataset("osie", tmp_path / "raw", tmp_path / "packed", options)
    (picture,) = open_packed(tmp_path / "packed").videos("all")
    assert picture.maps is not None
    assert not picture.maps[0, :, :21].any()
    assert not picture.frames[0, :, :21].any()
    y, x = trees.place(0)
    peak = np.unravel_index(picture.maps[0].argmax(), (64, 128))
    assert abs(peak[0] - y * 64 / 96) <= 1
    assert abs(peak[1] - (21 + x * 85 / 128)) <= 1


def test_check_says_what_is_missing(tmp_path: Path) -> None:
    trees.dhf1k_downloaded(tmp_path, frames=20)
    trees.dhf1k_unisal(tmp_path, frames=6)  # 0001 and 0601 now have six images each
    shutil.rmtree(tmp_path / "annotation/0601/maps")
    shutil.rmtree(tmp_path / "annotation/0601/fixation")
    check = check_dataset("dhf1k", tmp_path)
    assert check.rows["train"] == {
        "expected": 600,
        "found": 1,
        "labelled": 1,
        "frames": 6,
        "short": 1,
    }
    assert check.rows["val"]["labelled"] == 0
    assert check.rows["test"] == {
        "expected": 300,
        "found": 1,
        "labelled": 0,
        "frames": 20,
        "short": 0,
    }
    assert any("0001 has 6 frames, but 20 maps and 20 fixation maps" in p for p in check.problems)


def test_the_command_line(tmp_path: Path) -> None:
    trees.osie(tmp_path / "raw")
    app, runner = load_commands(), CliRunner()
    raw = str(tmp_path / "raw")
    checked = runner.invoke(app, ["prepare", "osie", raw, "--check", "--json"])
    assert json.loads(checked.output)["rows"]["train"]["found"] == 3
    shown = runner.invoke(app, ["prepare", "osie", raw, "--check"])
    assert "shorter than 16" in shown.output
    packed = runner.invoke(app, ["prepare", "osie", raw, "-o", str(tmp_path / "packed")])
    assert "5 recordings, 5 of them packed now" in packed.output
    for arguments, said in (
        (["prepare", "osie", raw], "say where to"),
        (["prepare", "osie", raw, "-o", "x", "--on-error", "ask"], "known: fail, skip"),
        (["prepare", "osie", raw, "-o", "x", "--sigma", "12.7"], "share of the frame's height"),
        (["prepare", "osie", raw, "-o", "x", "--fit", "foo"], "known: stretch, letterbox"),
        (["prepare", "osie", raw, "-o", "x", "--size", "0x10"], "cannot read the size"),
        (["prepare", "nope", raw, "--check"], "known: dhf1k"),
        (["prepare", "dhf1k", raw, "--check"], "nothing of dhf1k"),
        (["prepare", "dhf1k", "nowhere", "--check"], "not a folder"),
    ):
        failed = runner.invoke(app, arguments)
        assert isinstance(failed.exception, UsageError)
        assert said in str(failed.exception)


def test_pictures_on_disk_are_what_the_tests_think(tmp_path: Path) -> None:
    trees.image(tmp_path / "a.png", 7)
    assert read_number(np.asarray(cv2.imread(str(tmp_path / "a.png")), np.uint8)) == 7
