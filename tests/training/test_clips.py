"""Clips of packed videos: what is in them, and what becomes of data that is not as it should be."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from packs import pack
from salstream.runtime import SalstreamError, UsageError
from salstream.training import recipes
from salstream.training.clips import Geometry, Source, map_frames, open_source, stride_of
from salstream.training.data.packed import PackWriter, open_packed, write_dataset


def source(
    folder: Path, *settings: str, recipe: str = "hd2s-tiny", labelled: bool = True
) -> Source:
    chosen = recipes.get(recipe).with_settings(settings)
    return open_source("source", open_packed(folder), chosen, labelled)


def test_a_clip_is_consecutive_frames_with_the_last_ones_map(tmp_path: Path) -> None:
    folder = pack(tmp_path, frames=30)
    drawn = source(folder, "clips.size=64x96", "clips.flip=0")
    videos = {video.name: video for video in open_packed(folder).videos("train")}
    for sample in range(6):
        frames, maps, fixations, name = drawn.clip(sample)
        video_name, first = name.split(":")
        video, last = videos[video_name], int(first) + 7
        np.testing.assert_array_equal(frames, video.frames[int(first) : last + 1])
        assert video.maps is not None
        np.testing.assert_array_equal(maps[0], video.maps[last])
        assert fixations.sum() == 1
        # the made-up video's people look at the middle of its disc
        (at,) = np.argwhere(fixations[0])
        assert np.abs(at - np.argwhere(maps[0] == maps[0].max()).mean(axis=0)).max() <= 1


def test_flipping_turns_frames_maps_and_fixations_alike(tmp_path: Path) -> None:
    folder = pack(tmp_path, frames=8)
    plain = source(folder, "clips.size=64x96", "clips.flip=0")
    turned = source(folder, "clips.size=64x96", "clips.flip=1")
    for sample in range(3):
        for a, b in zip(plain.clip(sample)[:3], turned.clip(sample)[:3], strict=True):
            width_axis = 2
            np.testing.assert_array_equal(np.flip(a, width_axis), b)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_a_batch(tmp_path: Path, processes: int) -> None:
    drawn = source(pack(tmp_path), "clips.batch=4")
    whole = drawn.batch(3)
    shares = [drawn.batch(3, rank, processes) for rank in range(processes)]
    for field in ("frames", "maps", "fixations"):
        together = torch.cat([getattr(share, field) for share in shares])
        assert torch.equal(together, getattr(whole, field))
    assert sum((share.names for share in shares), ()) == whole.names


def test_short_videos_go_back_and_forth_or_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = pack(tmp_path / "short", frames=3, splits=["train"])
    extended = source(folder, "clips.flip=0", "clips.size=64x96")
    frames, _, _, name = extended.clip(0)
    video = {v.name: v for v in extended.videos}[name.split(":")[0]]
    first = int(name.split(":")[1])
    turn = [0, 1, 2, 1] * 4
    expected = np.stack([video.frames[i] for i in turn[first : first + 8]])
    np.testing.assert_array_equal(frames, expected)
    with pytest.raises(UsageError, match="all 4 videos are shorter than a clip of 8 frames"):
        source(folder, "clips.short_videos=leave-out")
    # every 5th frame at 30 fps: 3 frames span 11
    mixed = pack(tmp_path / "mixed", frames=10, splits=["train"])
    settings = ("clips.length=2", "sources=dhf1k")
    assert not source(mixed, *settings, recipe="unisal-i-tiny").left_out
    longer = recipes.get("unisal-i-tiny").with_settings(["clips.length=3"])
    with pytest.raises(UsageError, match="all 4 videos"):
        open_source("dhf1k", open_packed(mixed), longer, True)


def test_only_short_videos_are_left_out(tmp_path: Path) -> None:
    write_dataset(tmp_path, "two", (64, 64), static=False, finished=False)
    for name, count in (("long", 9), ("short", 4)):
        with PackWriter(tmp_path, name, (64, 64)) as writer:
            writer.start(name, "train", 30.0, (64, 64), labelled=True)
            for _ in range(count):
                full = np.full((64, 64), 255, np.uint8)
                writer.append(np.zeros((64, 64, 3), np.uint8), full, np.array([[0, 5, 5]]))
    write_dataset(tmp_path, "two", (64, 64), static=False, finished=True)
    drawn = source(tmp_path, "clips.short_videos=leave-out")
    assert [video.name for video in drawn.videos] == ["long"]
    assert drawn.left_out == ("short",)


def test_unisal_reads_six_frames_a_second_and_single_images(tmp_path: Path) -> None:
    for fps, stride in ((30.0, 5), (24.0, 4), (60.0, 10), (25.0, 4), (5.0, 1)):
        (video, *_) = open_packed(pack(tmp_path / str(fps), fps=fps)).all_videos
        assert stride_of(video, 6.0) == stride
    images = source(pack(tmp_path / "i", fps=None, videos=8), recipe="unisal-iv-tiny")
    batch = images.batch(0)
    assert batch.static
    assert batch.frames.shape[:2] == (2, 1)
    still = source(tmp_path / "i", recipe="hd2s-tiny").batch(0)
    assert not still.static
    assert (still.frames == still.frames[:, :1]).all()


def test_unisals_domains_have_their_own_sizes(tmp_path: Path) -> None:
    """224×384, 224×416, 256×384 and 288×384 (UNISAL, section 4.1); one size where one is set."""
    film, picture = pack(tmp_path / "v", frames=60), pack(tmp_path / "i", fps=None)
    sizes = {"dhf1k": (224, 384), "hollywood": (224, 416), "ucfsports": (256, 384),
             "salicon": (288, 384)}  # fmt: skip
    for name, size in sizes.items():
        folder = picture if name == "salicon" else film
        for settings, wanted in (([], size), (["clips.size=64x96"], (64, 96))):
            recipe = recipes.get("unisal").with_settings([*settings, "clips.length=2"])
            drawn = open_source(name, open_packed(folder), recipe, True)
            frames, maps, _, _ = drawn.clip(0)
            assert frames.shape[1:3] == maps.shape[1:] == wanted
    with pytest.raises(UsageError, match="no sizes of its domains' own"):
        recipes.get("hd2s").with_settings(["clips.size=0x0"])


def test_which_frames_have_maps() -> None:
    assert map_frames("hd2s", 16) == [15]
    assert map_frames("unisal", 3) == [0, 1, 2]
    assert map_frames("esan", 15) == [2, 7, 12]


def test_letterboxed_packs_are_for_esan_and_for_it_alone(tmp_path: Path) -> None:
    stretched = pack(tmp_path / "s")
    boxed = pack(tmp_path / "b", size=(32, 64), fit="letterbox")
    with pytest.raises(UsageError, match=r"prepare made-up … --size 32x64 --fit letterbox"):
        source(stretched, recipe="esan-tiny")
    with pytest.raises(UsageError, match=r"--size 64x64$"):
        source(boxed)
    batch = source(boxed, recipe="esan-tiny").batch(0)
    assert batch.maps.shape == batch.fixations.shape == (1, 1, 16, 32)


def test_letterboxed_fixations_lie_where_the_frame_does() -> None:
    """A frame of 100×100 in a map of 32×64 fills columns 16 to 47."""
    geometry = Geometry((64, 128), (32, 64), letterbox=True)
    corners = np.array([[0, 0], [99, 99]], np.int32)
    placed = np.argwhere(geometry.place(corners, (100, 100)))
    assert placed.tolist() == [[0, 16], [31, 47]]


def test_every_clip_has_a_fixation_where_its_map_is(tmp_path: Path) -> None:
    """Nobody fixates in most frames here: clips end with those where somebody does."""
    write_dataset(tmp_path, "rare", (64, 64), static=False, finished=False)
    with PackWriter(tmp_path, "v", (64, 64)) as writer:
        writer.start("v", "train", 30.0, (64, 64), labelled=True)
        for index in range(40):
            density = np.zeros((64, 64), np.uint8)
            density[index, :] = 255 if index % 10 == 9 else 0
            points = np.array([[0, index, 5]]) if index % 10 == 9 else None
            writer.append(np.zeros((64, 64, 3), np.uint8), density, points)
    write_dataset(tmp_path, "rare", (64, 64), static=False, finished=True)
    drawn = source(tmp_path)
    lasts = {int(drawn.clip(sample)[3].split(":")[1]) + 7 for sample in range(60)}
    assert lasts == {9, 19, 29, 39}


def test_nobody_ever_looks(tmp_path: Path) -> None:
    write_dataset(tmp_path, "blind", (64, 64), static=False, finished=False)
    with PackWriter(tmp_path, "v", (64, 64)) as writer:
        writer.start("v", "train", 30.0, (64, 64), labelled=True)
        for _ in range(9):
            writer.append(np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8))
    write_dataset(tmp_path, "blind", (64, 64), static=False, finished=True)
    with pytest.raises(SalstreamError, match="no clip with a fixation"):
        source(tmp_path).clip(0)


def test_unlabelled_videos_are_for_targets(tmp_path: Path) -> None:
    folder = pack(tmp_path, labelled=False)
    with pytest.raises(UsageError, match="0000 has no maps; give a model"):
        source(folder)
    assert not source(folder, labelled=False).batch(0).maps.any()


def test_a_split_without_videos(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no videos for train"):
        source(pack(tmp_path, splits=["test"]))


def test_a_clip_that_cannot_be_read_is_named_and_ends_the_run_or_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A pack that was cut short after it was opened."""
    folder = pack(tmp_path, splits=["train"])
    whole = source(folder)
    names = [whole.clip(sample)[3].split(":")[0] for sample in range(4)]
    assert sorted(names) == ["0000", "0001", "0002", "0003"]
    frames = folder / "packs" / "0002" / "frames.npy"
    frames.write_bytes(frames.read_bytes()[:2000])
    with pytest.raises(SalstreamError, match=r"cannot read a clip of 0002 in source.*skip"):
        whole.clip(names.index("0002"))
    skipping = source(folder, "clips.on_bad_clip=skip")
    with caplog.at_level(logging.WARNING, "salstream"):
        drawn = [skipping.clip(sample)[3].split(":")[0] for sample in range(4)]
    assert "0002" not in drawn
    assert [m for m in caplog.messages if "0002" in m and "another clip" in m]
    # the others are the clips that they were
    assert [d for d, n in zip(drawn, names, strict=True) if n != "0002"] == [
        n for n in names if n != "0002"
    ]
