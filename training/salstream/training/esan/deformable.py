"""Deformable convolution v2 in plain operators, so that it runs and exports anywhere.

Zhu et al., 'Deformable ConvNets v2: More Deformable, Better Results', CVPR 2019.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def deformable_conv2d(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Convolve at stride 1, each tap reading where its offset says (ESAN-VSP, Eq. 5).

    Samples are bilinear; what lies outside the picture is zero. Channels are split into
    groups with offsets and masks of their own.

    Args:
        x: (batch, channels, height, width).
        offset: Pixels that each tap is moved by, (batch, groups · taps · 2, height, width),
            as (y, x) pairs per tap.
        mask: Factor of each sample, (batch, groups · taps, height, width).
        weight: (out channels, channels, kernel height, kernel width), both odd.
        bias: (out channels,).

    Returns:
        (batch, out channels, height, width).
    """
    _, channels, height, width = x.shape
    out_channels, _, rows, columns = weight.shape
    taps = rows * columns
    groups = mask.shape[1] // taps

    # -1 and 1 are the picture's outer edges: a pixel's centre lies half a pixel inside.
    y, x_ = torch.meshgrid(
        _centres(height, rows, x), _centres(width, columns, x), indexing="ij"
    )  # (rows · height, columns · width)
    grid = torch.stack([x_, y], dim=-1).view(rows, height, columns, width, 2)
    grid = grid.transpose(1, 2).reshape(taps, height, width, 2)
    offset = offset.reshape(-1, taps, 2, height, width).permute(0, 1, 3, 4, 2).flip(-1)
    grid = grid + offset * torch.tensor([2 / width, 2 / height]).to(x)

    # (batch · groups, channels / groups, taps · height, width)
    samples = F.grid_sample(
        x.reshape(-1, channels // groups, height, width),
        grid.reshape(-1, taps * height, width, 2),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    samples = samples * mask.reshape(-1, 1, taps * height, width)
    return F.conv2d(
        samples.reshape(-1, channels * taps, height, width),
        weight.reshape(out_channels, channels * taps, 1, 1),
        bias,
    )


def _centres(length: int, taps: int, like: Tensor) -> Tensor:
    """Return where the taps of an axis read without offsets, (taps · length), tap by tap."""
    at = torch.arange(taps)[:, None] - taps // 2 + torch.arange(length)
    return ((2 * at + 1) / length - 1).flatten().to(like)


class DeformableConv2d(nn.Module):
    """A 3×3 deformable convolution that derives its offsets and masks from other features.

    Args:
        channels: Of the input, the output and the features.
        groups: Groups of channels with offsets of their own.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        plain = nn.Conv2d(channels, channels, 3)
        self.weight, self.bias = plain.weight, plain.bias
        self.offsets = 2 * 9 * groups
        self.conv_offset_mask = nn.Conv2d(channels, 3 * 9 * groups, 3, padding=1)
        # Training starts without offsets, every sample halved (Zhu et al., 3.1).
        nn.init.zeros_(self.conv_offset_mask.weight)
        assert self.conv_offset_mask.bias is not None
        nn.init.zeros_(self.conv_offset_mask.bias)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """Convolve ``x`` as ``features`` say; all are (batch, channels, height, width)."""
        both = self.conv_offset_mask(features)
        offset, mask = both[:, : self.offsets], both[:, self.offsets :].sigmoid()
        return deformable_conv2d(x, offset, mask, self.weight, self.bias)
