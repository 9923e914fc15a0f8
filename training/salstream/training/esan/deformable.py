"""Deformable convolution v2 in plain operators, so that it runs and exports anywhere.

Zhu et al., 'Deformable ConvNets v2: More Deformable, Better Results', CVPR 2019.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_KERNEL = 3


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
    height, width = x.shape[-2:]
    taps = weight.shape[-2] * weight.shape[-1]
    moves = offset.reshape(-1, taps, 2, height, width).permute(0, 1, 3, 4, 2).flip(-1)
    moves = moves * torch.tensor([2 / width, 2 / height], dtype=x.dtype, device=x.device)
    grid = tap_positions((height, width), weight.shape[-2:]).to(x)
    samples = sample(x, grid + moves, mask)
    return F.conv2d(samples, weight.flatten(1)[:, :, None, None], bias)


def tap_positions(
    size: tuple[int, int], kernel: tuple[int, int] | torch.Size = (_KERNEL, _KERNEL)
) -> Tensor:
    """Return where a convolution's taps read without offsets.

    Args:
        size: Height and width of the input, which the output has too.
        kernel: The same of the kernel, both odd.

    Returns:
        float64, (taps, height, width, 2), as (x, y), the picture's outer edges being -1 and 1.
    """
    axes = []
    for length, taps in zip(size, kernel, strict=True):
        at = torch.arange(taps)[:, None] - taps // 2 + torch.arange(length)
        axes.append((2 * at.double() + 1) / length - 1)  # (taps, length)
    y, x = axes
    shape = (*kernel, *size)
    y = y[:, None, :, None].expand(shape)
    x = x[None, :, None, :].expand(shape)
    return torch.stack([x, y], dim=-1).flatten(0, 1)


def sample(x: Tensor, grid: Tensor, mask: Tensor) -> Tensor:
    """Read the picture where every tap wants it.

    Args:
        x: (batch, channels, height, width).
        grid: (batch · groups, taps, height, width, 2), as :func:`tap_positions` has it.
        mask: Factor of each sample, (batch, groups · taps, height, width).

    Returns:
        (batch, channels · taps, height, width).
    """
    _, channels, height, width = x.shape
    taps = grid.shape[1]
    groups = mask.shape[1] // taps
    samples = F.grid_sample(
        x.reshape(-1, channels // groups, height, width),
        grid.reshape(-1, taps * height, width, 2),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    samples = samples * mask.reshape(-1, 1, taps * height, width)
    return samples.reshape(-1, channels * taps, height, width)


class DeformableConv2d(nn.Module):
    """A 3×3 deformable convolution that derives its offsets and masks from other features.

    Args:
        channels: Of the input, the output and the features.
        groups: Groups of channels with offsets of their own.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        plain = nn.Conv2d(channels, channels, _KERNEL)
        assert plain.bias is not None
        self.weight, self.bias = plain.weight, plain.bias
        self.groups = groups
        # Per group, offsets as (y, x) for every tap; after those of all groups, the masks.
        self.conv_offset_mask = nn.Conv2d(channels, 3 * groups * _KERNEL**2, 3, padding=1)
        # Training starts without offsets, every sample halved (Zhu et al., 3.1).
        assert self.conv_offset_mask.bias is not None
        nn.init.zeros_(self.conv_offset_mask.weight)
        nn.init.zeros_(self.conv_offset_mask.bias)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """Convolve ``x`` as ``features`` say; all are (batch, channels, height, width)."""
        both = self.conv_offset_mask(features)
        offset, mask = both.split((2 * both.shape[1] // 3, both.shape[1] // 3), dim=1)
        return deformable_conv2d(x, offset, mask.sigmoid(), self.weight, self.bias)
