"""ESAN-VSP against what the authors' code says, and its parts against plain loops."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from reference import fill_module, reference
from salstream.training.esan import SIZE, Esan, normalise, predict_video
from salstream.training.esan.deformable import deformable_conv2d

Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def model(random_esan: Esan) -> Esan:
    return random_esan


def pictures(*shape: int) -> Tensor:
    """Return random uint8 pictures, smooth enough for a shift to matter."""
    coarse = torch.rand(math.prod(shape[:-3]), 3, shape[-3] // 8, shape[-2] // 8)
    fine = torch.nn.functional.interpolate(coarse, size=shape[-3:-1], mode="bilinear")
    return (255 * fine).to(torch.uint8).movedim(1, -1).reshape(shape)


def test_the_state_dict_has_the_published_layout(model: Esan) -> None:
    layout = json.loads(reference("checkpoint_layouts.json").read_text())["esan"]
    state = model.state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == layout
    assert list(state) == list(layout)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@torch.inference_mode()
def test_maps_equal_the_published_code() -> None:
    """In float64, which is the same on every processor; the reference is rounded to float32."""
    expected = np.load(reference("esan.npz"))
    filled = Esan().eval()
    filled.load_state_dict(fill_module().fill(filled.state_dict(), 0))
    filled.double()
    frames = fill_module().clip((1, 10, 3, *SIZE), 0).double()

    def check(maps: Tensor, key: str) -> None:
        published = expected[f"esan/{key}"].reshape(maps.shape)
        assert maps.dtype == torch.float64
        np.testing.assert_allclose(maps, published, rtol=0, atol=1e-6)

    first, state = filled(frames[:, :5])
    check(first, "group1")
    check(filled(frames[:, 5:], state)[0], "group2_with_state")
    check(filled(frames)[0], "two_groups_bidirectional")


def deformable_loops(x: Array, offset: Array, mask: Array, weight: Array, bias: Array) -> Array:
    """Deformable convolution as its definition reads, one sample after the other."""
    batch, channels, height, width = x.shape
    out_channels, _, rows, columns = weight.shape
    groups = mask.shape[1] // (rows * columns)

    def pixel(b: int, c: int, row: int, column: int) -> float:
        inside = 0 <= row < height and 0 <= column < width
        return float(x[b, c, row, column]) if inside else 0.0

    out = np.zeros((batch, out_channels, height, width)) + bias[:, None, None]
    for b, c, i, j in itertools.product(range(batch), range(channels), range(height), range(width)):
        group = c // (channels // groups)
        for ky, kx in itertools.product(range(rows), range(columns)):
            tap = group * rows * columns + ky * columns + kx
            y = i + ky - rows // 2 + offset[b, 2 * tap, i, j]
            x_ = j + kx - columns // 2 + offset[b, 2 * tap + 1, i, j]
            top, left = math.floor(y), math.floor(x_)
            value = sum(
                (1 - abs(y - row)) * (1 - abs(x_ - column)) * pixel(b, c, row, column)
                for row in (top, top + 1)
                for column in (left, left + 1)
            )
            out[b, :, i, j] += weight[:, c, ky, kx] * mask[b, tap, i, j] * value
    return out


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**31 - 1),
    batch=st.integers(1, 2),
    groups=st.integers(1, 3),
    per_group=st.integers(1, 2),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    kernel=st.sampled_from([(1, 1), (3, 3), (1, 3), (5, 3)]),
    reach=st.sampled_from([0.0, 0.5, 2.0, 20.0]),
)
@example(seed=0, batch=1, groups=2, per_group=2, size=(4, 5), kernel=(3, 3), reach=2.0)
def test_deformable_convolution_equals_loops(
    seed: int,
    batch: int,
    groups: int,
    per_group: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    reach: float,
) -> None:
    rng = np.random.default_rng(seed)
    taps = kernel[0] * kernel[1]
    arguments = (
        rng.standard_normal((batch, groups * per_group, *size)),
        reach * rng.standard_normal((batch, groups * taps * 2, *size)),
        rng.random((batch, groups * taps, *size)),
        rng.standard_normal((3, groups * per_group, *kernel)),
        rng.standard_normal(3),
    )
    actual = deformable_conv2d(*map(torch.from_numpy, arguments))
    np.testing.assert_allclose(actual, deformable_loops(*arguments), rtol=0, atol=1e-6)


@torch.no_grad()
def test_without_offsets_it_is_a_convolution() -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 4, 6, 7), torch.randn(5, 4, 3, 3), torch.randn(5)
    offset, mask = torch.zeros(2, 2 * 9 * 2, 6, 7), torch.ones(2, 2 * 9, 6, 7)
    torch.testing.assert_close(
        deformable_conv2d(x, offset, mask, weight, bias),
        torch.nn.functional.conv2d(x, weight, bias, padding=1),
        rtol=1e-4,
        atol=1e-5,
    )


@torch.inference_mode()
def test_a_carried_state_continues_the_video(model: Esan) -> None:
    frames = normalise(pictures(2, 10, 32, 64, 3))
    first, state = model(frames[:, :5])
    assert first.shape == (2, 1, 16, 32)
    assert state.forward.hidden.shape == state.backward.cell.shape == (2, 512, 4, 8)
    second, _ = model(frames[:, 5:], state)
    anew, _ = model(frames[:, 5:])
    assert (second - anew).abs().max() > 1e-3, "the state makes no difference"

    # Group by group both directions see the same; in one call the backward one sees more.
    torch.testing.assert_close(state.forward, state.backward)
    whole, _ = model(frames)
    assert whole.shape == (2, 2, 16, 32)
    assert (whole[:, 1:] - second).abs().max() > 1e-3
    alone, _ = model(frames[1:])
    torch.testing.assert_close(alone, whole[1:], rtol=0, atol=1e-5)


def test_every_parameter_that_the_published_network_uses_is_trained() -> None:
    torch.manual_seed(0)
    model = Esan().train()
    maps, _ = model(torch.randn(1, 10, 3, 32, 64))
    maps.sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith("lstm_back"), name


@torch.inference_mode()
def test_a_video_is_read_in_five_passes(model: Esan) -> None:
    video = pictures(6, 32, 64, 3)
    maps = predict_video(model, video)
    assert maps.shape == (6, 16, 32)

    def group(*numbers: int) -> Tensor:
        return normalise(video[list(numbers)])[None]

    first, state = model(group(0, 0, 0, 1, 2))
    last, _ = model(group(3, 4, 5, 5, 5), state)
    second, _ = model(group(0, 0, 1, 2, 3))
    expected = torch.cat([first, second, last])[:, 0]
    torch.testing.assert_close(maps[[0, 1, 5]], expected, rtol=0, atol=1e-5)
    assert predict_video(model, video[:1]).shape == (1, 16, 32)


def test_normalise_uses_imagenet_statistics() -> None:
    frames = torch.tensor([[[0, 0, 0], [255, 255, 255]]], dtype=torch.uint8)
    expected = torch.tensor([[-2.1179, -2.0357, -1.8044], [2.2489, 2.4286, 2.6400]]).T[:, None]
    torch.testing.assert_close(normalise(frames), expected, rtol=0, atol=1e-4)
