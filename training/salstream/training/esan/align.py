"""Multi-scale deformable alignment (ESAN-VSP, section 3.2), published as ``pcd_align``.

The features of one frame are moved to where a reference frame has them: the coarsest
level first, whose offsets and aligned features then guide the next finer one, and at the
end once more from what came out. Levels 1, 2 and 3 are the paper's p3, p4 and p5.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from salstream.training.esan.deformable import DeformableConv2d

# A level each: (batch, channels, height, width), every next one half as high and wide.
Pyramid = tuple[Tensor, Tensor, Tensor]

_GROUPS = 8
_SLOPE = 0.1


class Alignment(nn.Module):
    """Aligns a frame's features with a reference frame's.

    Args:
        channels: Of every level.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        conv = partial(nn.Conv2d, out_channels=channels, kernel_size=3, padding=1)
        deformable = partial(DeformableConv2d, channels, _GROUPS)
        self.L3_offset_conv1 = conv(2 * channels)
        self.L3_offset_conv2 = conv(channels)
        self.L3_dcnpack = deformable()
        self.L2_offset_conv1 = conv(2 * channels)
        self.L2_offset_conv2 = conv(2 * channels)
        self.L2_offset_conv3 = conv(channels)
        self.L2_dcnpack = deformable()
        self.L2_fea_conv = conv(2 * channels)
        self.L1_offset_conv1 = conv(2 * channels)
        self.L1_offset_conv2 = conv(2 * channels)
        self.L1_offset_conv3 = conv(channels)
        self.L1_dcnpack = deformable()
        self.L1_fea_conv = conv(2 * channels)
        self.cas_offset_conv1 = conv(2 * channels)
        self.cas_offset_conv2 = conv(channels)
        self.cas_dcnpack = deformable()

    def forward(self, frame: Pyramid, reference: Pyramid) -> Tensor:
        """Return the frame's aligned features, (batch, channels, height, width) of level 1."""
        x1, x2, x3 = frame
        r1, r2, r3 = reference

        offset3 = lrelu(self.L3_offset_conv1(torch.cat([x3, r3], dim=1)))
        offset3 = lrelu(self.L3_offset_conv2(offset3))
        aligned3 = lrelu(self.L3_dcnpack(x3, offset3))

        offset2 = lrelu(self.L2_offset_conv1(torch.cat([x2, r2], dim=1)))
        # A pixel of the coarser level is two of this one.
        offset2 = torch.cat([offset2, 2 * double(offset3)], dim=1)
        offset2 = lrelu(self.L2_offset_conv3(lrelu(self.L2_offset_conv2(offset2))))
        aligned2 = torch.cat([self.L2_dcnpack(x2, offset2), double(aligned3)], dim=1)
        aligned2 = lrelu(self.L2_fea_conv(aligned2))

        offset1 = lrelu(self.L1_offset_conv1(torch.cat([x1, r1], dim=1)))
        offset1 = torch.cat([offset1, 2 * double(offset2)], dim=1)
        offset1 = lrelu(self.L1_offset_conv3(lrelu(self.L1_offset_conv2(offset1))))
        aligned1 = torch.cat([self.L1_dcnpack(x1, offset1), double(aligned2)], dim=1)
        aligned1 = self.L1_fea_conv(aligned1)

        offset = lrelu(self.cas_offset_conv1(torch.cat([aligned1, r1], dim=1)))
        offset = lrelu(self.cas_offset_conv2(offset))
        return lrelu(self.cas_dcnpack(aligned1, offset))


def lrelu(x: Tensor) -> Tensor:
    """Return the alignment's activation."""
    return F.leaky_relu(x, _SLOPE)


def double(x: Tensor) -> Tensor:
    """Enlarge to twice the height and width."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
