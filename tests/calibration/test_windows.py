"""Calibration windows from real clips: which are drawn, and with which states."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clips import clip, numbered_clip
from salstream.calibration.graphs import Graph
from salstream.calibration.windows import _choose, draw, find_clips
from salstream.runtime import SaliencyModel, SalstreamError, UsageError
from salstream.runtime.model import find_model
from salstream.runtime.preprocess import prepare
from salstream.runtime.sources import open_source


@pytest.fixture(scope="module")
def unisal() -> Graph:
    return Graph(find_model("unisal-dhf1k"))


def test_windows_are_frames_of_the_clips_with_the_states_of_their_streams(
    unisal: Graph, tmp_path: Path
) -> None:
    """The state of a window is what streaming the clip to that frame gives, in its phase."""
    path = clip("bikes.mp4")
    windows = draw(unisal, [path], 6, tmp_path / "windows", seed=1)
    assert len(windows) == 6
    model = SaliencyModel.open(unisal.path, backend="onnxruntime:cpu")
    with open_source(path) as source:
        frames = [prepare(frame, model.spec) for frame in source]
        phases = model.spec.phases_at(source.fps)
    assert phases == 4
    numbers = [origin.frame for origin in windows.origins]
    assert numbers == sorted(set(numbers))
    for index, number in enumerate(numbers):
        inputs = windows.inputs(index)
        np.testing.assert_array_equal(inputs["frames"][0, 0], frames[number])
        state = None
        for before in range(number % phases, number, phases):
            state = model.backend.run(frames[before][None, None], state).state
        expected = 0 if state is None else state["state_gru"]
        np.testing.assert_allclose(inputs["state_gru"], expected, rtol=0, atol=1e-5)
        assert number < phases or inputs["state_gru"].any()


def test_every_clip_gives_its_share_and_the_seed_decides(unisal: Graph, tmp_path: Path) -> None:
    clips = [numbered_clip(tmp_path / f"{name}.mp4", 30) for name in "xy"]
    drawn = [
        draw(unisal, clips, 9, tmp_path / name, seed=seed)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    sources = [origin.source for origin in drawn[0].origins]
    assert [sources.count(path.name) for path in clips] == [5, 4]
    assert drawn[0].origins == drawn[1].origins != drawn[2].origins
    np.testing.assert_array_equal(drawn[0].frames, drawn[1].frames)


def test_of_more_clips_than_windows_some_are_left_out_evenly(unisal: Graph, tmp_path: Path) -> None:
    clips = [numbered_clip(tmp_path / f"{name}.mp4", 4) for name in "abcde"]
    drawn = draw(unisal, clips, 3, tmp_path / "windows")
    assert [origin.source for origin in drawn.origins] == ["a.mp4", "c.mp4", "e.mp4"]


def test_windows_that_are_kept_are_used_again(unisal: Graph, tmp_path: Path) -> None:
    """Their source stands beside them; a folder of something else is refused, and stays."""
    folder = tmp_path / "kept"
    path = numbered_clip(tmp_path / "v.mp4", 30)
    first = draw(unisal, [path], 4, folder)
    written = (folder / "frames.npy").stat().st_mtime_ns
    assert draw(unisal, [path], 4, folder).origins == first.origins
    assert (folder / "frames.npy").stat().st_mtime_ns == written
    index = json.loads((folder / "windows.json").read_text())
    assert index["windows"] == [
        {"source": "v.mp4", "frame": origin.frame} for origin in first.origins
    ]
    with pytest.raises(SalstreamError, match=r"drawn otherwise .*count"):
        draw(unisal, [path], 5, folder)
    numbered_clip(path, 31)
    with pytest.raises(SalstreamError, match=r"drawn otherwise .*clips"):
        draw(unisal, [path], 4, folder)
    with pytest.raises(SalstreamError, match="holds no calibration windows"):
        draw(unisal, [path], 4, tmp_path)
    assert path.exists()


def test_clips_that_do_not_do(unisal: Graph, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no clips are given"):
        find_clips([])
    with pytest.raises(UsageError, match="no video or folder"):
        find_clips([tmp_path / "nothing.mp4"])
    with pytest.raises(UsageError, match="is empty"):
        find_clips([tmp_path])
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with pytest.raises(SalstreamError, match=r"broken\.mp4"):
        draw(unisal, [broken], 4, tmp_path / "windows")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.mp4"]


def test_folders_stand_for_their_videos(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.AVI", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in find_clips([tmp_path])] == ["a.AVI", "b.mp4"]
    images = tmp_path / "images"
    images.mkdir()
    (images / "1.png").touch()
    assert find_clips([images]) == [images]


@given(st.integers(0, 200), st.integers(1, 40), st.integers(0, 100))
def test_choices_are_distinct_and_spread_over_time(total: int, count: int, seed: int) -> None:
    """Of a picture that never changes: one from each of as many equal stretches of time."""
    thumbnails = [np.zeros((8, 8, 3), np.uint8)] * total
    chosen = _choose(thumbnails, count, np.random.default_rng(seed))
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(total, count)
    assert all(0 <= number < total for number in chosen)
    if total > 4 * count:
        assert np.diff([0, *chosen, total]).max() <= 2 * total / count + 2


def test_scenes_with_more_to_see_give_more_windows() -> None:
    """Ninety frames of one picture, then thirty that change: time alone would give a quarter."""
    rng = np.random.default_rng(0)
    still = [np.zeros((8, 8, 3), np.uint8)] * 90
    moving = list(rng.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8))
    chosen = _choose(still + moving, 24, np.random.default_rng(0))
    assert 12 <= sum(number >= 90 for number in chosen) < 24
