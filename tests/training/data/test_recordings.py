"""Fixations and density maps: times, people, sizes; and the readers' own arithmetic."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

import trees
from reference import data
from salstream.runtime import SalstreamError
from salstream.training.data.matfile import load_mat
from salstream.training.data.readers import find_recordings
from salstream.training.data.readers.layouts import by_frame
from salstream.training.data.readers.remega import scene_of
from salstream.training.data.recordings import (
    Recording,
    TimedFixations,
    gaussian_density,
    inside,
    resized_density,
    seeded_splits,
)


def test_a_density_map_is_the_fixation_map_under_a_gaussian() -> None:
    points = np.array([[40, 50], [60, 90], [60, 90]])
    fixated = np.zeros((100, 140))
    np.add.at(fixated, tuple(points.T), 1)
    blurred = gaussian_filter(fixated, 5, mode="constant", truncate=8)
    density = gaussian_density(points, (100, 140), (100, 140), 0.05)
    assert density == pytest.approx(blurred / blurred.max(), abs=1e-6)


@given(
    st.lists(st.tuples(st.integers(0, 89), st.integers(0, 159)), min_size=1, max_size=20),
    st.sampled_from([(45, 80), (30, 160), (128, 192)]),
)
def test_a_density_map_of_another_size_is_the_same_map(
    places: list[tuple[int, int]], to: tuple[int, int]
) -> None:
    points = np.array(places)
    native = gaussian_density(points, (90, 160), (90, 160), 0.06)
    made = gaussian_density(points, (90, 160), to, 0.06)
    assert made.max() == pytest.approx(1)
    assert np.corrcoef(made.ravel(), resized_density(native, to).ravel())[0, 1] > 0.995


def test_without_fixations_the_map_is_zero() -> None:
    assert not gaussian_density(np.zeros((0, 2)), (9, 16), (9, 16), 0.1).any()
    assert not resized_density(np.zeros((9, 16), np.uint8), (3, 4)).any()


def test_fixations_last_as_long_as_they_say() -> None:
    table = np.array([[0.1, 0.2, 7, 3.9, 4.2], [0.2, 0.5, 8, 1, 2], [0.25, 0.1, 8, 5, 6]])
    truth = TimedFixations(table)
    at = {
        index: truth.fixations(index, (10, 10), 20.0).tolist() for index in (0, 2, 4, 5, 6, 8, 14)
    }
    assert at[0] == []
    assert at[2] == [[7, 3, 4]]  # 0.1 s: the pixel that holds the point
    assert at[4] == [[7, 3, 4], [8, 1, 2]]
    assert at[5] == [[7, 3, 4], [8, 5, 6]]  # 0.25 s: person 8's latest fixation
    assert at[6] == [[8, 5, 6]]
    assert at[8] == [[8, 1, 2]]
    assert at[14] == []


def test_points_outside_are_told() -> None:
    points = np.array([[1, 0, 0], [1, -1, 0], [1, 5, 9], [1, 6, 0], [1, 0, 10]], np.int32)
    good, outside = inside(points, (6, 10))
    assert good.tolist() == [[1, 0, 0], [1, 5, 9]]
    assert outside == 3


def test_files_are_matched_by_their_numbers() -> None:
    frames = [Path(f"clip_{number:05d}.png") for number in range(107, 112)]
    maps = [Path(f"{number}.png") for number in (107, 108, 110, 111)]
    assert [*by_frame(maps, frames)] == [0, 1, 3, 4]
    others = [Path(f"{number}.png") for number in range(1, 6)]
    assert [*by_frame(others, frames)] == [0, 1, 2, 3, 4]
    assert [*by_frame(others, None)] == [0, 1, 2, 3, 4]
    assert [*by_frame([Path("0.png"), Path("2.png")], None)] == [0, 2]


def test_both_versions_of_matlab_files_say_the_same(tmp_path: Path) -> None:
    values = {
        "Data": {"fixdata": np.arange(10.0).reshape(2, 5), "VideoSize": [128.0, 96.0]},
        "VideoNameList": ["animal_01", "b"],
        "testlist": [3.0, 5.0],
        "one": 7.0,
    }
    for version in ("5", "7.3"):
        trees.mat(tmp_path / f"{version}.mat", version, **values)
    old, new = (load_mat(tmp_path / f"{version}.mat") for version in ("5", "7.3"))
    assert old.keys() == new.keys()
    for read in (old, new):
        assert np.array_equal(read["Data"]["fixdata"], np.arange(10.0).reshape(2, 5))
        assert read["Data"]["VideoSize"].tolist() == [128, 96]
        assert [str(name) for name in read["VideoNameList"]] == ["animal_01", "b"]
        assert np.asarray(read["testlist"]).tolist() == [3, 5]
        assert read["one"] == 7
    with h5py.File(tmp_path / "people.mat", "w") as file:
        people = file.create_group("gaze")
        for field in ("fixations", "location"):
            references = np.empty((2, 1), h5py.ref_dtype)
            for person, count in enumerate((3, 5)):
                points = file.create_dataset(f"#refs#/{field}{person}", data=np.ones((2, count)))
                references[person, 0] = points.ref
            people.create_dataset(field, data=references)
    gaze = load_mat(tmp_path / "people.mat")["gaze"]
    assert [person["fixations"].shape for person in gaze] == [(3, 2), (5, 2)]
    (tmp_path / "bad.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(300))
    with pytest.raises(SalstreamError, match=r"bad\.mat cannot be read"):
        load_mat(tmp_path / "bad.mat")


def test_diem_counts_both_eyes_once_and_blinks_not_at_all(tmp_path: Path) -> None:
    trees.diem(tmp_path)
    recording = find_recordings("diem", tmp_path).recordings[0]
    assert recording.truth is not None
    y, x = trees.place(2)
    points = recording.truth.fixations(2, trees.SIZE, 30.0)
    assert points.tolist() == [[0, y, x], [1, y, x]]
    path = tmp_path / recording.name / "event_data" / f"diem1s01_{recording.name}.txt"
    rows = np.loadtxt(path)
    rows[2, [4, 8]] = 2  # a saccade
    np.savetxt(path.with_name(f"diem1s03_{recording.name}.txt"), rows, "%g")
    truth = find_recordings("diem", tmp_path).recordings[0].truth
    assert truth is not None
    assert truth.fixations(2, trees.SIZE, 30.0)[:, 0].tolist() == [0, 1]
    assert truth.fixations(3, trees.SIZE, 30.0)[:, 0].tolist() == [0, 1, 2]


def test_a_table_that_is_no_table_is_refused(tmp_path: Path) -> None:
    trees.remega(tmp_path, videos=1)
    table = tmp_path / "fixations.csv"
    good = table.read_text()
    table.write_text(good.replace("duration_ms", "length"))
    with pytest.raises(SalstreamError, match="lacks the column duration_ms"):
        find_recordings("remega", tmp_path)
    for wrong in ("zero", "nan", "inf"):
        table.write_text(good + f"a,1,{wrong},2,3,4\n")
        with pytest.raises(SalstreamError, match="line 20: expected numbers"):
            find_recordings("remega", tmp_path)


def test_scenes_stay_together(tmp_path: Path) -> None:
    names = ["BasketballDrill", "BasketballDrillText", "RaceHorsesC", "RaceHorsesD", "Vidyo3"]
    scenes = ["BasketballDrill", "BasketballDrill", "RaceHorses", "RaceHorses", "Vidyo"]
    assert [scene_of(name) for name in names] == scenes
    assert scene_of("ParkScene") == "ParkScene"
    trees.remega(tmp_path, videos=5)
    for number, video in enumerate(sorted((tmp_path / "videos").iterdir())):
        video.rename(video.with_name(f"clip{number}.avi"))
    own = find_recordings("folder", tmp_path)  # a user's numbers say nothing of scenes
    assert {recording.split for recording in own.recordings} == {"train", "val", "test"}
    found = [Recording(name, "train", Path(name)) for name in names]
    for seed in range(20):
        splits = [r.split for r in seeded_splits(found, lambda r: scene_of(r.name), seed)]
        assert splits[0] == splits[1]
        assert splits[2] == splits[3]
        assert sorted({splits[0], splits[2], splits[4]}) == ["test", "train", "val"]


def test_two_recordings_of_one_name_are_refused(tmp_path: Path) -> None:
    trees.remega(tmp_path, videos=1)
    trees.video(tmp_path / "videos/a.mp4", 3)
    with pytest.raises(SalstreamError, match="two recordings called a"):
        find_recordings("remega", tmp_path)


def test_real_images_have_the_fixations_of_fifteen_people() -> None:
    found = find_recordings("osie", data("osie"))
    assert len(found.recordings) == 600
    assert found.static
    recording = found.recordings[0]
    assert recording.truth is not None
    points = recording.truth.fixations(0, (600, 800), None)
    assert set(points[:, 0]) == set(range(1, 16))
    lines = (data("osie") / "fixations.csv").read_text().splitlines()
    assert len(points) == sum(line.startswith(recording.name) for line in lines)
