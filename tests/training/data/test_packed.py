"""Packed datasets: what goes in comes out, and nothing half written is ever seen."""

from __future__ import annotations

import pickle
import resource
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from salstream.runtime import SalstreamError, UsageError
from salstream.training.data.packed import PackedDataset, PackWriter, open_packed, write_dataset

SIZE = (6, 8)


def frames(count: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), np.uint8)


def densities(count: int) -> NDArray[np.uint8]:
    maps = np.zeros((count, *SIZE), np.uint8)
    for index in range(1, count):  # nobody looks at frame 0
        maps[index, index % SIZE[0], index % SIZE[1]] = 255
    return maps


@pytest.fixture
def dataset(tmp_path: Path) -> PackedDataset:
    with PackWriter(tmp_path, "a", SIZE) as pack:
        pack.start("a", "train", 25.0, (60, 80), labelled=True)
        for index, (frame, density) in enumerate(zip(frames(5, 0), densities(5), strict=True)):
            points = np.array([[s, 10 * index, 7] for s in range(index)]).reshape(-1, 3)
            pack.append(frame, density, points)
    with PackWriter(tmp_path, "b", SIZE) as pack:
        pack.start("b", "test", 30.0, (60, 80), labelled=False)
        for frame in frames(3, 1):
            pack.append(frame)
    write_dataset(tmp_path, "toy", SIZE, static=False, finished=True, sigma=0.1)
    return open_packed(tmp_path)


def test_what_goes_in_comes_out(dataset: PackedDataset) -> None:
    assert (dataset.name, dataset.size, dataset.static) == ("toy", SIZE, False)
    assert dataset.about["sigma"] == 0.1
    (video,) = dataset.videos("train")
    assert (video.name, video.fps, len(video), video.fixation_size) == ("a", 25.0, 5, (60, 80))
    assert np.array_equal(video.frames, frames(5, 0))
    assert video.maps is not None
    assert np.array_equal(video.maps, densities(5))
    assert video.fixated.tolist() == [False, True, True, True, True]
    assert video.fixations(0).shape == (0, 2)
    assert video.fixations(3).tolist() == [[30, 7]] * 3
    assert video.fixations_by_subject(3).tolist() == [[0, 30, 7], [1, 30, 7], [2, 30, 7]]
    with pytest.raises(IndexError):
        video.fixations(5)


def test_a_video_without_annotation_has_no_maps(dataset: PackedDataset) -> None:
    (video,) = dataset.videos("test")
    assert video.maps is None
    assert not video.fixated.any()
    assert not (video.pack / "maps.npy").exists()
    assert dataset.videos("val") == []
    assert [video.name for video in dataset.videos("all")] == ["a", "b"]
    with pytest.raises(UsageError, match="known: train, val, test"):
        dataset.videos("valid")


def test_images_share_a_pack(tmp_path: Path) -> None:
    pictures = frames(4, 2)
    with PackWriter(tmp_path, "0000", SIZE) as pack:
        for index, picture in enumerate(pictures):
            pack.start(f"{index}.jpg", "train", None, (60 + index, 80), labelled=True)
            pack.append(picture, np.full(SIZE, index, np.uint8), np.array([[1, index, 2]]))
    write_dataset(tmp_path, "toy", SIZE, static=True, finished=True)
    for index, video in enumerate(open_packed(tmp_path).videos("train")):
        assert len(video) == 1
        assert video.fps is None
        assert video.fixation_size == (60 + index, 80)
        assert np.array_equal(video.frames[0], pictures[index])
        assert video.maps is not None
        assert (video.maps == index).all()
        assert video.fixations(0).tolist() == [[index, 2]]


def test_videos_hold_no_files_open_and_can_be_sent_to_workers(dataset: PackedDataset) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limit[1]))
    try:
        for _ in range(100):
            video = pickle.loads(pickle.dumps(dataset.videos("train")[0]))
            assert video.frames[2].shape == (*SIZE, 3)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)


def test_a_pack_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), PackWriter(tmp_path, "a", SIZE) as pack:
        pack.start("a", "train", 25.0, (60, 80), labelled=False)
        pack.append(frames(1, 0)[0])
        raise KeyboardInterrupt
    assert not list(tmp_path.glob("pa*/*"))


def test_wrong_shapes_and_half_labelled_videos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="uint8"), PackWriter(tmp_path, "a", SIZE) as pack:
        pack.start("a", "train", 25.0, (60, 80), labelled=False)
        pack.append(np.zeros((8, 6, 3), np.uint8))
    with pytest.raises(UsageError, match="all frames"), PackWriter(tmp_path, "a", SIZE) as pack:
        pack.start("a", "train", 25.0, (60, 80), labelled=True)
        pack.append(np.zeros((*SIZE, 3), np.uint8))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def full(self: Path, *args: object, **kwargs: object) -> object:
        target = Path("/dev/full") if self.name == "frames.npy" else self
        return opened(target, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", full)
    with (
        pytest.raises(SalstreamError, match="no space left on device"),
        PackWriter(tmp_path, "a", SIZE) as pack,
    ):
        pack.start("a", "train", 25.0, (60, 80), labelled=False)
        for _ in range(1000):
            pack.append(np.zeros((*SIZE, 3), np.uint8))
    assert not list(tmp_path.glob("pa*/*"))


def test_what_is_no_finished_dataset_is_refused(tmp_path: Path, dataset: PackedDataset) -> None:
    with pytest.raises(UsageError, match="salstream prepare"):
        open_packed(tmp_path / "elsewhere")
    write_dataset(tmp_path, "toy", SIZE, static=False, finished=False)
    with pytest.raises(SalstreamError, match="goes on where it was"):
        open_packed(tmp_path)
    write_dataset(tmp_path, "toy", SIZE, static=False, finished=True, schema=99)
    with pytest.raises(SalstreamError, match="schema 99"):
        open_packed(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(SalstreamError, match="damaged"):
        open_packed(tmp_path)


def test_a_damaged_array_is_named(dataset: PackedDataset) -> None:
    (video,) = dataset.videos("train")
    path = video.pack / "frames.npy"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(SalstreamError, match=r"frames\.npy is missing or damaged"):
        _ = video.frames
