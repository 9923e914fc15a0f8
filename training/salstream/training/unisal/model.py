"""UNISAL: one network for images and videos of several domains.

Droste, Jiao and Noble, 'Unified Image and Video Saliency Modeling', ECCV 2020. The state
dict has the published names, so the authors' checkpoints load with ``strict=True``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from salstream.training.layers import (
    DomainBatchNorm2d,
    DomainSequential,
    gaussian_maps,
    initial_gaussians,
)
from salstream.training.unisal.encoder import (
    CHANNELS_2X,
    CHANNELS_4X,
    OUT_CHANNELS,
    Encoder,
    InvertedResidual,
)
from salstream.training.unisal.gru import ConvGRU

SIZE_MULTIPLE: Final = 32
N_GAUSSIANS: Final = 16
SMOOTHING_KERNEL: Final = 41
SMOOTHING_FACTOR: Final = 8
STATE_FPS: Final = 6.0

Norm = Callable[[int], nn.Module]

_RNN_CHANNELS = 256
_SKIP_2X = 128
_SKIP_4X = 64
_SKIP_DROPOUT = 0.6
_MOMENTUM_VIDEO = 0.01
_MOMENTUM_IMAGE = 0.1


@dataclass(frozen=True)
class Domain:
    """A dataset that the network was trained on.

    Attributes:
        published: Its name inside the published state dict.
        size: Height and width of the input (section 3.3).
        phases: Interleaved passes over a video at the dataset's frame rate: every 5th frame
            at 30 fps, every 4th at 24, about 6 frames per second for one state.
        static: Images: the recurrent part is bypassed.
    """

    published: str
    size: tuple[int, int]
    phases: int = 1
    static: bool = False


DOMAINS: Final = {
    "dhf1k": Domain("DHF1K", (224, 384), phases=5),
    "hollywood": Domain("Hollywood", (224, 416), phases=4),
    "ucfsports": Domain("UCFSports", (256, 384), phases=4),
    "salicon": Domain("SALICON", (288, 384), static=True),
}


class Unisal(nn.Module):
    """Encoder, Gaussian priors, Bypass-RNN, decoder and smoothing (section 3.2)."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = Encoder()
        self.post_cnn = _block(OUT_CHANNELS + N_GAUSSIANS, _RNN_CHANNELS, 1, norm=_shared_norm)
        self.rnn = ConvGRU(_RNN_CHANNELS, _domain_norm)
        self.post_rnn = _conv_bn_relu(_RNN_CHANNELS, _RNN_CHANNELS)
        self.skip_2x = _skip(CHANNELS_2X, _SKIP_2X)
        self.upsampling_2 = _block(_RNN_CHANNELS + _SKIP_2X, _SKIP_2X, 2, norm=_domain_norm)
        self.skip_4x = _skip(CHANNELS_4X, _SKIP_4X)
        self.post_upsampling_2 = _block(_SKIP_2X + _SKIP_4X, _SKIP_4X, 2, norm=_domain_norm)
        for domain in DOMAINS:
            gaussians = nn.Parameter(initial_gaussians())
            self.register_parameter(f"coarse_gaussians_{domain}", gaussians)
            fusion = nn.Sequential(nn.Conv2d(_SKIP_4X, 1, 1))
            self.add_module(f"adaptation_{domain}", fusion)
            self.add_module(f"smoothing_{domain}", _smoothing())

    def gaussians(self, domain: str) -> Tensor:
        """Return the learned priors of a domain, (16, 2, 2)."""
        return self.get_parameter(f"coarse_gaussians_{domain}")

    def fusion(self, domain: str) -> nn.Conv2d:
        """Return the 1×1 convolution that makes a domain's single channel."""
        layer = self.get_submodule(f"adaptation_{domain}.0")
        assert isinstance(layer, nn.Conv2d)
        return layer

    def smoothing(self, domain: str) -> nn.Conv2d:
        """Return the 41×41 convolution that blurs like a domain's ground truth."""
        layer = self.get_submodule(f"smoothing_{domain}")
        assert isinstance(layer, nn.Conv2d)
        return layer

    def initial_state(self, frames: Tensor) -> Tensor:
        """Return the zeros that the ConvGRU starts from.

        Args:
            frames: (batch, time, 3, height, width).

        Returns:
            (batch, 256, height/32, width/32).
        """
        batch, _, _, height, width = frames.shape
        return frames.new_zeros(
            batch, _RNN_CHANNELS, height // SIZE_MULTIPLE, width // SIZE_MULTIPLE
        )

    def forward(
        self,
        frames: Tensor,
        domain: str,
        state: Tensor | None = None,
        static: bool | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Predict one map per frame.

        Args:
            frames: RGB after ``normalise``, (batch, time, 3, height, width),
                height and width multiples of 32.
            domain: One of ``DOMAINS``.
            state: State after the frame before the first, (batch, 256, height/32, width/32);
                None starts a sequence.
            static: Whether to bypass the recurrent part; None: as the domain has it.

        Returns:
            Logarithms of the maps, each map a distribution over its pixels,
            (batch, time, height, width), and the state after the last frame (None if static).
        """
        facts = DOMAINS[domain]
        static = facts.static if static is None else static
        if static:
            state = None
        elif state is None:
            state = self.initial_state(frames)
        if self.training:
            self.rnn.cell.sample_dropout()
        priors = gaussian_maps(
            self.gaussians(domain),
            (frames.shape[-2] // SIZE_MULTIPLE, frames.shape[-1] // SIZE_MULTIPLE),
        )
        logits = []
        for frame in frames.unbind(dim=1):
            coarse, skip_2x, skip_4x = self.cnn(frame)
            coarse = torch.cat([coarse, priors.expand(len(frame), -1, -1, -1)], dim=1)
            coarse = self.post_cnn(coarse, facts.published)
            if state is not None:
                state = self.rnn(coarse, state, facts.published)
                coarse = coarse + self.post_rnn(state, facts.published)
            logits.append(self._decode(coarse, skip_2x, skip_4x, domain))
        return F.log_softmax(torch.stack(logits, dim=1).flatten(2), dim=2).view(
            frames.shape[0], frames.shape[1], *frames.shape[-2:]
        ), state

    def _decode(self, coarse: Tensor, skip_2x: Tensor, skip_4x: Tensor, domain: str) -> Tensor:
        """Return (batch, height, width) before the softmax."""
        published = DOMAINS[domain].published
        x = torch.cat([_double(coarse), self.skip_2x(skip_2x, published)], dim=1)
        x = _double(self.upsampling_2(x, published))
        x = torch.cat([x, self.skip_4x(skip_4x, published)], dim=1)
        x = self.fusion(domain)(self.post_upsampling_2(x, published))
        x = F.interpolate(x, scale_factor=SMOOTHING_FACTOR, mode="nearest")
        x = F.pad(x, [SMOOTHING_KERNEL // 2] * 4, mode="replicate")
        logits: Tensor = self.smoothing(domain)(x)
        return logits.squeeze(1)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _shared_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, momentum=_MOMENTUM_VIDEO)


def _domain_norm(channels: int) -> DomainBatchNorm2d:
    momenta = {
        domain.published: _MOMENTUM_IMAGE if domain.static else _MOMENTUM_VIDEO
        for domain in DOMAINS.values()
    }
    return DomainBatchNorm2d(channels, momenta)


def _block(in_channels: int, out_channels: int, expansion: int, norm: Norm) -> DomainSequential:
    block = InvertedResidual(in_channels, out_channels, expansion, 1, norm)
    return DomainSequential(OrderedDict(inv_res=block))


def _conv_bn_relu(in_channels: int, out_channels: int) -> DomainSequential:
    return DomainSequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False), _domain_norm(out_channels), nn.ReLU6()
    )


def _skip(in_channels: int, out_channels: int) -> DomainSequential:
    return DomainSequential(
        OrderedDict(
            expansion=_conv_bn_relu(in_channels, 2 * in_channels),
            dropout=nn.Dropout2d(_SKIP_DROPOUT),
            reduction=DomainSequential(
                nn.Conv2d(2 * in_channels, out_channels, 1), _domain_norm(out_channels)
            ),
        )
    )


def _smoothing() -> nn.Conv2d:
    """Return the smoothing that training starts from: a narrow Gaussian of sum 1."""
    layer = nn.Conv2d(1, 1, SMOOTHING_KERNEL, bias=False)
    centred = torch.tensor([[[0.5, -2.0], [0.5, -2.0]]])
    kernel = gaussian_maps(centred, (SMOOTHING_KERNEL, SMOOTHING_KERNEL))
    layer.weight.data = (kernel / kernel.sum())[None]
    return layer
