"""Domain adaptation: gradient reversal and a level's domain classifier (HD2S, 3.5)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from salstream.training.hd2s.config import Level

_DROPOUT = 0.5


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """Return ``x``; on the way back its gradient is multiplied by ``-strength``."""
    if strength == 0:
        return x.detach()  # nothing is passed on, so nothing need be computed
    reversed_: Tensor = _Reversal.apply(x, strength)  # type: ignore[no-untyped-call]
    return reversed_


def feature_reduction(level: Level) -> nn.Sequential:
    """Return the 1×1 convolutions that leave few channels for the classifier."""
    layers: list[nn.Module] = []
    channels = level.channels
    for reduced in level.reduction:
        layers += [nn.Conv2d(channels, reduced, 1), nn.BatchNorm2d(reduced), nn.ReLU()]
        channels = reduced
    return nn.Sequential(OrderedDict(feature_reduction=nn.Sequential(*layers)))


def domain_classifier(level: Level, size: tuple[int, int]) -> nn.Sequential:
    """Return the fully connected layers: features to log-probabilities (source, target).

    Args:
        level: Widths of the layers.
        size: Height and width of the network's input.
    """
    height, width = (side // level.stride for side in size)
    features = level.reduction[-1] * height * width
    layers: list[nn.Module] = []
    for index, hidden in enumerate(level.hidden):
        layers += [nn.Linear(features, hidden), nn.BatchNorm1d(hidden), nn.ReLU()]
        if index > 0:
            layers.append(nn.Dropout(_DROPOUT))
        features = hidden
    layers += [nn.Linear(features, 2), nn.LogSoftmax(dim=1)]
    return nn.Sequential(OrderedDict(domainClassifier=nn.Sequential(*layers)))


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradient, None
