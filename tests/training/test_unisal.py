"""UNISAL against what the authors' code says."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from reference import fill_module, reference
from salstream.training.checkpoints import load_state_dict
from salstream.training.unisal import DOMAINS, Unisal, normalise

Maps = NDArray[np.floating]
MADE_UP = (7e-4, 2.6e-4)
PUBLISHED = (2e-5, 2e-5)


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


def shown(logarithms: Maps) -> Maps:
    """Return maps with a maximum of 1."""
    return np.asarray(np.exp(logarithms - logarithms.max(axis=(-2, -1), keepdims=True)))


def assert_equal_maps(
    logarithms: torch.Tensor, expected: NDArray[np.float32], atol: float, atol_shown: float
) -> None:
    """Compare maps in float64, which are the same on every processor, with the reference.

    The tolerances are what the reference's own float32 rounding takes: the encoder of the
    made-up network amplifies it, to 6.9e-4 in the logarithms (root mean square 1.2e-4) and
    2.5e-4 in the maps; with the published weights it is 1.7e-5 and 1.5e-5.
    """
    assert logarithms.dtype == torch.float64
    actual = logarithms[0].numpy()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)
    np.testing.assert_allclose(shown(actual), shown(expected), rtol=0, atol=atol_shown)
    # Rounding is large in few places; a wrong layer is wrong everywhere.
    assert np.sqrt(np.mean((actual - expected) ** 2)) < atol / 4


def test_the_state_dict_has_the_published_layout() -> None:
    layout = json.loads(reference("checkpoint_layouts.json").read_text())["unisal"]
    state = Unisal().state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == layout
    assert list(state) == list(layout)


@pytest.mark.slow
@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.usefixtures("one_thread")
@torch.inference_mode()
def test_maps_equal_the_published_code(filled: Unisal, domain: str) -> None:
    facts = DOMAINS[domain]
    expected = np.load(reference("unisal.npz"))[f"unisal/{facts.published}/log_saliency"]
    frames = fill_module().clip((1, 1 if facts.static else 4, 3, *facts.size), 0)
    logarithms, state = deepcopy(filled).double()(frames.double(), domain)
    assert_equal_maps(logarithms, expected, *MADE_UP)
    assert (state is None) == facts.static


@pytest.mark.usefixtures("one_thread")
@torch.inference_mode()
def test_an_image_bypasses_the_recurrent_part(filled: Unisal) -> None:
    key = "unisal/DHF1K/log_saliency_static_first_frame"
    first = fill_module().clip((1, 4, 3, 224, 384), 0)[:, :1].double()
    logarithms, _ = deepcopy(filled).double()(first, "dhf1k", static=True)
    assert_equal_maps(logarithms, np.load(reference("unisal.npz"))[key], *MADE_UP)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("domain", "frames", "key"),
    [
        ("dhf1k", slice(None), "DHF1K/log_saliency"),
        ("ucfsports", slice(None), "UCFSports/log_saliency"),
        ("salicon", slice(1), "SALICON/log_saliency_first_frame"),
        ("dhf1k", slice(None, None, 5), "DHF1K/log_saliency_every_5th"),
    ],
)
@pytest.mark.usefixtures("one_thread")
@torch.inference_mode()
def test_published_weights_on_a_real_clip(
    published: Unisal, domain: str, frames: slice, key: str
) -> None:
    clip = np.load(reference("unisal_pretrained_real_clip.npz"))
    inputs = normalise(torch.from_numpy(clip["frames"][frames]))[None]
    logarithms, _ = deepcopy(published).double()(inputs.double(), domain)
    assert_equal_maps(logarithms, clip[key], *PUBLISHED)
    float32, _ = published(inputs, domain)
    np.testing.assert_allclose(shown(float32.numpy()), shown(logarithms.numpy()), rtol=0, atol=1e-4)


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
