"""Gaussian smoothing as two matrix products, which every backend runs."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

# As scipy.ndimage.gaussian_filter cuts it off.
TRUNCATE: Final = 4.0


def gaussian_matrix(size: int, sigma: float) -> Tensor:
    """Return the banded matrix that smooths one axis.

    ``gaussian_matrix(h, s) @ map @ gaussian_matrix(w, s).T`` equals
    ``scipy.ndimage.gaussian_filter(map, s)`` with its border rule ``reflect``.

    Args:
        size: Length of the axis.
        sigma: Standard deviation in pixels; 0 gives the identity.

    Returns:
        float32, (size, size), rows of sum 1.
    """
    radius = int(TRUNCATE * sigma + 0.5)
    offset = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-(offset.double() ** 2) / (2 * sigma**2)) if radius else torch.ones(1)
    source = torch.arange(size)[:, None] + offset
    # reflect: … b a | a b … y z | z y …
    source = source.remainder(2 * size)
    source = torch.where(source < size, source, 2 * size - 1 - source)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    matrix.scatter_add_(1, source, (kernel / kernel.sum()).double().expand(size, -1).contiguous())
    return matrix.float()
