"""The rewritten HD2S against the network, whatever the user chooses."""

from __future__ import annotations

import pytest
import torch
from scipy.ndimage import gaussian_filter

from salstream.export.hd2s import DeployableHd2s
from salstream.training.hd2s import CONFIGS, Hd2s, normalise


def network(name: str) -> Hd2s:
    """Return a network whose every layer has statistics of its own."""
    torch.manual_seed(0)
    model = Hd2s(CONFIGS[name])
    for module in model.modules():
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "domain", "size", "window", "sigma"),
    [
        ("hd2s", "", (64, 96), 16, 5.0),
        ("hd2s", "", (32, 64), 5, 7.0),
        ("hd2s", "", (64, 32), 8, 0.0),
        ("hd2s", "", (32, 32), 9, 1.5),
        ("hd2s", "", (32, 32), 13, 5.0),
        ("hd2s-dsl", "dhf1k", (64, 96), 16, 5.0),
        ("hd2s-dsl", "hollywood", (32, 64), 12, 7.0),
        ("hd2s-dsl", "ucfsports", (64, 64), 6, 2.0),
        ("hd2s-net4", "", (32, 64), 16, 5.0),
        ("hd2s-net1", "", (32, 64), 16, 5.0),
        ("hd2s-net234", "", (32, 64), 16, 5.0),
    ],
)
@torch.no_grad()
def test_rewrites_are_exact(
    name: str, domain: str, size: tuple[int, int], window: int, sigma: float
) -> None:
    model = network(name)
    frames = torch.randint(0, 256, (2, window, *size, 3), dtype=torch.uint8)
    expected = model(normalise(frames), domain or None)
    conspicuity = expected.conspicuity is not None
    deployable = DeployableHd2s(model, domain, size, window, sigma, conspicuity).eval()
    maps, *rest = deployable(frames)
    for actual, raw in zip(maps, expected.saliency.numpy(), strict=True):
        smooth = torch.from_numpy(gaussian_filter(raw, sigma) if sigma else raw)
        torch.testing.assert_close(actual, smooth / smooth.max(), rtol=0, atol=2e-5)
    if conspicuity:
        torch.testing.assert_close(rest[0], expected.conspicuity, rtol=0, atol=2e-5)
    torch.testing.assert_close(maps.amax(dim=(1, 2)), torch.ones(2))
