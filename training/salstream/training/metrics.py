"""How well a saliency map says where people looked: the six metrics of the MIT benchmark.

One map against the fixations, or the density map, of one frame. The definitions are those of
the MIT saliency benchmark's code (Bylinskii, Judd, Oliva, Torralba and Durand: 'What do
different evaluation metrics tell us about saliency models?', IEEE TPAMI 2019). All arithmetic
is float64, nothing is random.

Fixations are points, integers of shape (k, 2) as (y, x) in pixels of the map, or a boolean map
of its shape. A pixel that was fixated twice counts once.

What has no answer:

- Without fixations, or with a density map that is zero everywhere, every metric is NaN: there
  is nothing to compare with, and such frames are left out of means.
- A constant saliency map says nothing, so it scores as chance does: NSS and CC 0, AUC-Judd and
  s-AUC 0.5, and the even distribution for SIM and KLD. (The MIT code divides 0 by 0 here; a
  network that has died must not be left out of a mean for that.)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.errors import UsageError

__all__ = ["auc_judd", "cc", "kld", "nss", "s_auc", "sim"]

_EPSILON: Final = 2.220446049250313e-16  # MATLAB's eps
_BLOCK: Final = 1 << 15
_THRESHOLDS: Final = np.linspace(1.0, 0.0, 11)  # of s-AUC; step 0.1, highest first

Array = NDArray[Any]


def nss(saliency: Array, fixations: Array) -> float:
    """Normalised scanpath saliency: mean of the standardised map at the fixations.

    The standard deviation is the sample's (N - 1), as in MATLAB. Chance is 0, higher is better.
    Peters, Iyer, Itti and Koch, Vision Research 2005.

    Args:
        saliency: (height, width), any real dtype and scale.
        fixations: Points or boolean map.

    Raises:
        UsageError: A shape does not fit, a value is not finite, or a fixation lies outside.
    """
    saliency = _checked(saliency)
    at = _fixated(saliency, fixations)
    if not at.size:
        return np.nan
    values = saliency.ravel()[at].astype(np.float64)
    mean, std = _moments(saliency)
    return float((values.mean() - mean) / std) if std > 0 else 0.0


def cc(saliency: Array, density: Array) -> float:
    """Linear (Pearson) correlation of two maps, in [-1, 1].

    Args:
        saliency: (height, width), any real dtype and scale.
        density: Density map of the same shape.

    Raises:
        UsageError: A shape does not fit, or a value is not finite.
    """
    saliency, density = _pair(saliency, density)
    if not density.any():
        return np.nan
    if _constant(saliency) or _constant(density):
        return 0.0
    mean_a, mean_b = saliency.mean(dtype=np.float64), density.mean(dtype=np.float64)
    products = np.zeros(3)
    for a, b in _blocks(saliency, density):
        x, y = a - mean_a, b - mean_b
        products += x @ y, x @ x, y @ y
    return float(products[0] / np.sqrt(products[1] * products[2]))


def sim(saliency: Array, density: Array) -> float:
    """Similarity, or histogram intersection, in [0, 1]: the sum of the smaller values.

    Both maps are stretched to [0, 1], then scaled to sum 1. Judd, Durand and Torralba, MIT
    technical report 2012.

    Args:
        saliency: (height, width), any real dtype and scale.
        density: Density map of the same shape.

    Raises:
        UsageError: A shape does not fit, or a value is not finite.
    """
    saliency, density = _pair(saliency, density)
    if not density.any():
        return np.nan
    (low_a, scale_a), (low_b, scale_b) = _stretch(saliency), _stretch(density)
    total = 0.0
    for a, b in _blocks(saliency, density):
        total += float(np.minimum((a - low_a) * scale_a, (b - low_b) * scale_b).sum())
    return total


def kld(saliency: Array, density: Array) -> float:
    """Kullback-Leibler divergence of the map from the density; 0 is best.

    Both are scaled to sum 1; ``sum(Q log(eps + Q / (P + eps)))`` with the density Q, the map P
    and eps 2.2e-16.

    Args:
        saliency: (height, width), not negative, any scale.
        density: Density map of the same shape, not negative.

    Raises:
        UsageError: A shape does not fit, or a value is negative or not finite.
    """
    saliency, density = _pair(saliency, density)
    if saliency.min() < 0 or density.min() < 0:
        raise UsageError("KLD compares distributions, and one of the maps has negative values")
    if not density.any():
        return np.nan
    sum_p, sum_q = saliency.sum(dtype=np.float64), density.sum(dtype=np.float64)
    total = 0.0
    for a, b in _blocks(saliency, density):
        p, q = a / sum_p if sum_p > 0 else 1 / saliency.size, b / sum_q
        total += float(q @ np.log(_EPSILON + q / (p + _EPSILON)))
    return total


def auc_judd(saliency: Array, fixations: Array) -> float:
    """Area under the ROC curve with one threshold per fixation, without jitter.

    At the threshold of the i-th highest fixation, i of the fixations and all pixels of at least
    its value count as found; pixels without a fixation are the negatives. (Among fixations of
    equal value the MIT code counts one after the other, and so does this.) Chance is 0.5. Judd,
    Ehinger, Durand and Torralba, ICCV 2009.

    Args:
        saliency: (height, width), any real dtype and scale.
        fixations: Points or boolean map.

    Raises:
        UsageError: A shape does not fit, a value is not finite, or a fixation lies outside.
    """
    saliency = _checked(saliency)
    at = _fixated(saliency, fixations)
    negatives = saliency.size - at.size
    if not at.size or not negatives:
        return np.nan
    ranked = np.sort(saliency, axis=None)
    if ranked[0] == ranked[-1]:
        return 0.5
    thresholds = np.sort(saliency.ravel()[at])[::-1]
    found = np.arange(1, at.size + 1)
    above = ranked.size - np.searchsorted(ranked, thresholds, side="left")
    hits = np.concatenate(([0.0], found / at.size, [1.0]))
    false_alarms = np.concatenate(([0.0], (above - found) / negatives, [1.0]))
    return float(np.trapezoid(hits, false_alarms))


def s_auc(saliency: Array, fixations: Array, others: Array) -> float:
    """Shuffled AUC: the negatives are fixations of other images, which share the centre bias.

    The map is stretched to [0, 1] and thresholded in steps of 0.1. The MIT code averages over
    100 random subsets of the other fixations; because the area is linear in the rate of false
    alarms, the mean over all subsets is the area with all of them, and that is what this
    returns. Chance is 0.5. Zhang, Tong, Marks, Shan and Cottrell, Journal of Vision 2008.

    Args:
        saliency: (height, width), any real dtype and scale.
        fixations: Points or boolean map.
        others: Fixations of other images or videos, in pixels of this map; points or map.

    Raises:
        UsageError: A shape does not fit, a value is not finite, or a fixation lies outside.
    """
    saliency = _checked(saliency)
    at, elsewhere = _fixated(saliency, fixations), _fixated(saliency, others)
    if not at.size or not elsewhere.size:
        return np.nan
    low, high = float(saliency.min()), float(saliency.max())
    if low == high:
        return 0.5
    hits, false_alarms = (
        np.concatenate(([0.0], _share_above(saliency.ravel()[of], low, high), [1.0]))
        for of in (at, elsewhere)
    )
    return float(np.trapezoid(hits, false_alarms))


def _share_above(values: Array, low: float, high: float) -> NDArray[np.float64]:
    """Return which share of the values reaches each threshold, highest threshold first."""
    ranked = np.sort((values.astype(np.float64) - low) / (high - low))
    return 1 - np.searchsorted(ranked, _THRESHOLDS, side="left") / ranked.size


def _blocks(a: Array, b: Array) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield both maps in float64, piece by piece: pieces stay in the cache, maps do not."""
    a, b = a.ravel(), b.ravel()
    for begin in range(0, a.size, _BLOCK):
        piece = slice(begin, begin + _BLOCK)
        yield a[piece].astype(np.float64), b[piece].astype(np.float64)


def _moments(saliency: Array) -> tuple[float, float]:
    """Mean and sample standard deviation; exactly 0 for a constant map."""
    if _constant(saliency):
        return float(saliency.flat[0]), 0.0
    mean = float(saliency.mean(dtype=np.float64))
    centred = np.subtract(saliency, mean, dtype=np.float64).ravel()
    return mean, float(np.sqrt(centred @ centred / (centred.size - 1)))


def _stretch(values: Array) -> tuple[float, float]:
    """What to subtract, and what to multiply by, for minimum 0 and sum 1."""
    low, high = float(values.min()), float(values.max())
    if low == high:  # the even distribution
        return low - 1.0, 1 / values.size
    return low, 1 / (float(values.sum(dtype=np.float64)) - low * values.size)


def _constant(values: Array) -> bool:
    return bool(values.min() == values.max())


def _checked(values: Array) -> Array:
    """Refuse what is not a map; the dtype stays, and sums are taken in float64."""
    if values.ndim != 2 or not values.size:
        raise UsageError(f"a map must have the shape (height, width), got {values.shape}")
    if values.dtype.kind not in "buif":
        raise UsageError(f"a map must be real numbers, got {values.dtype}")
    if values.dtype.kind == "f" and not np.isfinite(values.sum(dtype=np.float64)):
        raise UsageError("a map has values that are not finite")
    return values if values.dtype.kind == "f" else values.astype(np.float64)


def _pair(saliency: Array, density: Array) -> tuple[Array, Array]:
    if saliency.shape != density.shape:
        raise UsageError(
            f"a map of shape {saliency.shape} cannot be compared with one of {density.shape}; "
            "bring both to the same size"
        )
    return _checked(saliency), _checked(density)


def _fixated(saliency: Array, fixations: Array) -> NDArray[np.intp]:
    """Return the flat indices of the fixated pixels, each once."""
    if fixations.dtype == np.bool_:
        if fixations.shape != saliency.shape:
            raise UsageError(
                f"a fixation map of shape {fixations.shape} does not fit a map of shape "
                f"{saliency.shape}"
            )
        return np.flatnonzero(fixations)
    if fixations.ndim != 2 or fixations.shape[1] != 2 or fixations.dtype.kind not in "iu":
        raise UsageError(
            "fixations must be integers of shape (k, 2) as (y, x), or a boolean map; got "
            f"{fixations.dtype} of shape {fixations.shape}"
        )
    y, x = fixations[:, 0], fixations[:, 1]
    height, width = saliency.shape
    outside = (y < 0) | (y >= height) | (x < 0) | (x >= width)
    if outside.any():
        first = fixations[outside][0]
        raise UsageError(
            f"the fixation at y {first[0]}, x {first[1]} lies outside of the map of "
            f"{height}x{width}"
        )
    return np.unique(y.astype(np.intp) * width + x)
