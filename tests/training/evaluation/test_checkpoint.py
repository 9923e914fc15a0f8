"""Checkpoints behind the runtime's predictor: the maps that the networks' own papers ask for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter

from clips import number_image
from salstream.runtime import SalstreamError, UsageError
from salstream.training import hd2s
from salstream.training.esan import Esan, normalise
from salstream.training.evaluation.checkpoint import open_checkpoint
from salstream.training.sliding import windows

FRAMES = np.stack([number_image(number, (128, 192)) for number in range(3)])


@torch.inference_mode()
def test_hd2s_is_streamed_by_sliding_window_and_smoothed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = hd2s.Hd2s(hd2s.CONFIGS["hd2s"]).eval()
    save_file(network.state_dict(), tmp_path / "hd2s.safetensors")
    model = open_checkpoint(tmp_path / "hd2s.safetensors", network="hd2s")
    assert (model.spec.window, model.spec.smoothing_sigma) == (16, 5.0)
    clips = torch.from_numpy(FRAMES)
    results = list(model.stream(FRAMES, fps=30))
    assert len(results) == 3
    for result, places in zip(results, windows(3, 16), strict=True):
        raw = network(hd2s.normalise(clips[places])[None]).saliency[0].numpy()
        smooth = gaussian_filter(raw, 5)
        assert result.map == pytest.approx(smooth / smooth.max(), abs=1e-5)


@torch.inference_mode()
def test_a_trained_checkpoint_is_opened_at_its_own_size_and_clip_length(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = hd2s.Hd2s(hd2s.CONFIGS["hd2s-net1"]).eval()
    path = tmp_path / "best.safetensors"
    told = {"model": "hd2s-net1", "size": "64x96", "clip_length": "8", "clip_rate": "10.0"}
    save_file(network.state_dict(), path, told)
    model = open_checkpoint(path)
    assert (model.spec.size, model.spec.window, model.spec.map_frame) == ((64, 96), 8, 7)
    assert model.spec.window_fps == 10
    frames = np.stack([number_image(number, (64, 96)) for number in range(10)])
    last = list(model.stream(frames, fps=12))[-1]
    raw = network(hd2s.normalise(torch.from_numpy(frames[2:]))[None]).saliency[0].numpy()
    smooth = gaussian_filter(raw, 5)
    assert last.map == pytest.approx(smooth / smooth.max(), abs=1e-5)


@torch.inference_mode()
def test_esan_carries_its_state_from_group_to_group(random_esan: Esan, tmp_path: Path) -> None:
    save_file(random_esan.state_dict(), tmp_path / "esan.safetensors")
    model = open_checkpoint(tmp_path / "esan.safetensors", network="esan")
    assert (model.spec.window, model.spec.map_frame, model.spec.phases) == (5, 2, 5)
    frames = np.random.default_rng(0).integers(0, 256, (1, 10, 32, 64, 3), np.uint8)
    first = model.backend.run(frames[:, :5], None)
    second = model.backend.run(frames[:, 5:], first.state)
    maps, state = random_esan(normalise(torch.from_numpy(frames[:, :5])))
    more, _ = random_esan(normalise(torch.from_numpy(frames[:, 5:])), state)
    for output, wanted in ((first, maps[:, 0]), (second, more[:, 0])):
        assert output.saliency == pytest.approx((wanted / wanted.max()).numpy(), abs=1e-5)


def test_what_gives_no_maps_is_refused(unisal_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(SalstreamError, match="does not fit hd2s"):
        open_checkpoint(unisal_checkpoint, network="hd2s")
    (tmp_path / "x.pth").write_bytes(b"no checkpoint")
    with pytest.raises(SalstreamError):
        open_checkpoint(tmp_path / "x.pth")
    with pytest.raises(UsageError, match="s3d gives no saliency maps"):
        open_checkpoint(unisal_checkpoint, network="s3d")
