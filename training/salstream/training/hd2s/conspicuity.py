"""A Conspicuity-net's layers, and the Gaussian filter that HD2S-DSL smooths its map with."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

from salstream.training.hd2s.config import DOMAINS, Level
from salstream.training.layers import ConvNormReLU, DomainBatchNorm2d, DomainSequential
from salstream.training.s3d.model import NORM_EPS, NORM_MOMENTUM, batch_norm3d

SMOOTHING_RADIUS: Final = 33
INITIAL_SIGMA: Final = 5.5

_DOMAIN_MOMENTUM = 0.01


def temporal_convolution(channels: int) -> ConvNormReLU:
    """Return the block that halves the time axis of (batch, channels, time, height, width)."""
    conv = nn.Conv3d(channels, channels, (3, 1, 1), (2, 1, 1), (1, 0, 0), bias=False)
    return ConvNormReLU([conv], batch_norm3d)


def decoder(level: Level, number: int, in_channels: int, domain_norm: bool) -> DomainSequential:
    """Return what turns (batch, in_channels, height, width) into a conspicuity map.

    Args:
        level: Sizes of the layers.
        number: The level's number in the published names.
        in_channels: Channels of the features, and of the priors with them.
        domain_norm: Whether BatchNorm is domain-specific.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, (channels, separable) in enumerate(level.stages):
        stage = [_full(in_channels, channels, domain_norm)]
        stage += [_separable(channels, domain_norm) for _ in range(separable)]
        layers[f"deconvlayer{number}_{len(level.stages) - index}"] = DomainSequential(
            *stage, nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        )
        in_channels = channels
    layers[f"last_conv{number}"] = nn.Conv2d(in_channels, 1, 1)
    layers["sigmoid"] = nn.Sigmoid()
    return DomainSequential(layers)


class GaussianSmoothing(nn.Module):
    """A 67×67 Gaussian filter of sum 1, whose sigma is learned; beyond the border lie zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.sigma = nn.Parameter(torch.tensor(INITIAL_SIGMA))

    def matrix(self, size: int) -> Tensor:
        """Return the filter along one axis as a matrix, (size, size)."""
        position = torch.arange(size, dtype=self.sigma.dtype, device=self.sigma.device)
        offset = torch.arange(-SMOOTHING_RADIUS, SMOOTHING_RADIUS + 1).to(position)
        distance = position[:, None] - position
        band = self._gaussian(distance) * (distance.abs() <= SMOOTHING_RADIUS)
        return band / self._gaussian(offset).sum()

    def forward(self, maps: Tensor) -> Tensor:
        """Smooth (batch, height, width)."""
        height, width = maps.shape[-2:]
        return self.matrix(height) @ maps @ self.matrix(width)

    def _gaussian(self, distance: Tensor) -> Tensor:
        return torch.exp(-(distance**2) / (2 * self.sigma**2))


def _full(in_channels: int, out_channels: int, domain_norm: bool) -> ConvNormReLU:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    return ConvNormReLU([conv], _domain_norm if domain_norm else _full_norm)


def _separable(channels: int, domain_norm: bool) -> ConvNormReLU:
    depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    pointwise = nn.Conv2d(channels, channels, 1, bias=False)
    norm: Callable[[int], nn.Module] = _domain_norm if domain_norm else nn.BatchNorm2d
    return ConvNormReLU([depthwise, pointwise], norm, norms_last=domain_norm)


def _full_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, NORM_EPS, NORM_MOMENTUM)


def _domain_norm(channels: int) -> DomainBatchNorm2d:
    return DomainBatchNorm2d(channels, dict.fromkeys(DOMAINS.values(), _DOMAIN_MOMENTUM))
