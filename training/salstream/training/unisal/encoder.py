"""MobileNetV2 as UNISAL uses it: features at three scales, stride by subsampling.

Sandler et al., CVPR 2018. The published network computes every block at stride 1 and
drops every other row and column afterwards, so that a block's output can be tapped
before it shrinks. The names of the state dict are the published ones.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from salstream.training.layers import DomainSequential

# expansion, channels, repeats, stride (MobileNetV2, Table 2)
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM_CHANNELS = 32
CHANNELS_4X = 64
CHANNELS_2X = 160
OUT_CHANNELS = 1280
TAP_4X = 7
TAP_2X = 14


class InvertedResidual(nn.Module):
    """Expansion, 3×3 depthwise convolution, linear projection; a shortcut where it fits.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        expansion: Hidden channels per input channel; 1 leaves the expansion out.
        subsample: Keep every ``subsample``-th row and column of the output. Done by
            :class:`Encoder`, after the tap; here it only rules the shortcut out.
        norm: Makes the normalisation for a number of channels.
    """

    takes_domain = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        expansion: int,
        subsample: int,
        norm: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.subsample = subsample
        self.shortcut = subsample == 1 and in_channels == out_channels
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [nn.Conv2d(in_channels, hidden, 1, bias=False), norm(hidden), nn.ReLU6()]
        layers += [
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False),
            norm(hidden),
            nn.ReLU6(),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            norm(out_channels),
        ]
        self.conv = DomainSequential(*layers)

    def forward(self, x: Tensor, domain: str = "") -> Tensor:
        """Apply the block to (batch, channels, height, width); the size stays."""
        out: Tensor = self.conv(x, domain)
        return x + out if self.shortcut else out


class Encoder(nn.Module):
    """MobileNetV2 without its classifier."""

    def __init__(self) -> None:
        super().__init__()
        channels = STEM_CHANNELS
        layers: list[nn.Module] = [_conv_bn_relu(3, channels, kernel=3, stride=2)]
        for expansion, out_channels, repeats, stride in _STAGES:
            for repeat in range(repeats):
                subsample = stride if repeat == 0 else 1
                layers.append(
                    InvertedResidual(
                        channels, out_channels, expansion, subsample, norm=nn.BatchNorm2d
                    )
                )
                channels = out_channels
        layers.append(_conv_bn_relu(channels, OUT_CHANNELS, kernel=1, stride=1))
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute features.

        Args:
            x: Normalised RGB, (batch, 3, height, width), both multiples of 32.

        Returns:
            (batch, 1280, height/32, width/32), (batch, 160, height/16, width/16) and
            (batch, 64, height/8, width/8).
        """
        taps: dict[int, Tensor] = {}
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in (TAP_4X, TAP_2X):
                taps[index] = x
            if isinstance(layer, InvertedResidual) and layer.subsample > 1:
                x = x[..., :: layer.subsample, :: layer.subsample]
        return x, taps[TAP_2X], taps[TAP_4X]


def _conv_bn_relu(in_channels: int, out_channels: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(),
    )
