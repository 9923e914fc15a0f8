"""S3D: 3D convolutions as a spatial and a temporal one, in five blocks.

Xie et al., 'Rethinking Spatiotemporal Feature Learning', ECCV 2018. The same layers come
under two sets of published names: `S3D` has those of the Kinetics-400 file, `Backbone`
those of HD2S.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from salstream.runtime.errors import SalstreamError, UsageError
from salstream.training.layers import ConvNormReLU

BLOCK_CHANNELS: Final = (64, 192, 480, 832, 1024)
KINETICS_CLASSES: Final = 400
NORM_EPS: Final = 1e-3
NORM_MOMENTUM: Final = 0.001
# The classifier averages over two steps in time, which are what is left of 13 frames.
MIN_FRAMES: Final = 13
MIN_SIDE: Final = 17

# Channels of a mixed block's branches: 1×1×1; reduced, 3×3×3; reduced, 3×3×3; pooled, 1×1×1.
_MIXED_3 = ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64))
_MIXED_4 = (
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
)
_MIXED_5 = ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128))


def normalise(frames: Tensor) -> Tensor:
    """Scale frames to [-1, 1].

    Args:
        frames: uint8 RGB, (…, time, height, width, 3).

    Returns:
        float32, (…, 3, time, height, width).
    """
    return ((2 * frames.float() - 255) / 255).movedim(-1, -4)


class Mixed(nn.Module):
    """Inception block: four branches side by side.

    Args:
        in_channels: Channels of the input.
        widths: Channels inside the branches, see ``_MIXED_3``.
    """

    def __init__(self, in_channels: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        direct, reduced1, branch1, reduced2, branch2, pooled = widths
        self.out_channels = direct + branch1 + branch2 + pooled
        self.branch0 = nn.Sequential(_pointwise(in_channels, direct))
        self.branch1 = nn.Sequential(
            _pointwise(in_channels, reduced1), _separable(reduced1, branch1, 3)
        )
        self.branch2 = nn.Sequential(
            _pointwise(in_channels, reduced2), _separable(reduced2, branch2, 3)
        )
        self.branch3 = nn.Sequential(
            nn.MaxPool3d(3, stride=1, padding=1), _pointwise(in_channels, pooled)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to (batch, channels, time, height, width); the size stays."""
        branches = (self.branch0, self.branch1, self.branch2, self.branch3)
        return torch.cat([branch(x) for branch in branches], dim=1)


class Backbone(nn.Module):
    """S3D without its classifier, under HD2S's names ``block1`` … ``block5``.

    Args:
        depth: How many blocks; those that nobody reads can be left out.
    """

    def __init__(self, depth: int = 5) -> None:
        super().__init__()
        for index, layers in enumerate(_blocks()[:depth], start=1):
            self.add_module(f"block{index}", nn.Sequential(*layers))

    def forward(self, clips: Tensor) -> list[Tensor]:
        """Compute the output of every block.

        Args:
            clips: Normalised RGB, (batch, 3, time, height, width).

        Returns:
            Per block (batch, ``BLOCK_CHANNELS``, …): time/2 and size/4, time/2 and size/8,
            time/4 and size/16, and twice time/8 and size/32.
        """
        outputs = []
        for block in self.children():
            clips = block(clips)
            outputs.append(clips)
        return outputs


class S3D(nn.Module):
    """S3D with its classifier, under the names of the Kinetics-400 file."""

    def __init__(self, classes: int = KINETICS_CLASSES) -> None:
        super().__init__()
        self.base = nn.Sequential(*chain.from_iterable(_blocks()))
        self.fc = nn.Sequential(nn.Conv3d(BLOCK_CHANNELS[-1], classes, 1))

    def forward(self, clips: Tensor) -> Tensor:
        """Classify clips.

        Args:
            clips: Normalised RGB, (batch, 3, time, height, width), at least 13 frames of
                17×17.

        Returns:
            Logits, (batch, classes).

        Raises:
            UsageError: The clips are too short or too small.
        """
        time, height, width = clips.shape[-3:]
        if time < MIN_FRAMES or min(height, width) < MIN_SIDE:
            raise UsageError(
                f"S3D's classifier needs clips of at least {MIN_FRAMES} frames of "
                f"{MIN_SIDE}x{MIN_SIDE}, got {time} frames of {height}x{width}"
            )
        features: Tensor = self.base(clips)
        features = F.avg_pool3d(features, (2, features.shape[3], features.shape[4]), stride=1)
        logits: Tensor = self.fc(features)
        return logits.mean(dim=(2, 3, 4))


def load_kinetics(backbone: Backbone, kinetics: Mapping[str, Tensor]) -> None:
    """Copy Kinetics weights into a backbone by position, as HD2S's training starts.

    The names do not matter, so any file that lists S3D's layers in order will do. What it
    has beyond the backbone (deeper blocks, the classifier) is left out.

    Args:
        backbone: Takes the weights.
        kinetics: Tensors in the file's order.

    Raises:
        SalstreamError: The layers are not S3D's.
    """
    theirs = {name: value for name, value in kinetics.items() if not _is_counter(name)}
    mine = {name: value for name, value in backbone.state_dict().items() if not _is_counter(name)}
    if len(theirs) < len(mine):
        raise SalstreamError(
            f"expected the weights of S3D, at least {len(mine)} entries, found {len(theirs)}; "
            "check that the file is an S3D checkpoint"
        )
    for (name, value), (their_name, their_value) in zip(mine.items(), theirs.items(), strict=False):
        same_kind = name.rpartition(".")[2] == their_name.rpartition(".")[2]
        if not same_kind or value.shape != their_value.shape:
            raise SalstreamError(
                f"expected the weights of S3D in its own order: {their_name} "
                f"{tuple(their_value.shape)} stands where {name} {tuple(value.shape)} should; "
                "check that the file is an S3D checkpoint"
            )
    # strict=False for the counters of batches alone: not every file has them.
    backbone.load_state_dict(dict(zip(mine, theirs.values(), strict=False)), strict=False)


def from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give torchvision's `s3d` weights the names of the Kinetics-400 file.

    Both list the same layers in the same order; only the names differ.

    Args:
        state: Tensors in torchvision's order.

    Raises:
        SalstreamError: The layers are not S3D's.
    """
    with torch.device("meta"):
        layout = S3D().state_dict()
    shapes = [tuple(value.shape) for value in state.values()]
    if shapes != [tuple(value.shape) for value in layout.values()]:
        raise SalstreamError(
            "it has torchvision's names for S3D, but not its layers with "
            f"{KINETICS_CLASSES} classes; check that the file is complete"
        )
    return dict(zip(layout, state.values(), strict=True))


def batch_norm3d(channels: int) -> nn.BatchNorm3d:
    """Return S3D's BatchNorm, with its own epsilon and momentum."""
    return nn.BatchNorm3d(channels, NORM_EPS, NORM_MOMENTUM)


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _blocks() -> list[list[nn.Module]]:
    """Return the layers of the five blocks; each block but the last ends with its pooling."""
    stem, block2, block3, block4, _ = BLOCK_CHANNELS
    return [
        [_separable(3, stem, 7, stride=2), _spatial_pool()],
        [_pointwise(stem, stem), _separable(stem, block2, 3), _spatial_pool()],
        [*_mixed(block2, _MIXED_3), nn.MaxPool3d(3, stride=2, padding=1)],
        [*_mixed(block3, _MIXED_4), nn.MaxPool3d(2, stride=2)],
        [*_mixed(block4, _MIXED_5)],
    ]


def _mixed(in_channels: int, table: tuple[tuple[int, int, int, int, int, int], ...]) -> list[Mixed]:
    blocks: list[Mixed] = []
    for widths in table:
        blocks.append(Mixed(in_channels, widths))
        in_channels = blocks[-1].out_channels
    return blocks


def _spatial_pool() -> nn.MaxPool3d:
    return nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))


def _pointwise(in_channels: int, out_channels: int) -> ConvNormReLU:
    return ConvNormReLU([nn.Conv3d(in_channels, out_channels, 1, bias=False)], batch_norm3d)


def _separable(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> ConvNormReLU:
    half = kernel // 2
    spatial = nn.Conv3d(
        in_channels,
        out_channels,
        (1, kernel, kernel),
        (1, stride, stride),
        (0, half, half),
        bias=False,
    )
    temporal = nn.Conv3d(
        out_channels, out_channels, (kernel, 1, 1), (stride, 1, 1), (half, 0, 0), bias=False
    )
    return ConvNormReLU([spatial, temporal], batch_norm3d)
