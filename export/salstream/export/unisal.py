"""UNISAL as a deployable graph: raw frames in, finished maps out, less work between.

The same function as :class:`salstream.training.unisal.Unisal` in eval mode for one
domain, rewritten exactly:

- BatchNorm, the GRU's affine terms and the scaling of the input are folded into convolutions.
- Blocks whose full-size output nobody reads get their stride back.
- The Gaussian priors are constant, and so is all that becomes of them before the first
  sum: one constant map.
- 1×1 convolution and bilinear enlargement commute, so the convolution runs at the small size.
- The last projection and the fusion are one 1×1 convolution.
- Enlargement by repetition and the 41×41 smoothing become a 7×7 convolution and a pixel
  shuffle (:func:`~salstream.export.folding.polyphase`).
- The map is scaled to its maximum, so the softmax needs no sum.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from salstream.export.folding import (
    compose_pointwise,
    fold_batch_norm,
    inference_layers,
    polyphase,
    scaled,
    split_depthwise,
    split_input,
)
from salstream.training.layers import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    DomainBatchNorm2d,
    DomainSequential,
    gaussian_maps,
)
from salstream.training.unisal import DOMAINS, SIZE_MULTIPLE, Unisal
from salstream.training.unisal.encoder import (
    TAP_2X,
    TAP_4X,
    InvertedResidual,
)
from salstream.training.unisal.gru import ConvGRUCell
from salstream.training.unisal.model import SMOOTHING_FACTOR


class DeployableUnisal(nn.Module):
    """UNISAL of one domain and size.

    Args:
        model: The trained network.
        domain: One of ``DOMAINS``.
        size: Height and width of the input, multiples of 32.
    """

    mean: Tensor
    prior: Tensor

    def __init__(self, model: Unisal, domain: str, size: tuple[int, int]) -> None:
        super().__init__()
        model = model.eval()
        facts = DOMAINS[domain]
        published = facts.published
        self.register_buffer("mean", 255 * torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.encoder = _Encoder(model)
        self.post_cnn, self.prior = _post_cnn(model, domain, size)
        self.gru = None if facts.static else _GRU(model.rnn.cell, published)
        self.post_rnn = inference_layers(model.post_rnn, published)
        self.skip_2x = inference_layers(model.skip_2x, published)
        self.skip_4x = inference_layers(model.skip_4x, published)
        layers = inference_layers(model.upsampling_2, published)
        self.up_2x = _Upsampling(layers, channels=cast("nn.Conv2d", self.post_cnn[-1]).out_channels)
        layers = inference_layers(model.post_upsampling_2, published)
        self.up_4x = _Upsampling(layers, channels=self.up_2x.project.out_channels)
        self.up_4x.project = compose_pointwise(self.up_4x.project, model.fusion(domain))
        self.smoothing, self.padding = polyphase(
            model.smoothing(domain).weight[0, 0], SMOOTHING_FACTOR
        )

    def forward(self, frames: Tensor, state_gru: Tensor | None = None) -> tuple[Tensor, ...]:
        """Predict maps.

        Args:
            frames: uint8 RGB, (batch, 1, height, width, 3).
            state_gru: (batch, 256, height/32, width/32); None for a static domain.

        Returns:
            The maps, (batch, height, width), maximum 1, and the next state if there is one.
        """
        # TensorRT reshapes no uint8: the cast comes first.
        x = frames.float().squeeze(1).permute(0, 3, 1, 2) - self.mean
        coarse, skip_2x, skip_4x = self.encoder(x)
        coarse = self.post_cnn(coarse) + self.prior
        states: tuple[Tensor, ...] = ()
        if self.gru is not None:
            assert state_gru is not None
            state = self.gru(coarse, state_gru)
            coarse = coarse + self.post_rnn(state)
            states = (state,)
        x = self.up_2x(coarse, self.skip_2x(skip_2x))
        x = self.up_4x(x, self.skip_4x(skip_4x))
        x = F.pad(x, [self.padding] * 4, mode="replicate")
        x = F.pixel_shuffle(self.smoothing(x), SMOOTHING_FACTOR).squeeze(1)
        return torch.exp(x - x.amax(dim=(1, 2), keepdim=True)), *states


class _Encoder(nn.Module):
    """The encoder with strides where only every other row and column is used."""

    def __init__(self, model: Unisal) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        self.shortcut = []
        self.subsample = []
        for index, layer in enumerate(model.cnn.features):
            shortcut, subsample = False, 1
            if isinstance(layer, InvertedResidual):
                block = inference_layers(layer.conv)
                shortcut = layer.shortcut
                if layer.subsample > 1 and index not in (TAP_2X, TAP_4X):
                    depthwise = block[-3]
                    assert isinstance(depthwise, nn.Conv2d)
                    depthwise.stride = (layer.subsample, layer.subsample)
                else:
                    subsample = layer.subsample
            else:
                assert isinstance(layer, nn.Sequential)
                block = inference_layers(layer)
            self.blocks.append(block)
            self.shortcut.append(shortcut)
            self.subsample.append(subsample)
        stem = self.blocks[0]
        assert isinstance(stem, nn.Sequential)
        assert isinstance(stem[0], nn.Conv2d)
        stem[0].weight.data /= 255 * torch.tensor(IMAGENET_STD)[:, None, None]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        taps = {}
        for index, block in enumerate(self.blocks):
            out = block(x)
            x = x + out if self.shortcut[index] else out
            if index in (TAP_2X, TAP_4X):
                taps[index] = x
            step = self.subsample[index]
            if step > 1:
                x = x[..., ::step, ::step]
        return x, taps[TAP_2X], taps[TAP_4X]


class _GRU(nn.Module):
    """The GRU's step with every normalisation and affine term folded."""

    def __init__(self, cell: ConvGRUCell, domain: str) -> None:
        super().__init__()

        def branch(
            separable: DomainSequential,
            norm: DomainBatchNorm2d,
            scale: Tensor,
            bias: Tensor | None,
        ) -> nn.Sequential:
            layers = inference_layers(separable, domain)
            last = layers[-1]
            assert isinstance(last, nn.Conv2d)
            layers[-1] = scaled(fold_batch_norm(last, norm.of(domain)), scale, bias)
            return layers

        self.r_x = branch(cell.w_r, cell.norm_r_x, cell.a_r_x, cell.b_r)
        self.r_h = branch(cell.u_r, cell.norm_r_h, cell.a_r_h, None)
        self.z_x = branch(cell.w_z, cell.norm_z_x, cell.a_z_x, cell.b_z)
        self.z_h = branch(cell.u_z, cell.norm_z_h, cell.a_z_h, None)
        self.h_x = branch(cell.w, cell.norm_out_x, cell.a_h_x, cell.b_h)
        self.h_h = branch(cell.u, cell.norm_out_h, cell.a_h_h, None)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        reset = torch.sigmoid(self.r_x(x) + self.r_h(state))
        update = torch.sigmoid(self.z_x(x) + self.z_h(state))
        candidate = torch.tanh(self.h_x(x) + reset * self.h_h(state))
        return state + update * (candidate - state)


class _Upsampling(nn.Module):
    """Inverted residual over an enlarged input and a skip connection.

    ``expand(cat(double(x), skip)) = double(expand_x(x)) + expand_skip(skip)``.
    """

    def __init__(self, layers: nn.Sequential, channels: int) -> None:
        super().__init__()
        expand, _, self.depthwise, _, project = layers
        assert isinstance(expand, nn.Conv2d)
        assert isinstance(project, nn.Conv2d)
        self.project = project
        self.expand_x, self.expand_skip = split_input(expand, channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(self.expand_x(x), scale_factor=2, mode="bilinear", align_corners=False)
        x = F.relu6(x + self.expand_skip(skip))
        out: Tensor = self.project(F.relu6(self.depthwise(x)))
        return out


def _post_cnn(model: Unisal, domain: str, size: tuple[int, int]) -> tuple[nn.Sequential, Tensor]:
    """Return the post-CNN block over the features alone, and the priors' share, a constant."""
    depthwise, relu, pointwise = inference_layers(model.post_cnn)
    assert isinstance(depthwise, nn.Conv2d)
    assert isinstance(pointwise, nn.Conv2d)
    small = (size[0] // SIZE_MULTIPLE, size[1] // SIZE_MULTIPLE)
    priors = gaussian_maps(model.gaussians(domain), small)[None]
    channels = depthwise.in_channels - priors.shape[1]
    first, first_of_priors = split_depthwise(depthwise, channels)
    second, second_of_priors = split_input(pointwise, channels)
    constant = second_of_priors(relu(first_of_priors(priors)))
    return nn.Sequential(first, relu, second), constant.detach()
