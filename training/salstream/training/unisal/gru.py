"""The convolutional GRU of UNISAL's Bypass-RNN (section 3.2).

Every convolution is MobileNet style: 3×3 depthwise, BatchNorm, ReLU6, 1×1. The affine
terms ``a_*`` and ``b_*`` and the dropout mask are entries of the published state dict.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from salstream.training.layers import DomainBatchNorm2d, DomainSequential

RECURRENT_DROPOUT = 0.2

Norm = Callable[[int], DomainBatchNorm2d]


class ConvGRUCell(nn.Module):
    """One step of the GRU, with a normalisation on each of its six convolutions."""

    drop_mask_1: Tensor

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.channels = channels
        self.norm_r_x = norm(channels)
        self.norm_r_h = norm(channels)
        self.norm_z_x = norm(channels)
        self.norm_z_h = norm(channels)
        self.norm_out_x = norm(channels)
        self.norm_out_h = norm(channels)
        self.register_buffer("drop_mask_1", torch.ones(3, channels))
        self.w_r = _separable(channels, norm)
        self.u_r = _separable(channels, norm)
        self.w_z = _separable(channels, norm)
        self.u_z = _separable(channels, norm)
        self.w = _separable(channels, norm)
        self.u = _separable(channels, norm)
        self.b_r, self.b_z, self.b_h = (nn.Parameter(torch.zeros(channels, 1, 1)) for _ in range(3))
        self.a_r_x, self.a_r_h, self.a_z_x, self.a_z_h, self.a_h_x, self.a_h_h = (
            nn.Parameter(torch.ones(channels, 1, 1)) for _ in range(6)
        )

    def sample_dropout(self) -> None:
        """Draw the mask that the hidden state keeps for a whole sequence (Gal et al., 2016)."""
        keep = torch.full_like(self.drop_mask_1, 1 - RECURRENT_DROPOUT)
        self.drop_mask_1 = torch.bernoulli(keep) / (1 - RECURRENT_DROPOUT)

    def forward(self, x: Tensor, state: Tensor, domain: str) -> Tensor:
        """Return the next state.

        Args:
            x: Input, (batch, channels, height, width).
            state: Hidden state of the step before, same shape.
            domain: Published name of the batch's domain.
        """
        for_r, for_z, for_h = state, state, state
        if self.training:
            masks = self.drop_mask_1[:, None, :, None, None]
            for_r, for_z, for_h = state * masks[0], state * masks[1], state * masks[2]
        r_x = self.norm_r_x(self.w_r(x, domain), domain) * self.a_r_x
        r_h = self.norm_r_h(self.u_r(for_r, domain), domain) * self.a_r_h
        z_x = self.norm_z_x(self.w_z(x, domain), domain) * self.a_z_x
        z_h = self.norm_z_h(self.u_z(for_z, domain), domain) * self.a_z_h
        h_x = self.norm_out_x(self.w(x, domain), domain) * self.a_h_x
        h_h = self.norm_out_h(self.u(for_h, domain), domain) * self.a_h_h
        reset = torch.sigmoid(r_x + r_h + self.b_r)
        update = torch.sigmoid(z_x + z_h + self.b_z)
        candidate = torch.tanh(h_x + reset * h_h + self.b_h)
        return (1 - update) * state + update * candidate


class ConvGRU(nn.Module):
    """A GRU of one cell (the published network has room for more, and uses one)."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.cell_list = nn.ModuleList([ConvGRUCell(channels, norm)])

    @property
    def cell(self) -> ConvGRUCell:
        """The one cell."""
        cell = self.cell_list[0]
        assert isinstance(cell, ConvGRUCell)
        return cell

    def forward(self, x: Tensor, state: Tensor, domain: str) -> Tensor:
        """Return the next state, which is the output too."""
        next_state: Tensor = self.cell(x, state, domain)
        return next_state


def _separable(channels: int, norm: Norm) -> DomainSequential:
    return DomainSequential(
        OrderedDict(
            conv_dw=nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            sep_bn=norm(channels),
            sep_relu=nn.ReLU6(),
            conv_sep=nn.Conv2d(channels, channels, 1, bias=False),
        )
    )
