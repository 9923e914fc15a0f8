"""Frames and maps that are counted from different numbers, or have holes: matched, or told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import trees
from salstream.runtime.cli import load_commands
from salstream.training.data.prepare import Options, check_dataset, prepare_dataset
from salstream.training.data.readers import find_recordings
from salstream.training.data.readers.layouts import by_frame
from salstream.training.data.recordings import Truth
from salstream.training.evaluation.scenes import open_scenes

DOUBT = "leave open which frames they belong to"
FRAMES = 6


def looked_at(truth: Truth | None, indices: range = range(FRAMES)) -> list[tuple[int, ...] | None]:
    """Return where people look in each frame; None: nobody does."""
    assert truth is not None
    points = [truth.fixations(index, trees.SIZE, 30.0)[:, 1:] for index in indices]
    return [tuple(rows[0].tolist()) if len(rows) else None for rows in points]


def right(frames: int = FRAMES, holes: tuple[int, ...] = ()) -> list[tuple[int, int] | None]:
    return [None if index in holes else trees.place(index) for index in range(frames)]


class Numbered:
    """Frames and maps of one video: how many, from which number, without which."""

    def __init__(
        self,
        frame: int = 1,
        map: int = 1,  # noqa: A002
        maps: int = FRAMES,
        holes: tuple[int, ...] = (),
    ) -> None:
        self.frame, self.map = frame, map
        self.there = [index for index in range(maps) if index not in holes]

    def frames(self, folder: Path, pattern: str = "{:04d}.png") -> None:
        trees.series(trees.image, folder, pattern, range(FRAMES), self.frame)


def _maps(numbered: Numbered, folder: Path, fixation: str = "fixation", mat: bool = False) -> None:
    for index in numbered.there:
        name = f"{index + numbered.map:04d}"
        trees.density(folder / "maps" / f"{name}.png", index)
        trees.fixations(folder / fixation / f"{name}.{'mat' if mat else 'png'}", index)


def unisal(root: Path, numbered: Numbered) -> None:
    numbered.frames(root / "annotation/0601/images")
    _maps(numbered, root / "annotation/0601")


def hd2s(root: Path, numbered: Numbered) -> None:
    numbered.frames(root / "frames/601", "img_{:05d}.png")
    _maps(numbered, root / "annotation/0601")


def vinet(root: Path, numbered: Numbered) -> None:
    numbered.frames(root / "val/0601/images")
    _maps(numbered, root / "val/0601", "fixation/maps", mat=True)


def file(root: Path, numbered: Numbered) -> None:
    trees.video(root / "video/601.avi", FRAMES, "mpeg4")
    _maps(numbered, root / "annotation/0601")


def matroska(root: Path, numbered: Numbered) -> None:
    trees.video(root / "video/601.mkv", FRAMES)
    _maps(numbered, root / "annotation/0601")


def hollywood(root: Path, numbered: Numbered) -> None:
    name = "actioncliptest00001"
    numbered.frames(root / f"testing/{name}_1/images", name + "_{:05d}.png")
    _maps(numbered, root / f"testing/{name}_1")


def ucf(root: Path, numbered: Numbered) -> None:
    numbered.frames(root / "testing/Run-001/images", "Run_001_{:03d}.png")
    _maps(numbered, root / "testing/Run-001")


def ledov(root: Path, numbered: Numbered) -> None:
    numbered.frames(root / "frames/animal")
    _maps(numbered, root / "annotation/animal")


def diem(root: Path, numbered: Numbered) -> None:
    numbered.frames(root / "video_frames/DIEM/a", "img_{:05d}.png")
    for index in numbered.there:
        folder, number = root / "annotations/DIEM/a", index + numbered.map
        trees.density(folder / f"maps/eyeMap_{number:05d}.jpg", index)
        trees.fixations(folder / f"fixMap_{number:05d}.mat", index)


def plain(root: Path, numbered: Numbered) -> None:
    numbered.frames(root / "clip/frames", "frame_{:04d}_128x96.png")
    _maps(numbered, root / "clip")


LAYOUTS: dict[str, tuple[str, Callable[[Path, Numbered], None]]] = {
    "unisal": ("dhf1k", unisal),
    "hd2s": ("dhf1k", hd2s),
    "vinet": ("dhf1k", vinet),
    "video file": ("dhf1k", file),
    "Matroska": ("dhf1k", matroska),
    "hollywood": ("hollywood2", hollywood),
    "ucf": ("ucfsports", ucf),
    "ledov": ("ledov", ledov),
    "diem": ("diem", diem),
    "plain": ("folder", plain),
}
CERTAIN = {
    "usual": Numbered(),
    "from 0": Numbered(0, 0),
    "frames from 0": Numbered(0, 1),
    "maps from 0": Numbered(1, 0),
    "any": Numbered(107, 1),
    "any, alike": Numbered(107, 107),
    "maps from any": Numbered(1, 31),
    "hole": Numbered(0, 1, holes=(2,)),
    "other hole": Numbered(1, 0, holes=(3, 4)),
    "hole, any": Numbered(24, 7, holes=(1,)),
}
UNCERTAIN = {
    "fewer": Numbered(0, 1, maps=FRAMES - 1),
    "fewer, alike": Numbered(1, 1, maps=FRAMES - 1),
    "fewer, from 0": Numbered(1, 0, maps=FRAMES - 1),
    "fewer, any": Numbered(40, 1, maps=FRAMES - 2),
    "without the first": Numbered(0, 1, holes=(0,)),
    "without the first, from 0": Numbered(1, 0, holes=(0,)),
    "more": Numbered(0, 1, maps=FRAMES + 1),
    "more, from 0": Numbered(1, 0, maps=FRAMES + 1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_matched_by_numbers(layout: str, tmp_path: Path) -> None:
    dataset, build = LAYOUTS[layout]
    for name, numbered in CERTAIN.items():
        build(tmp_path / name, numbered)
        found = find_recordings(dataset, tmp_path / name)
        holes = tuple({*range(FRAMES)} - {*numbered.there})
        assert looked_at(found.recordings[0].truth) == right(holes=holes), name
        assert DOUBT not in str(found.notes), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_tells_what_numbers_leave_open(layout: str, tmp_path: Path) -> None:
    dataset, build = LAYOUTS[layout]
    for name, numbered in UNCERTAIN.items():
        build(tmp_path / name, numbered)
        found = find_recordings(dataset, tmp_path / name)
        assert DOUBT in str(found.notes), name
        assert found.recordings[0].name in str(found.notes)
        if "fewer" in name:  # the likeliest
            indices = range(len(numbered.there))
            assert looked_at(found.recordings[0].truth, indices) == right(len(indices)), name


@pytest.mark.parametrize(("frame", "map_"), [(0, 1), (1, 1), (1, 0)])
def test_a_frame_that_is_lost_moves_no_map(frame: int, map_: int, tmp_path: Path) -> None:
    unisal(tmp_path, Numbered(frame, map_))
    (tmp_path / f"annotation/0601/images/{2 + frame:04d}.png").unlink()
    truth = find_recordings("dhf1k", tmp_path).recordings[0].truth
    kept = [trees.place(index) for index in (0, 1, 3, 4, 5)]
    assert looked_at(truth, range(5)) == kept


_START = st.sampled_from([0, 1, 2, 107])


@settings(max_examples=300, deadline=None)
@given(
    count=st.integers(1, 12),
    starts=st.tuples(_START, _START),
    data=st.data(),
    video=st.booleans(),
)
def test_a_match_is_right_or_in_doubt(
    count: int, starts: tuple[int, int], data: st.DataObject, video: bool
) -> None:
    """Against what the numbers were made from: moments, which frames or maps may lack."""
    moments = range(count)
    # Two series that both lost an end cannot be told from whole ones that are counted otherwise.
    inner = st.sets(st.sampled_from(moments[1:-1])) if count > 2 else st.just(set())
    frames_lack = set() if video else data.draw(inner)
    maps_lack = data.draw(st.sets(st.sampled_from(moments), max_size=count - 1))
    frames = [moment for moment in moments if moment not in frames_lack]
    maps = [moment for moment in moments if moment not in maps_lack]
    if data.draw(st.booleans()) and not video:
        frames, maps = [m for m in moments if m not in maps_lack], [*frames]
    paths = [Path(f"{moment + starts[1]:03d}.png") for moment in maps]
    images = [Path(f"x_{moment + starts[0]}.jpg") for moment in frames]
    pairs = by_frame(paths, count if video else images)
    oracle = {
        frames.index(moment): path
        for moment, path in zip(maps, paths, strict=True)
        if moment in frames
    }
    assert {k: path for k, path in pairs.items() if k < len(frames)} == oracle or pairs.doubt
    assert sorted(pairs.values()) == paths  # none is lost
    if not frames_lack and not maps_lack:
        assert not pairs.doubt


def test_numbers_are_found_in_any_name() -> None:
    frames = [Path(f"clip2_{number:04d}_640x480.png") for number in (8, 9, 10, 11)]
    for pattern in ("{}", "{:06d}_fix", "eye_{:02d}_v3", "3_{}", "640_{}_480"):
        files = [Path(pattern.format(number) + ".png") for number in (8, 9, 11)]
        assert by_frame(files, frames) == {0: files[0], 1: files[1], 3: files[2]}, pattern


def test_names_without_numbers_are_matched_or_in_doubt() -> None:
    frames = [Path(f"{name}.jpg") for name in ("eins", "drei", "zwei")]
    alike = [Path("zwei.png"), Path("eins.png")]
    assert by_frame(alike, frames) == {2: alike[0], 0: alike[1]}
    assert not by_frame(alike, frames).doubt
    others = [Path("a.png"), Path("b.png")]
    assert by_frame(others, frames) == {0: others[0], 1: others[1]}
    assert "no numbers" in by_frame(others, frames).doubt
    assert "no numbers" in by_frame(others, 3).doubt


def test_two_files_of_one_frame_count_once() -> None:
    frames = [Path(f"{number}.jpg") for number in range(1, 4)]
    files = [Path(f"{number}{suffix}") for suffix in (".png", ".mat") for number in range(1, 4)]
    assert by_frame(files, frames) == {0: files[3], 1: files[4], 2: files[5]}


def test_a_video_that_does_not_tell_its_length_is_matched_from_its_start() -> None:
    for first in (0, 1, 5):
        files = [Path(f"{number}.png") for number in (first, first + 2)]
        assert by_frame(files, None) == {0: files[0], 2: files[1]}
        assert bool(by_frame(files, None).doubt) == (first == 5)


@pytest.mark.parametrize("first", [0, 1])
def test_diems_tables_count_from_0_or_1(first: int, tmp_path: Path) -> None:
    trees.diem(tmp_path)
    for path in tmp_path.glob("*/event_data/*.txt"):
        rows = np.loadtxt(path)
        rows[:, 0] += first - 1
        np.savetxt(path, rows, "%g", delimiter="\t")
    assert looked_at(find_recordings("diem", tmp_path).recordings[0].truth) == right()


def test_every_command_tells_what_is_in_doubt(tmp_path: Path) -> None:
    unisal(tmp_path / "raw", UNCERTAIN["fewer"])
    (tmp_path / "raw/annotation/0602/maps").mkdir(parents=True)
    raw, packed = str(tmp_path / "raw"), str(tmp_path / "packed")
    runner, app = CliRunner(), load_commands()
    runs: list[list[str]] = [
        ["prepare", "dhf1k", raw, "--check"],
        ["prepare", "dhf1k", raw, "-o", packed, "--size", "48x64"],
    ]
    for path in (raw, packed):
        options = ["--split", "val", "--data", f"dhf1k={path}", "--no-baselines", "--threads", "1"]
        runs += [["evaluate", "unisal-dhf1k", *options]]
    for arguments in runs:
        done = runner.invoke(app, arguments)
        assert done.exit_code == 0, done.output
        assert DOUBT in done.output, arguments
        assert "0601" in done.output
        assert "0602" in done.output, arguments
    notes: Any = json.loads((tmp_path / "packed/dataset.json").read_text())["notes"]
    assert notes == list(check_dataset("dhf1k", tmp_path / "raw").problems)
    assert (
        prepare_dataset(
            "dhf1k", tmp_path / "raw", tmp_path / "packed", Options(size=(48, 64))
        ).notes
        == notes
    )
    assert {*notes} < {*open_scenes("dhf1k", tmp_path / "raw", "val").notes}
