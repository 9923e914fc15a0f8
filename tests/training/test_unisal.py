"""UNISAL against what the authors' code says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from reference import fill_module, reference
from salstream.training.checkpoints import load_state_dict
from salstream.training.unisal import DOMAINS, Unisal, normalise

Maps = NDArray[np.float32]


@pytest.fixture(scope="module")
def filled() -> Unisal:
    model = Unisal().eval()
    model.load_state_dict(fill_module().fill(model.state_dict(), 0))
    return model


@pytest.fixture(scope="module")
def published(unisal_checkpoint: Path) -> Unisal:
    model = Unisal().eval()
    model.load_state_dict(load_state_dict(unisal_checkpoint))
    return model


def assert_equal_maps(logarithms: torch.Tensor, expected: Maps) -> None:
    actual = logarithms[0].numpy()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-3)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(np.exp(a - a.max()), np.exp(b - b.max()), rtol=0, atol=1e-5)


def test_the_state_dict_has_the_published_layout() -> None:
    layout = json.loads(reference("checkpoint_layouts.json").read_text())["unisal"]
    state = Unisal().state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == layout
    assert list(state) == list(layout)


@pytest.mark.parametrize("domain", DOMAINS)
@torch.inference_mode()
def test_maps_equal_the_published_code(filled: Unisal, domain: str) -> None:
    facts = DOMAINS[domain]
    expected = np.load(reference("unisal.npz"))[f"unisal/{facts.published}/log_saliency"]
    frames = fill_module().clip((1, 1 if facts.static else 4, 3, *facts.size), 0)
    logarithms, state = filled(frames, domain)
    assert_equal_maps(logarithms, expected)
    assert (state is None) == facts.static


@torch.inference_mode()
def test_an_image_bypasses_the_recurrent_part(filled: Unisal) -> None:
    key = "unisal/DHF1K/log_saliency_static_first_frame"
    first = fill_module().clip((1, 4, 3, 224, 384), 0)[:, :1]
    assert_equal_maps(filled(first, "dhf1k", static=True)[0], np.load(reference("unisal.npz"))[key])


@pytest.mark.parametrize(
    ("domain", "frames", "key"),
    [
        ("dhf1k", slice(None), "DHF1K/log_saliency"),
        ("ucfsports", slice(None), "UCFSports/log_saliency"),
        ("salicon", slice(1), "SALICON/log_saliency_first_frame"),
        ("dhf1k", slice(None, None, 5), "DHF1K/log_saliency_every_5th"),
    ],
)
@torch.inference_mode()
def test_published_weights_on_a_real_clip(
    published: Unisal, domain: str, frames: slice, key: str
) -> None:
    clip = np.load(reference("unisal_pretrained_real_clip.npz"))
    inputs = normalise(torch.from_numpy(clip["frames"][frames]))[None]
    assert_equal_maps(published(inputs, domain)[0], clip[key])


@torch.inference_mode()
def test_a_carried_state_continues_the_sequence(filled: Unisal) -> None:
    frames = fill_module().clip((1, 6, 3, 64, 96), 1)
    whole, end = filled(frames, "dhf1k")
    first, state = filled(frames[:, :2], "dhf1k")
    second, state = filled(frames[:, 2:], "dhf1k", state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(state, end, rtol=0, atol=1e-5)
    alone, _ = filled(frames[:, 2:], "dhf1k")
    assert (alone - whole[:, 2:]).abs().max() > 1e-3, "the state makes no difference"


def test_every_parameter_of_its_domain_is_trained() -> None:
    """One step reaches every parameter but those of other domains (and unused affine terms)."""
    torch.manual_seed(0)
    model = Unisal().train()
    logarithms, _ = model(torch.randn(2, 2, 3, 64, 96), "hollywood")
    logarithms[..., 10, 10].sum().backward()
    others = ("dhf1k", "ucfsports", "salicon", "DHF1K", "UCFSports", "SALICON")
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == any(f"_{domain}" in name for domain in others), name
