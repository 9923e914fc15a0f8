"""Losses against the metrics (which equal the MIT code) and against the papers' equations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from salstream.training import losses, metrics
from salstream.training.schedules import learning_rate, reversal_strength


def maps(seed: int, batch: int = 2, count: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction, density and fixations, (batch, maps, 6, 8); float64."""
    random = np.random.default_rng(seed)
    shape = (batch, count, 6, 8)
    saliency = torch.from_numpy(random.uniform(0.05, 1, shape))
    density = torch.from_numpy(random.uniform(0, 1, shape) * (random.uniform(size=shape) < 0.6))
    fixations = torch.from_numpy(random.uniform(size=shape) < 0.2)
    fixations[..., 0, 0] = True
    density[..., 0, 0] = 1
    return saliency, density, fixations


def mean_metric(name: str, saliency: Tensor, truth: Tensor) -> float:
    pairs = zip(saliency.flatten(0, 1).numpy(), truth.flatten(0, 1).numpy(), strict=True)
    return float(np.mean([getattr(metrics, name)(a, b) for a, b in pairs]))


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_they_are_the_metrics(seed: int) -> None:
    saliency, density, fixations = maps(seed)
    for name, truth in (("kld", density), ("cc", density), ("nss", fixations)):
        expected = mean_metric(name, saliency, truth)
        assert getattr(losses, name)(saliency, truth).item() == pytest.approx(expected, abs=1e-9)


def test_sim_is_equation_14() -> None:
    saliency, density, _ = maps(0, 1, 1)
    p, q = (x[0, 0] / x[0, 0].sum() for x in (saliency, density))
    expected = torch.minimum(p, q).sum().item()
    assert losses.sim(saliency, density).item() == pytest.approx(expected, abs=1e-12)


def test_multi_level_loss_is_equation_1() -> None:
    """One divergence per conspicuity map, plus the output's."""
    conspicuity, density, _ = maps(1, 2, 4)
    saliency, truth = conspicuity.flip(1)[:, 0] ** 2, density[:, 0]
    by_hand = 0.0
    for sample in range(2):
        g = truth[sample] / truth[sample].sum()
        for prediction in (*conspicuity[sample], saliency[sample]):
            p = prediction / prediction.sum()
            by_hand += (g[g > 0] * (g[g > 0] / p[g > 0]).log()).sum().item() / 2
    actual = losses.multi_level_kld(saliency, conspicuity, truth).item()
    assert actual == pytest.approx(by_hand, abs=1e-9)
    alone = losses.multi_level_kld(saliency, None, truth).item()
    assert alone == pytest.approx(mean_metric("kld", saliency[:, None], truth[:, None]), abs=1e-9)


def test_domain_loss_is_equations_2_and_3() -> None:
    target = torch.tensor([[0.9, 0.2, 0.4, 0.5], [0.1, 0.6, 0.3, 0.7]], dtype=torch.float64)
    answers = torch.stack([(1 - target).log(), target.log()], dim=-1)
    for d in (False, True):
        by_hand = 0.0
        for level in range(4):
            for sample in range(2):
                p = target[sample, level].item()
                by_hand += (-math.log(p) if d else -math.log(1 - p)) / 2
        assert losses.domain_loss(answers, d).item() == pytest.approx(by_hand)


def test_unisal_and_esan_combine_them() -> None:
    saliency, density, fixations = maps(2)
    p = saliency / saliency.sum(dim=(-2, -1), keepdim=True)
    kld, nss, cc = (
        losses.kld(p, density), losses.nss(p, fixations), losses.cc(p, density),
    )  # fmt: skip
    unisal = losses.unisal_loss(p.log(), density, fixations)
    torch.testing.assert_close(unisal, kld - 0.1 * nss - 0.1 * cc, rtol=0, atol=1e-9)
    esan = losses.esan_loss(saliency, density, fixations)
    torch.testing.assert_close(esan, kld - nss - cc - losses.sim(p, density), rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_maps_that_nobody_looked_at_add_nothing(dtype: torch.dtype) -> None:
    saliency, density, fixations = (x.to(dtype) if x.is_floating_point() else x for x in maps(3))
    whole = losses.esan_loss(saliency[:1], density[:1], fixations[:1])
    density[1], fixations[1] = 0, False
    saliency.requires_grad_()
    loss = losses.esan_loss(saliency, density, fixations)
    torch.testing.assert_close(loss, whole / 2)
    (gradient,) = torch.autograd.grad(loss, saliency)
    assert torch.isfinite(gradient).all()
    assert gradient[0].any()
    assert not gradient[1].any()


def test_large_maps_keep_their_correlation_in_float32() -> None:
    """Distributions over many pixels have tiny values."""
    random = torch.Generator().manual_seed(0)
    density = torch.rand(1, 1, 288, 384, generator=random)
    saliency = density / density.sum()
    assert losses.cc(saliency, density).item() == pytest.approx(1, abs=1e-5)


def test_reversal_grows_as_in_equation_4() -> None:
    assert reversal_strength(0) == 0
    # 2 / (1 + e^-10p) - 1 by hand
    assert reversal_strength(0.1) == pytest.approx(0.4621171573)
    assert reversal_strength(0.5) == pytest.approx(0.9866142982)
    assert reversal_strength(1) == pytest.approx(0.9999092043)


def test_learning_rate_falls_per_epoch() -> None:
    """UNISAL: 0.04, times 0.8 after each epoch."""
    assert learning_rate(0.04, 0.8, 0) == 0.04
    assert learning_rate(0.04, 0.8, 2) == pytest.approx(0.0256)
