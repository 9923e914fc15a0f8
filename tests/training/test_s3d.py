"""S3D: the published layout, and Kinetics weights on their way into HD2S's backbone."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from reference import reference
from salstream.runtime import SalstreamError, UsageError
from salstream.training.s3d import S3D, Backbone, load_kinetics, normalise

# Where the Kinetics file's layers end that belong to no block, to block 1, 2, …
BLOCK_ENDS = (0, 2, 5, 8, 14, 16)


@pytest.fixture(scope="module")
def s3d() -> S3D:
    """S3D with values in which every layer matters."""
    torch.manual_seed(0)
    model = S3D(classes=7).eval()
    for name, value in model.state_dict().items():
        if name.endswith(("running_var", "bn.weight", "bn_s.weight", "bn_t.weight")):
            value.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bias")):
            value.normal_(std=0.1)
        elif value.dim() == 5:
            value.normal_(std=(2 / value[0].numel()) ** 0.5)
    return model


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    return torch.rand(2, 3, 16, 32, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_state_dict_has_the_published_layout() -> None:
    layout = json.loads(reference("checkpoint_layouts.json").read_text())["s3d_kinetics400"]
    state = S3D().state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == layout
    assert list(state) == list(layout)


@pytest.mark.parametrize("depth", [2, 5])
@torch.inference_mode()
def test_the_backbone_with_kinetics_weights_is_the_classifiers_base(
    s3d: S3D, clips: torch.Tensor, depth: int
) -> None:
    backbone = Backbone(depth).eval()
    load_kinetics(backbone, s3d.state_dict())
    outputs = backbone(clips)
    assert len(outputs) == depth
    layers = list(s3d.base.children())
    x = clips
    for block, output in enumerate(outputs):
        for layer in layers[BLOCK_ENDS[block] : BLOCK_ENDS[block + 1]]:
            x = layer(x)
        torch.testing.assert_close(output, x, rtol=0, atol=0)
    if depth == 5:
        pooled = outputs[-1].mean(dim=(2, 3, 4))
        (classifier,) = s3d.fc.children()
        logits = pooled @ classifier.get_parameter("weight").flatten(1).T
        logits = logits + classifier.get_parameter("bias")
        torch.testing.assert_close(s3d(clips), logits, rtol=1e-4, atol=1e-4)


def test_names_and_counters_of_the_kinetics_file_do_not_matter(s3d: S3D) -> None:
    values = {name: v for name, v in s3d.state_dict().items() if "num_batches" not in name}
    renamed = {f"features.{i}.{n.rpartition('.')[2]}": v for i, (n, v) in enumerate(values.items())}
    backbone = Backbone()
    load_kinetics(backbone, renamed)
    torch.testing.assert_close(
        backbone.state_dict()["block5.1.branch3.1.bn.running_var"],
        values["base.15.branch3.1.bn.running_var"],
    )


def test_weights_of_another_network_are_refused_and_nothing_is_loaded(s3d: S3D) -> None:
    state = s3d.state_dict()
    backbone = Backbone()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with pytest.raises(SalstreamError, match="found 100"):
        load_kinetics(backbone, dict([*_layers(state).items()][:100]))
    swapped = dict(reversed(state.items()))
    with pytest.raises(SalstreamError, match=r"block1\.0\.conv_s\.weight \(64, 3, 1, 7, 7\)"):
        load_kinetics(backbone, swapped)
    narrower = {**state, "base.15.branch3.1.conv.weight": torch.zeros(127, 832, 1, 1, 1)}
    with pytest.raises(SalstreamError, match=r"base\.15\.branch3\.1\.conv\.weight \(127"):
        load_kinetics(backbone, narrower)
    for name, value in backbone.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@torch.inference_mode()
def test_the_classifiers_smallest_clip(s3d: S3D) -> None:
    assert s3d(torch.zeros(1, 3, 13, 17, 17)).shape == (1, 7)
    for shape in [(1, 3, 12, 17, 17), (1, 3, 13, 16, 17), (1, 3, 13, 17, 16)]:
        with pytest.raises(UsageError, match="13 frames of 17x17"):
            s3d(torch.zeros(shape))


def test_normalise_maps_every_byte_and_moves_the_channels() -> None:
    frames = (
        torch.arange(256, dtype=torch.uint8).reshape(1, 2, 4, 32)[..., None].repeat(1, 1, 1, 1, 3)
    )
    frames[..., 1] = 0
    clips = normalise(frames)
    assert clips.shape == (1, 3, 2, 4, 32)
    assert clips.dtype == torch.float32
    expected = (2 * np.arange(256, dtype=np.float64) - 255) / 255
    np.testing.assert_allclose(clips[0, 0].flatten(), expected, rtol=0, atol=1e-7)
    assert (clips[:, 1] == -1).all()
    torch.testing.assert_close(clips[:, 2], clips[:, 0], rtol=0, atol=0)


def _layers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if "num_batches" not in name}
