"""What training minimises: divergences of saliency maps, and the domain classifiers' loss.

Maps are (batch, maps, height, width) unless said otherwise; every loss is a mean over batch
and maps. A map of the ground truth that is zero everywhere (nobody looked) has no answer and
adds 0, and so does its gradient.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON: Final = 2.2e-16  # inside HD2S's logarithm, as published

# The weights of NSS and CC beside KLD in UNISAL (section 4.1, as in ACLNet's training).
UNISAL_WEIGHT: Final = 0.1


def kld(saliency: Tensor, density: Tensor) -> Tensor:
    """Kullback-Leibler divergence, one term of HD2S's Eq. 1.

    Args:
        saliency: Not negative, any scale.
        density: Ground truth, same shape, not negative, any scale.
    """
    p, q = _distribution(saliency), _distribution(density)
    return _mean((q * torch.log(EPSILON + q / (p + EPSILON))).sum(dim=(-2, -1)), density)


def multi_level_kld(saliency: Tensor, conspicuity: Tensor | None, density: Tensor) -> Tensor:
    """HD2S's saliency loss (Eq. 1): the divergence of every conspicuity map, plus the output's.

    Args:
        saliency: (batch, height, width).
        conspicuity: (batch, levels, height, width); None leaves their terms out, which is the
            ablation of Table 3.
        density: (batch, height, width).
    """
    density = density[:, None]
    loss = kld(saliency[:, None], density)
    if conspicuity is not None:
        for level in conspicuity.unbind(dim=1):
            loss = loss + kld(level[:, None], density)
    return loss


def domain_loss(domains: Tensor, target: bool) -> Tensor:
    """HD2S's domain classification loss: Eq. 2, summed over the levels as in Eq. 3.

    Args:
        domains: Log-probabilities of source and target, (batch, levels, 2).
        target: Whether the clips are the target domain's (d = 1).
    """
    return -domains[..., int(target)].mean(dim=0).sum()


def nss(saliency: Tensor, fixations: Tensor) -> Tensor:
    """Mean of the standardised maps at the fixations; larger is better.

    Args:
        saliency: Any scale.
        fixations: Boolean, same shape; maps without a fixation are left out.
    """
    centred = saliency - saliency.mean(dim=(-2, -1), keepdim=True)
    standardised = centred / (saliency.std(dim=(-2, -1), keepdim=True) + EPSILON)
    count = fixations.sum(dim=(-2, -1))
    total = (standardised * fixations).sum(dim=(-2, -1))
    return _mean(total / count.clamp_min(1), fixations)


def cc(saliency: Tensor, density: Tensor) -> Tensor:
    """Linear correlation of maps of any scale; larger is better."""
    a = saliency - saliency.mean(dim=(-2, -1), keepdim=True)
    b = density - density.mean(dim=(-2, -1), keepdim=True)
    # Unit length first: distributions over many pixels square to less than float32 holds.
    a, b = (F.normalize(x.flatten(-2), dim=-1, eps=1e-30) for x in (a, b))
    return _mean((a * b).sum(dim=-1), density)


def sim(saliency: Tensor, density: Tensor) -> Tensor:
    """Intersection of maps of sum 1 (ESAN-VSP, Eq. 14); larger is better."""
    common = torch.minimum(_distribution(saliency), _distribution(density))
    return _mean(common.sum(dim=(-2, -1)), density)


def unisal_loss(logarithms: Tensor, density: Tensor, fixations: Tensor) -> Tensor:
    """UNISAL's loss: KLD − 0.1 NSS − 0.1 CC.

    Args:
        logarithms: Of maps that are distributions over their pixels.
        density: Not negative, any scale.
        fixations: Boolean.
    """
    q = _distribution(density)
    # xlogy is 0 where the density is.
    divergence = (torch.special.xlogy(q, q) - q * logarithms).sum(dim=(-2, -1))
    saliency = logarithms.exp()
    closeness = nss(saliency, fixations) + cc(saliency, density)
    return _mean(divergence, density) - UNISAL_WEIGHT * closeness


def esan_loss(saliency: Tensor, density: Tensor, fixations: Tensor) -> Tensor:
    """ESAN-VSP's loss (Eq. 12): KLD − NSS − SIM − CC.

    Args:
        saliency: Not negative, any scale.
        density: Not negative, any scale.
        fixations: Boolean.
    """
    closeness = nss(saliency, fixations) + sim(saliency, density) + cc(saliency, density)
    return kld(saliency, density) - closeness


def _distribution(maps: Tensor) -> Tensor:
    """Scale to sum 1; zeros stay zeros."""
    return maps / maps.sum(dim=(-2, -1), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)


def _mean(values: Tensor, truth: Tensor) -> Tensor:
    """Average; maps whose ground truth is empty count as 0.

    They are counted so that batches shared out in any way add up to the same.
    """
    there = truth.ne(0).any(dim=-1).any(dim=-1)
    return (values * there).mean()
