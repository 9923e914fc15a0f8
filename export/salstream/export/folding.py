"""Exact rewrites of linear layers: what a graph can have computed before it runs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from salstream.training.layers import ConvNormReLU, DomainBatchNorm2d


def inference_layers(module: nn.Module, domain: str = "") -> nn.Sequential:
    """Return a block's layers in order, for one domain, BatchNorm folded, dropout left out.

    Args:
        module: A block whose children run one after the other.
        domain: The domain's name in the state dict.
    """
    layers: list[nn.Module] = []
    for leaf in _leaves(module, domain):
        if isinstance(leaf, nn.BatchNorm2d | nn.BatchNorm3d):
            layers[-1] = fold_batch_norm(layers[-1], leaf)
        elif not isinstance(leaf, nn.Dropout2d):
            layers.append(leaf)
    return nn.Sequential(*layers)


def fold_blocks(module: nn.Module) -> nn.Module:
    """Return a copy in which every ``ConvNormReLU`` has its BatchNorm folded."""
    module = copy.deepcopy(module)
    for name, child in module.named_children():
        is_block = isinstance(child, ConvNormReLU)
        setattr(module, name, inference_layers(child) if is_block else fold_blocks(child))
    return module


def fold_batch_norm(conv: nn.Module, norm: nn.BatchNorm2d | nn.BatchNorm3d) -> nn.Conv2d:
    """Return one convolution that equals ``conv`` followed by ``norm`` in eval mode."""
    return fuse_conv_bn_eval(cast("nn.Conv2d", conv).eval(), norm.eval())


def scaled(conv: nn.Conv2d, scale: Tensor, offset: Tensor | None = None) -> nn.Conv2d:
    """Return a convolution whose output is ``scale * conv(x) + offset``, per channel.

    Args:
        conv: A convolution with a bias.
        scale: (channels,) or a shape that flattens to it.
        offset: The same; None adds nothing.
    """
    assert conv.bias is not None
    scale = scale.flatten()
    bias = conv.bias * scale + (0 if offset is None else offset.flatten())
    return _filled(copy.deepcopy(conv), conv.weight * scale[:, None, None, None], bias)


def compose_pointwise(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """Return the one 1×1 convolution that equals ``second(first(x))``, both 1×1."""
    assert first.bias is not None
    assert second.bias is not None
    outer = second.weight.flatten(1)
    weight = outer @ first.weight.flatten(1)
    return _pointwise(weight, outer @ first.bias + second.bias)


def split_input(conv: nn.Conv2d, channels: int) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Split a convolution over its input: ``conv(cat(a, b)) = first(a) + second(b)``.

    Args:
        conv: The convolution; its bias stays with the second part.
        channels: Channels of ``a``.
    """
    parts = []
    for own, bias in ((slice(channels), None), (slice(channels, None), conv.bias)):
        part = copy.deepcopy(conv)
        part.bias = None
        part.in_channels = len(range(conv.in_channels)[own])
        parts.append(_filled(part, conv.weight[:, own], bias))
    return parts[0], parts[1]


def split_depthwise(conv: nn.Conv2d, channels: int) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Split a depthwise convolution into one of the first ``channels`` and one of the rest."""
    assert conv.bias is not None
    parts = []
    for own in (slice(channels), slice(channels, None)):
        weight = conv.weight[own]
        count = len(weight)
        part = copy.deepcopy(conv)
        part.in_channels = part.out_channels = part.groups = count
        parts.append(_filled(part, weight, conv.bias[own]))
    return parts[0], parts[1]


def polyphase(kernel: Tensor, factor: int) -> tuple[nn.Conv2d, int]:
    """Rewrite 'enlarge by repetition, then convolve' as a convolution at the small size.

    Nearest-neighbour enlargement by ``factor``, edge padding by half the kernel and a
    convolution equal edge padding by ``p`` at the small size, a small convolution to
    ``factor²`` channels, one per position inside a block, and a pixel shuffle.

    Args:
        kernel: (size, size), size odd.
        factor: Enlargement.

    Returns:
        The small convolution, 1 → factor² channels in pixel-shuffle order, and ``p``.
    """
    size = kernel.shape[-1]
    offsets = torch.arange(size) - size // 2
    padding = -int(torch.div(offsets[0], factor, rounding_mode="floor"))
    taps = 2 * padding + 1
    # spread[phase, tap, k] is 1 where the kernel's entry k meets the tap's block.
    blocks = torch.div(torch.arange(factor)[:, None] + offsets, factor, rounding_mode="floor")
    spread = F.one_hot(blocks + padding, taps).transpose(1, 2).to(torch.float64)
    weight = torch.einsum("pak,qbl,kl->pqab", spread, spread, kernel.double())
    conv = nn.Conv2d(1, factor**2, taps, bias=False)
    conv.weight.data = weight.reshape(factor**2, 1, taps, taps).float()
    return conv, padding


def _leaves(module: nn.Module, domain: str) -> Iterator[nn.Module]:
    if isinstance(module, DomainBatchNorm2d):
        yield module.of(domain)
    elif isinstance(module, ConvNormReLU):
        for conv, norm in module.pairs:
            yield module.get_submodule(conv)
            yield from _leaves(module.get_submodule(norm), domain)
            yield nn.ReLU()
    elif any(True for _ in module.children()):
        for child in module.children():
            yield from _leaves(child, domain)
    else:
        yield module


def _pointwise(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None)
    return _filled(conv, weight[:, :, None, None], bias)


def _filled(conv: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    conv.weight.data = weight.detach().clone()
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach().clone())
    return conv
