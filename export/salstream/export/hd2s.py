"""HD2S as a deployable graph: raw frames in, finished maps out, less work between.

The same function as :class:`salstream.training.hd2s.Hd2s` in eval mode for one domain,
followed by the test-time smoothing and the scaling to the maximum, rewritten exactly:

- BatchNorm and the scaling of the input are folded into convolutions.
- What a decoder's first convolution makes of the Gaussian priors is one constant map.
- The last 1×1 convolution and the bilinear enlargement before it change places.
- A temporal convolution that sees two time steps drops the tap that only meets padding.
- Each Gaussian filter is two matrix products; HD2S-DSL's own and the test-time one are one.
- The domain classifiers stay in training.
"""

from __future__ import annotations

from typing import Final, cast

import torch
from torch import Tensor, nn

from salstream.export.folding import fold_blocks, inference_layers, split_input
from salstream.export.smoothing import gaussian_matrix
from salstream.training.hd2s import DOMAINS, LEVELS, Hd2s
from salstream.training.hd2s.model import temporal_names
from salstream.training.layers import gaussian_maps

# The input becomes (2x - 255) / 255: this much is subtracted, the rest is in the stem.
_MIDDLE: Final = 127.5


class DeployableHd2s(nn.Module):
    """A member of the HD2S family, of one domain and size.

    Args:
        model: The trained network.
        domain: One of the network's domains; "" for one that has none.
        size: Height and width of the input.
        window: Frames of a clip.
        sigma: Of the test-time smoothing, in pixels.
        conspicuity: Give the conspicuity maps too.
    """

    rows: Tensor
    columns: Tensor

    def __init__(
        self,
        model: Hd2s,
        domain: str,
        size: tuple[int, int],
        window: int,
        sigma: float,
        conspicuity: bool,
    ) -> None:
        super().__init__()
        model = model.eval()
        self.conspicuity = conspicuity
        self.backbone = fold_blocks(model.featureExtractor)
        stem = next(m for m in self.backbone.modules() if isinstance(m, nn.Conv3d))
        stem.weight.data *= 2 / 255
        self.temporal = nn.ModuleDict()
        self.decoders = nn.ModuleDict()
        for level, steps in _time_steps(model, window).items():
            self.temporal[str(level)] = _temporal(model, level, steps)
            self.decoders[str(level)] = _Decoder(model, level, domain, size)
        self.fusion = model.fusion(domain)
        own = model.smoothing(domain)
        matrices = [gaussian_matrix(length, sigma) for length in size]
        if own is not None:
            matrices = [m @ own.matrix(len(m)).detach() for m in matrices]
        self.register_buffer("rows", matrices[0])
        self.register_buffer("columns", matrices[1].T.contiguous())

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Predict maps.

        Args:
            frames: uint8 RGB, (batch, time, height, width, 3).

        Returns:
            The maps, (batch, height, width), maximum 1; and, if asked for, the conspicuity
            maps, (batch, levels, height, width), shallow to deep.
        """
        # TensorRT transposes no uint8: the cast comes first.
        x = frames.float().permute(0, 4, 1, 2, 3) - _MIDDLE
        taps = self.backbone(x)
        maps = []
        for level, decoder in self.decoders.items():
            features = self.temporal[level](taps[int(level)])
            maps.append(decoder(features))
        x = maps[0] if self.fusion is None else self.fusion(torch.cat(maps[::-1], dim=1)).sigmoid()
        x = self.rows @ x.squeeze(1) @ self.columns
        # A map may be zero everywhere: it stays so.
        x = x / x.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
        return (x, torch.cat(maps, dim=1)) if self.conspicuity else (x,)


class _Decoder(nn.Module):
    """A decoder whose priors are a constant and whose last convolution comes early."""

    prior: Tensor

    def __init__(self, model: Hd2s, level: int, domain: str, size: tuple[int, int]) -> None:
        super().__init__()
        first, *body, enlarge, last, squash = inference_layers(
            model.decoder(level), DOMAINS.get(domain, "")
        )
        self.first = cast("nn.Conv2d", first)
        self.register_buffer("prior", torch.zeros(()))
        if model.config.priors:
            small = [length // LEVELS[level].stride for length in size]
            priors = gaussian_maps(model.gaussians(level, domain), small)[None]
            self.first, of_priors = split_input(self.first, LEVELS[level].channels)
            self.prior = of_priors(priors).detach()
        self.rest = nn.Sequential(*body, last, enlarge, squash)

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.rest(self.first(x) + self.prior)
        return maps


def _time_steps(model: Hd2s, window: int) -> dict[int, int]:
    """Return how many time steps each level's features have for a clip of ``window`` frames."""
    taps = model.featureExtractor(torch.zeros(1, 3, window, *[model.config.size_multiple] * 2))
    return {level: taps[level].shape[2] for level in model.config.levels}


def _temporal(model: Hd2s, level: int, steps: int) -> nn.Sequential:
    """Return the convolutions that leave one time step, and take the time axis away."""
    layers: list[nn.Module] = []
    for name in temporal_names(level):
        conv, relu = inference_layers(model.get_submodule(name))
        layers += [_without_padding(cast("nn.Conv3d", conv), steps), relu]
        steps = (steps + 1) // 2
    return nn.Sequential(*layers, nn.Flatten(1, 2))


def _without_padding(conv: nn.Conv3d, steps: int) -> nn.Conv3d:
    """Drop the taps of a 3×1×1 convolution of stride 2 that meet nothing but padding."""
    if steps > 2:
        return conv
    conv.weight.data = conv.weight.data[:, :, 1 : 1 + steps]
    conv.kernel_size = (steps, 1, 1)
    conv.padding = (0, 0, 0)
    return conv
