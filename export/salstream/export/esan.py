"""ESAN-VSP as a deployable graph: five raw frames in, the middle one's finished map out.

The same function as :class:`salstream.training.esan.Esan` in eval mode, group by group
from a zero state, rewritten exactly:

- Both directions run through the same ConvLSTM. Of a group that comes alone they see the
  same, so their states never differ: one pass, doubled in the decoder's weights, and one
  state instead of two.
- A convolution over a frame's and the reference frame's features is a sum of two; the
  reference frame's share is computed once per group, not five times.
- The 1×1 convolution before level 1 has no activation, so it is folded into the 3×3
  convolutions that follow it, which then read 256 channels instead of 512. Zero padding
  comes between the two, so its bias becomes a constant map.
- The scaling of the input, of coarser offsets and of sampling positions is folded into
  convolutions.

The operators are standard ones of opset 18: deformable convolution is GridSample.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from salstream.training.esan import MAP_FRAME, SIZE, WINDOW, Esan
from salstream.training.esan.align import Alignment, Pyramid, double, lrelu
from salstream.training.esan.deformable import DeformableConv2d, sample, tap_positions
from salstream.training.esan.model import (
    CHANNELS,
    MAP_STRIDE,
    STATE_STRIDE,
    step,
)
from salstream.training.layers import IMAGENET_MEAN, IMAGENET_STD


class DeployableEsan(nn.Module):
    """ESAN-VSP for groups of five frames that come one by one.

    Args:
        model: The trained network.
        size: Height and width of the input, multiples of 32.
    """

    mean: Tensor

    def __init__(self, model: Esan, size: tuple[int, int] = SIZE) -> None:
        super().__init__()
        model = copy.deepcopy(model).eval()
        self.register_buffer("mean", 255 * torch.tensor(IMAGENET_MEAN)[:, None, None])
        stem = model.base[0]
        assert isinstance(stem, nn.Conv2d)
        stem.weight.data /= 255 * torch.tensor(IMAGENET_STD)[:, None, None]
        self.pool_3, self.pool_4, self.pool_5 = model.stages()
        entry = model.L1_conv[0]
        assert isinstance(entry, nn.Conv2d)
        self.align = _Alignment(
            model.pcd_align, entry, (size[0] // STATE_STRIDE, size[1] // STATE_STRIDE)
        )
        self.fusion = model.sc_fusion
        self.gates = model.lstm_forw.cell.conv
        decoder = model.final_conv[0]
        assert isinstance(decoder, nn.Conv2d)
        decoder.weight.data *= 2  # forward plus backward
        self.decoder = decoder

    def forward(
        self, frames: Tensor, state_hidden: Tensor, state_cell: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predict the map of the middle frame.

        Args:
            frames: uint8 RGB, (batch, 5, height, width, 3).
            state_hidden: Of the ConvLSTM, (batch, 512, height/8, width/8); zeros at the start.
            state_cell: The same.

        Returns:
            The maps, (batch, height/2, width/2), maximum 1, and the next states.
        """
        # TensorRT transposes no uint8: the cast comes first.
        x = frames.float().flatten(0, 1).permute(0, 3, 1, 2) - self.mean
        pool_3 = self.pool_3(x)
        pool_4 = self.pool_4(pool_3)
        aligned = self.align((pool_3, pool_4, self.pool_5(pool_4)))
        fused = self.fusion(aligned.reshape(-1, WINDOW * CHANNELS, *aligned.shape[-2:]))
        gates = self.gates(torch.cat([fused, state_hidden], dim=1))
        hidden, cell = step(gates, state_cell)
        x = F.interpolate(
            self.decoder(hidden),
            scale_factor=STATE_STRIDE // MAP_STRIDE,
            mode="bilinear",
            align_corners=False,
        )
        # The sigmoid's logarithm: no map can vanish, and the maximum is 1 exactly.
        x = -F.softplus(-x.squeeze(1))
        return torch.exp(x - x.amax(dim=(1, 2), keepdim=True)), hidden, cell


class _Alignment(nn.Module):
    """The alignment of a group's frames with its middle one.

    Args:
        trained: The layers.
        entry: The 1×1 convolution before level 1.
        size: Height and width of level 1.
    """

    def __init__(self, trained: Alignment, entry: nn.Conv2d, size: tuple[int, int]) -> None:
        super().__init__()
        for coarser in (trained.L2_offset_conv2, trained.L1_offset_conv2):
            coarser.weight.data[:, CHANNELS:] *= 2
        level_1, level_2, level_3 = ((size[0] // n, size[1] // n) for n in (1, 2, 4))
        self.trained = trained
        self.entry = entry
        self.deform_3 = _Deformable(trained.L3_dcnpack, level_3)
        self.deform_2 = _Deformable(trained.L2_dcnpack, level_2)
        self.deform_1 = _Deformable(trained.L1_dcnpack, level_1)
        self.deform_again = _Deformable(trained.cas_dcnpack, level_1)
        self.first_3 = _WithReference(trained.L3_offset_conv1)
        self.first_2 = _WithReference(trained.L2_offset_conv1)
        self.first_1 = _WithReference(trained.L1_offset_conv1, entry, entry, size)
        self.first_again = _WithReference(trained.cas_offset_conv1, None, entry, size)

    def forward(self, pools: Pyramid) -> Tensor:
        """Return aligned features, (batch · 5, 512, height, width) of level 1.

        Args:
            pools: What comes out of VGG16's third, fourth and fifth pooling, of all frames.
        """
        x1, x2, x3 = pools
        r1, r2, r3 = (x.view(-1, WINDOW, *x.shape[1:])[:, MAP_FRAME] for x in pools)
        of = self.trained

        offset3 = lrelu(of.L3_offset_conv2(lrelu(self.first_3(x3, r3))))
        aligned3 = lrelu(self.deform_3(x3, offset3))

        offset2 = torch.cat([lrelu(self.first_2(x2, r2)), double(offset3)], dim=1)
        offset2 = lrelu(of.L2_offset_conv3(lrelu(of.L2_offset_conv2(offset2))))
        aligned2 = torch.cat([self.deform_2(x2, offset2), double(aligned3)], dim=1)
        aligned2 = lrelu(of.L2_fea_conv(aligned2))

        offset1 = torch.cat([lrelu(self.first_1(x1, r1)), double(offset2)], dim=1)
        offset1 = lrelu(of.L1_offset_conv3(lrelu(of.L1_offset_conv2(offset1))))
        aligned1 = torch.cat([self.deform_1(self.entry(x1), offset1), double(aligned2)], dim=1)
        aligned1 = of.L1_fea_conv(aligned1)

        offset = lrelu(of.cas_offset_conv2(lrelu(self.first_again(aligned1, r1))))
        return lrelu(self.deform_again(aligned1, offset))


class _Deformable(nn.Module):
    """A deformable convolution: positions and masks from one convolution, samples, a 1×1 one.

    Args:
        trained: The layer.
        size: Height and width of its input.
    """

    positions: Tensor

    def __init__(self, trained: DeformableConv2d, size: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("positions", tap_positions(size).float())
        self.taps = len(self.positions)
        self.offsets = 2 * self.taps * trained.groups
        # (y, x) in pixels becomes (x, y) in units of half the picture.
        height, width = size
        order = torch.arange(trained.conv_offset_mask.out_channels)
        order[: self.offsets] = order[: self.offsets].view(-1, 2).flip(1).flatten()
        scale = torch.ones(len(order))
        scale[: self.offsets] = torch.tensor([2 / width, 2 / height]).repeat(self.offsets // 2)
        self.plan = trained.conv_offset_mask
        assert self.plan.bias is not None
        self.plan.weight.data = self.plan.weight.data[order] * scale[:, None, None, None]
        self.plan.bias.data = self.plan.bias.data[order] * scale
        self.conv = nn.Conv2d(trained.weight[0].numel(), len(trained.weight), 1)
        self.conv.weight.data = trained.weight.data.flatten(1)[:, :, None, None]
        assert self.conv.bias is not None
        self.conv.bias.data = trained.bias.data

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        plan = self.plan(features)
        moves = plan[:, : self.offsets].reshape(-1, self.taps, 2, *x.shape[-2:])
        grid = self.positions + moves.permute(0, 1, 3, 4, 2)
        out: Tensor = self.conv(sample(x, grid, plan[:, self.offsets :].sigmoid()))
        return out


class _WithReference(nn.Module):
    """``conv(cat(frame, reference))`` with the reference frame's share computed once a group.

    Args:
        conv: The convolution.
        of_frame: A 1×1 convolution that the frame's features went through before, folded.
        of_reference: The same of the reference frame's.
        size: Height and width of the features; needed to fold.
    """

    def __init__(
        self,
        conv: nn.Conv2d,
        of_frame: nn.Conv2d | None = None,
        of_reference: nn.Conv2d | None = None,
        size: tuple[int, int] = (1, 1),
    ) -> None:
        super().__init__()
        half = conv.in_channels // 2
        assert conv.bias is not None
        constant = conv.bias.data[:, None, None]
        self.frame, constant_1 = _after(conv.weight.data[:, :half], of_frame, size)
        self.reference, constant_2 = _after(conv.weight.data[:, half:], of_reference, size)
        self.register_buffer("constant", constant + constant_1 + constant_2)

    constant: Tensor

    def forward(self, frame: Tensor, reference: Tensor) -> Tensor:
        """Convolve.

        Args:
            frame: (batch · 5, channels, height, width).
            reference: (batch, channels, height, width).
        """
        shared = (self.reference(reference) + self.constant).unsqueeze(1)
        own = self.frame(frame)
        both: Tensor = own.view(-1, WINDOW, *own.shape[1:]) + shared
        return both.flatten(0, 1)


def _after(
    weight: Tensor, pointwise: nn.Conv2d | None, size: tuple[int, int]
) -> tuple[nn.Conv2d, Tensor]:
    """Fold a 1×1 convolution into the zero-padded 3×3 one that follows it.

    Args:
        weight: Of the latter.
        pointwise: The former; None folds nothing.
        size: Height and width of the features.

    Returns:
        The convolution, without a bias, and what the 1×1 one's bias adds to its output.
    """
    constant = torch.zeros(1, 1, 1)
    if pointwise is not None:
        assert pointwise.bias is not None
        bias = pointwise.bias.data[:, None, None].expand(-1, *size)
        constant = F.conv2d(bias[None], weight, padding=1)[0]
        inner = pointwise.weight.data.flatten(1)
        weight = torch.einsum("ochw,ci->oihw", weight, inner)
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, bias=False)
    conv.weight.data = weight.clone()
    return conv, constant
