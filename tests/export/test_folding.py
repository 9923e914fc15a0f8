"""Each exact rewrite against the layers that it replaces, at random sizes and values."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from salstream.export.folding import (
    compose_pointwise,
    fold_batch_norm,
    polyphase,
    scaled,
    split_depthwise,
    split_input,
)

seeds = st.integers(0, 2**31 - 1)


def same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(
    seed=seeds,
    half=st.integers(1, 20),
    factor=st.sampled_from([1, 2, 4, 8]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
)
@torch.no_grad()
def test_polyphase_equals_enlarging_padding_and_convolving(
    seed: int, half: int, factor: int, height: int, width: int
) -> None:
    torch.manual_seed(seed)
    kernel = torch.rand(2 * half + 1, 2 * half + 1)
    x = torch.rand(2, 1, height, width)
    expected = F.interpolate(x, scale_factor=factor, mode="nearest")
    expected = F.conv2d(F.pad(expected, [half] * 4, mode="replicate"), kernel[None, None])

    conv, padding = polyphase(kernel, factor)
    small = conv(F.pad(x, [padding] * 4, mode="replicate"))
    same(F.pixel_shuffle(small, factor), expected)


@settings(deadline=None, max_examples=20)
@given(seed=seeds, channels=st.integers(1, 8), bias=st.booleans())
@torch.no_grad()
def test_folded_and_scaled_convolutions(seed: int, channels: int, bias: bool) -> None:
    torch.manual_seed(seed)
    conv = nn.Conv2d(channels, 6, 3, stride=2, padding=1, bias=bias)
    norm = nn.BatchNorm2d(6).eval()
    for values in (norm.weight, norm.bias, norm.running_mean):
        assert values is not None
        values.normal_()
    assert norm.running_var is not None
    norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, channels, 7, 9)
    scale, offset = torch.randn(6, 1, 1), torch.randn(6, 1, 1)

    folded = fold_batch_norm(conv, norm)
    same(folded(x), norm(conv(x)))
    same(scaled(folded, scale, offset)(x), scale * norm(conv(x)) + offset)


@settings(deadline=None, max_examples=20)
@given(seed=seeds, first=st.integers(1, 7), second=st.integers(1, 7))
@torch.no_grad()
def test_depthwise_convolutions_split(seed: int, first: int, second: int) -> None:
    torch.manual_seed(seed)
    channels = first + second
    conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels)
    x = torch.randn(2, channels, 7, 8)
    of_first, of_second = split_depthwise(conv, first)
    same(torch.cat([of_first(x[:, :first]), of_second(x[:, first:])], dim=1), conv(x))


@settings(deadline=None, max_examples=20)
@given(seed=seeds, first=st.integers(1, 7), second=st.integers(1, 7))
@torch.no_grad()
def test_pointwise_convolutions_split_and_compose(seed: int, first: int, second: int) -> None:
    torch.manual_seed(seed)
    a, b = torch.randn(2, first, 4, 5), torch.randn(2, second, 4, 5)
    conv, after = nn.Conv2d(first + second, 6, 1), nn.Conv2d(6, 3, 1)
    of_a, of_b = split_input(conv, first)
    same(of_a(a) + of_b(b), conv(torch.cat([a, b], dim=1)))
    same(
        compose_pointwise(conv, after)(torch.cat([a, b], dim=1)),
        after(conv(torch.cat([a, b], dim=1))),
    )
