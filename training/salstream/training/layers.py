"""What more than one network uses: input scaling, Gaussian priors, per-domain BatchNorm, blocks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)


def imagenet_normalise(frames: Tensor) -> Tensor:
    """Bring frames to ImageNet's mean and deviation, as pretrained image networks want them.

    Args:
        frames: uint8 RGB, (…, height, width, 3).

    Returns:
        float32, (…, 3, height, width).
    """
    mean = torch.tensor(IMAGENET_MEAN, device=frames.device)
    std = torch.tensor(IMAGENET_STD, device=frames.device)
    return ((frames.float() / 255 - mean) / std).movedim(-1, -3)


def initial_gaussians() -> Tensor:
    """Return the 16 priors that training starts from, (16, 2, 2).

    The last two axes are (y, x) and (mean, log standard deviation); positions are in [0, 1].
    Nine narrow Gaussians on a 3×3 grid, three wide ones per axis, one wide in both
    (UNISAL, Fig. 3c).
    """
    thirds = (0.25, 0.5, 0.75)
    narrow, wide = -1.5, 0.0
    gaussians = [((y, narrow), (x, narrow)) for y, x in itertools.product(thirds, repeat=2)]
    gaussians += [((0.5, wide), (x, narrow)) for x in thirds]
    gaussians += [((y, narrow), (0.5, wide)) for y in thirds]
    gaussians += [((0.5, wide), (0.5, wide))]
    return torch.tensor(gaussians)


def gaussian_maps(gaussians: Tensor, size: Sequence[int], scaling: float = 6.0) -> Tensor:
    """Draw Gaussians as maps.

    The published networks halve the exponent that UNISAL's Eq. 1 prints whole.

    Args:
        gaussians: (maps, 2, 2): (y, x) by (mean, log standard deviation).
        size: Height and width of the maps.
        scaling: Height of the peak; 6 suits maps that join ReLU6 activations.

    Returns:
        (maps, height, width).
    """
    axes = []
    for axis, length in enumerate(size):
        position = torch.linspace(0, 1, length, dtype=gaussians.dtype, device=gaussians.device)
        mean, log_std = gaussians[:, axis].unbind(dim=-1)
        distance = (position - mean[:, None]) / log_std.exp()[:, None]
        axes.append(torch.exp(-(distance**2) / 2))
    return scaling * (axes[0][:, :, None] * axes[1][:, None, :])


class DomainBatchNorm2d(nn.Module):
    """One BatchNorm per domain; a batch passes through its own domain's (UNISAL, 3.1)."""

    takes_domain = True

    def __init__(self, channels: int, momenta: dict[str, float], eps: float = 1e-5) -> None:
        super().__init__()
        for domain, momentum in momenta.items():
            self.add_module(f"bn_{domain}", nn.BatchNorm2d(channels, eps, momentum))

    def of(self, domain: str) -> nn.BatchNorm2d:
        """Return the layer of one domain, by its published name."""
        layer = self.get_submodule(f"bn_{domain}")
        assert isinstance(layer, nn.BatchNorm2d)
        return layer

    def forward(self, x: Tensor, domain: str) -> Tensor:
        """Normalise ``x``, (batch, channels, height, width), with the domain's statistics."""
        # Not `of`: on several GPUs the layers are SyncBatchNorm.
        normalised: Tensor = self.get_submodule(f"bn_{domain}")(x)
        return normalised


class DomainSequential(nn.Sequential):
    """A sequence that hands the domain to those of its layers that need one."""

    takes_domain = True

    def forward(self, x: Tensor, domain: str) -> Tensor:  # type: ignore[override]
        """Apply the layers in order."""
        for layer in self:
            x = layer(x, domain) if getattr(layer, "takes_domain", False) else layer(x)
        return x


class ConvNormReLU(nn.Module):
    """Convolutions, each followed by its normalisation and ReLU, as S3D and HD2S name them.

    One convolution is ``conv`` with ``bn``; a separable pair is ``conv_s`` with ``bn_s`` and
    ``conv_t`` with ``bn_t``.

    Args:
        convs: One convolution or the two of a separable pair.
        norm: Makes the normalisation for a number of channels.
        norms_last: List the normalisations after both convolutions (in the state dict only).

    Attributes:
        pairs: The names of each convolution and of its normalisation, in order of use.
    """

    takes_domain = True

    def __init__(
        self,
        convs: Sequence[nn.Conv2d | nn.Conv3d],
        norm: Callable[[int], nn.Module],
        norms_last: bool = False,
    ) -> None:
        super().__init__()
        suffixes = ("",) if len(convs) == 1 else ("_s", "_t")
        self.pairs = tuple((f"conv{suffix}", f"bn{suffix}") for suffix in suffixes)
        layers: list[tuple[str, nn.Module]] = []
        for (conv_name, norm_name), conv in zip(self.pairs, convs, strict=True):
            layers += [(conv_name, conv), (norm_name, norm(conv.out_channels))]
        if norms_last:
            layers.sort(key=lambda layer: layer[0].startswith("bn"))
        for name, layer in layers:
            self.add_module(name, layer)

    def forward(self, x: Tensor, domain: str = "") -> Tensor:
        """Apply the block to (batch, channels, …); ``domain`` matters to domain layers only."""
        for conv, norm_name in self.pairs:
            x, norm = self.get_submodule(conv)(x), self.get_submodule(norm_name)
            x = norm(x, domain) if getattr(norm, "takes_domain", False) else norm(x)
            x = F.relu(x, inplace=True)
        return x
