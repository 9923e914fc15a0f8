"""ESAN-VSP: frames aligned with the middle one of five, then a ConvLSTM both ways.

Chen, Song, Zhang, Liu and Liu, 'Video Saliency Prediction Using Enhanced Spatiotemporal
Alignment Network', 2020, arXiv:2001.00292. The state dict has the published names, so the
authors' checkpoints load with ``strict=True``. Where the published code differs from the
paper, it is followed:

- Both directions of the Bi-ConvLSTM run through ``lstm_forw``; ``lstm_back`` is unused.
- The backward pass's outputs are added in the order in which they are computed, the last
  group's first, so with n groups in one call map i has seen the backward state of group
  n - 1 - i. Groups that come one by one are not touched by this, and for them the two
  directions are the same.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from salstream.training.esan.align import Alignment, Pyramid

SIZE: Final = (256, 320)
SIZE_MULTIPLE: Final = 32
WINDOW: Final = 5
WINDOW_FPS: Final = 30.0  # of DHF1K, whose frames the clips take one by one
MAP_FRAME: Final = WINDOW // 2
CHANNELS: Final = 512
STATE_STRIDE: Final = 8
MAP_STRIDE: Final = 2

# The convolutions of VGG16 by output channels; M is max pooling.
_VGG16: Final = "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M"
_POOL_3, _POOL_4 = 16, 23


class LstmState(NamedTuple):
    """State of a ConvLSTM: hidden and cell, each (batch, 512, height/8, width/8)."""

    hidden: Tensor
    cell: Tensor


class EsanState(NamedTuple):
    """What a video's groups hand on: the state of each direction's pass."""

    forward: LstmState
    backward: LstmState


class ConvLSTMCell(nn.Module):
    """One step of a ConvLSTM (Eq. 10); one convolution gives all four gates."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * channels, 4 * channels, 3, padding=1)

    def forward(self, x: Tensor, state: LstmState) -> LstmState:
        """Return the next state; its hidden part is the output too."""
        gates = self.conv(torch.cat([x, state.hidden], dim=1))
        return step(gates, state.cell)


def step(gates: Tensor, cell: Tensor) -> LstmState:
    """Return the next state.

    Args:
        gates: Input, forget and output gate and candidate before their activations,
            (batch, 4 · channels, height, width).
        cell: (batch, channels, height, width).
    """
    write, keep, read, candidate = gates.chunk(4, dim=1)
    cell = keep.sigmoid() * cell + write.sigmoid() * candidate.tanh()
    return LstmState(read.sigmoid() * cell.tanh(), cell)


class ConvLSTM(nn.Module):
    """A ConvLSTM of one cell (the published code has room for more, and uses one)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cell_list = nn.ModuleList([ConvLSTMCell(channels)])

    @property
    def cell(self) -> ConvLSTMCell:
        """The one cell."""
        cell = self.cell_list[0]
        assert isinstance(cell, ConvLSTMCell)
        return cell

    def forward(self, sequence: list[Tensor], state: LstmState) -> tuple[list[Tensor], LstmState]:
        """Return the output of every step, and the state after the last."""
        outputs = []
        for x in sequence:
            state = self.cell(x, state)
            outputs.append(state.hidden)
        return outputs, state


class Esan(nn.Module):
    """VGG16, alignment with the group's middle frame, Bi-ConvLSTM and decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.base = _vgg16()
        self.pcd_align = Alignment(CHANNELS)
        self.final_conv = nn.Sequential(nn.Conv2d(CHANNELS, 1, 3, padding=1))
        self.L1_conv = nn.Sequential(nn.Conv2d(CHANNELS // 2, CHANNELS, 1))
        self.lstm_forw = ConvLSTM(CHANNELS)
        self.lstm_back = ConvLSTM(CHANNELS)
        self.sc_fusion = nn.Conv2d(WINDOW * CHANNELS, CHANNELS, 1)

    def initial_state(self, frames: Tensor) -> EsanState:
        """Return the zeros that a video starts from.

        Args:
            frames: (batch, time, 3, height, width).
        """
        batch, _, _, height, width = frames.shape
        zeros = frames.new_zeros(batch, CHANNELS, height // STATE_STRIDE, width // STATE_STRIDE)
        return EsanState(LstmState(zeros, zeros), LstmState(zeros, zeros))

    def forward(self, frames: Tensor, state: EsanState | None = None) -> tuple[Tensor, EsanState]:
        """Predict one map per group of 5 frames, for the group's middle frame.

        Args:
            frames: RGB after ``normalise``, (batch, time, 3, height, width),
                time a multiple of 5, height and width multiples of 32.
            state: State after the call before; None starts a video.

        Returns:
            Maps in [0, 1], (batch, time/5, height/2, width/2), and the state after the last
            step of each direction, which for the backward one is the first group.
        """
        batch, _, _, height, width = frames.shape
        state = self.initial_state(frames) if state is None else state
        pyramid = self.features(frames.flatten(0, 1))
        reference = tuple(_middle(level) for level in pyramid)
        aligned = self.pcd_align(pyramid, reference)
        groups = aligned.unflatten(0, (batch, -1, WINDOW)).flatten(2, 3).unbind(dim=1)
        sequence = [self.sc_fusion(group) for group in groups]
        forward, forward_end = self.lstm_forw(sequence, state.forward)
        backward, backward_end = self.lstm_forw(sequence[::-1], state.backward)
        # Not turned round again: as published, see above.
        both = torch.stack([f + b for f, b in zip(forward, backward, strict=True)], dim=1)
        maps = self.final_conv(both.flatten(0, 1))
        size = (height // MAP_STRIDE, width // MAP_STRIDE)
        maps = F.interpolate(maps, size=size, mode="bilinear", align_corners=False).sigmoid()
        return maps.view(batch, -1, *size), EsanState(forward_end, backward_end)

    def features(self, frames: Tensor) -> Pyramid:
        """Return what is aligned: the features after the third, fourth and fifth pooling.

        Args:
            frames: Normalised RGB, (batch, 3, height, width).

        Returns:
            (batch, 512, height/8, width/8), and the same of 16 and 32.
        """
        to_pool_3, to_pool_4, to_pool_5 = self.stages()
        pool_3 = to_pool_3(frames)
        pool_4 = to_pool_4(pool_3)
        return self.L1_conv(pool_3), pool_4, to_pool_5(pool_4)

    def stages(self) -> tuple[nn.Sequential, nn.Sequential, nn.Sequential]:
        """Return VGG16 in three parts that end with its third, fourth and fifth pooling."""
        first, second = _POOL_3 + 1, _POOL_4 + 1
        layers = list(self.base)
        parts = layers[:first], layers[first:second], layers[second:]
        return nn.Sequential(*parts[0]), nn.Sequential(*parts[1]), nn.Sequential(*parts[2])


def _middle(level: Tensor) -> Tensor:
    """Return the middle frame's features in place of each frame's, group by group."""
    groups = level.view(-1, WINDOW, *level.shape[1:])
    return groups[:, MAP_FRAME : MAP_FRAME + 1].expand_as(groups).flatten(0, 1)


def _vgg16() -> nn.Sequential:
    """Return VGG16's convolutional part, numbered as everywhere."""
    layers: list[nn.Module] = []
    channels = 3
    for item in _VGG16.split():
        if item == "M":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, int(item), 3, padding=1), nn.ReLU(inplace=True)]
            channels = int(item)
    return nn.Sequential(*layers)
