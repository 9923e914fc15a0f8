"""HD2S and its variants against what the authors' code says."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from reference import fill_module, reference
from salstream.runtime import UsageError
from salstream.training.hd2s import CONFIGS, DOMAINS, LEVELS, Config, Hd2s
from salstream.training.hd2s.adaptation import reverse_gradient
from salstream.training.hd2s.conspicuity import GaussianSmoothing

Layout = dict[str, list[int]]
PUBLISHED = {"hd2s": "hd2s", "hd2s-da": "hd2s_da", "hd2s-dsl": "hd2s_dsl"}
ABLATIONS = [name for name, config in CONFIGS.items() if not config.multi_level]
DSL = CONFIGS["hd2s-dsl"]
MECHANISMS = ("priors", "domain_norm", "domain_smoothing")


def layout(name: str) -> Layout:
    published: Layout = json.loads(reference("checkpoint_layouts.json").read_text())[name]
    return published


def layout_of(config: Config) -> Layout:
    with torch.device("meta"):
        state = Hd2s(config).state_dict()
    return {name: list(value.shape) for name, value in state.items()}


_VALUES: dict[tuple[str, torch.Size], Tensor] = {}


def filled(config: Config) -> Hd2s:
    """The network with the reference's values; those of the same name and shape are made once."""
    model = Hd2s(config).eval()
    state = model.state_dict()
    new = {name: value for name, value in state.items() if (name, value.shape) not in _VALUES}
    for name, value in fill_module().fill(new, 0).items():
        _VALUES[name, value.shape] = value
    model.load_state_dict({name: _VALUES[name, value.shape] for name, value in state.items()})
    return model


@pytest.fixture(scope="module")
def base() -> Hd2s:
    return filled(CONFIGS["hd2s"])


@pytest.fixture(scope="module")
def adapted() -> Hd2s:
    return filled(replace(CONFIGS["hd2s-da"], size=(64, 64)))


@pytest.fixture(scope="module")
def specific() -> Hd2s:
    return filled(DSL)


@pytest.fixture(scope="module")
def clip() -> Tensor:
    clip: Tensor = fill_module().clip((1, 3, 16, 128, 192), 0)
    return clip


@pytest.fixture(scope="module")
def small() -> Tensor:
    small: Tensor = fill_module().clip((2, 3, 16, 64, 64), 1)
    return small


# How far float64, which is the same on every processor, is from the published code's float32
# where that is more than 1e-5: Conspicuity-net 3 of the made-up networks has large activations.
REFERENCE_ROUNDING = {
    "hd2s/conspicuity3": 2e-5,
    "hd2s_dsl/DHF1K/conspicuity3": 3.5e-5,
    "hd2s_dsl/UCFSports/conspicuity3": 2e-5,
}


def assert_published(actual: Tensor | None, key: str) -> None:
    """Compare what a network says in float64 with the reference."""
    assert actual is not None
    assert actual.dtype == torch.float64
    expected, atol = np.load(reference("hd2s.npz"))[key], REFERENCE_ROUNDING.get(key, 1e-5)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=atol, err_msg=key)


# The published networks


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_state_dict_has_the_published_layout(name: str) -> None:
    expected, actual = layout(PUBLISHED[name]), layout_of(CONFIGS[name])
    assert actual == expected
    assert list(actual) == list(expected)


@pytest.mark.usefixtures("one_thread")
@torch.inference_mode()
def test_base_equals_the_published_code(clip: Tensor) -> None:
    model, clip = filled(CONFIGS["hd2s"]).double(), clip.double()
    prediction = model(clip)
    assert_published(prediction.saliency, "hd2s/saliency")
    for level in LEVELS:
        assert_published(prediction.conspicuity[:, level - 1], f"hd2s/conspicuity{level}")
    assert prediction.domains is None
    for block, features in enumerate(model.featureExtractor(clip), start=1):
        statistics = torch.stack([features.mean(), features.std()])
        assert_published(statistics, f"hd2s/features{block}_mean_std")


@pytest.mark.usefixtures("one_thread")
@torch.inference_mode()
def test_da_equals_the_published_code(clip: Tensor) -> None:
    model, clip = filled(CONFIGS["hd2s-da"]).double(), clip.double()
    assert_published(model(clip).saliency, "hd2s_da/saliency")
    prediction = model(clip, reversal=1.0)
    assert_published(prediction.saliency, "hd2s_da/train_saliency")
    for level in LEVELS:
        assert_published(prediction.domains[:, level - 1], f"hd2s_da/train_domain{level}")


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.usefixtures("one_thread")
@torch.inference_mode()
def test_dsl_equals_the_published_code(clip: Tensor, domain: str) -> None:
    model, clip = filled(DSL).double(), clip.double()
    key = f"hd2s_dsl/{DOMAINS[domain]}"
    prediction = model(clip, domain)
    assert_published(prediction.saliency, f"{key}/saliency")
    for level in LEVELS:
        assert_published(prediction.conspicuity[:, level - 1], f"{key}/conspicuity{level}")
    with torch.device("meta"):
        rounding = Hd2s(replace(DSL, rounding=True)).eval()
    rounding.load_state_dict(model.state_dict(), assign=True)
    assert_published(rounding(clip, domain).saliency, f"{key}/saliency_quantized")


@pytest.mark.parametrize("name", PUBLISHED)
def test_batch_norm_learns_at_the_published_rates(name: str) -> None:
    with torch.device("meta"):
        modules = Hd2s(CONFIGS[name]).named_modules()
    norms = {n: m for n, m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    for path, norm in norms.items():
        expected = (1e-3, 0.001)
        if any(f".bn_{domain}" in path for domain in DOMAINS.values()):
            expected = (1e-5, 0.01)
        elif re.match(r"decoder.*bn_[st]|featureReduction|domainClassifier", path):
            expected = (1e-5, 0.1)
        assert (norm.eps, norm.momentum) == expected, path


def test_the_network_costs_11_gmac() -> None:
    with torch.device("meta"):
        model, clips = Hd2s().eval(), torch.zeros(1, 3, 16, 128, 192)
    with FlopCounterMode(display=False) as counter:
        model(clips)
    assert counter.get_total_flops() / 2e9 == pytest.approx(11.0, abs=0.05)


# Sizes and lengths


@torch.inference_mode()
def test_clip_lengths_and_batches(base: Hd2s) -> None:
    clips = fill_module().clip((2, 3, 17, 32, 64), 2)
    for length in range(5, 17):
        prediction = base(clips[:1, :, :length])
        assert prediction.saliency.shape == (1, 32, 64)
        assert prediction.conspicuity.shape == (1, 4, 32, 64)
    torch.testing.assert_close(
        base(clips[1:, :, :16]).saliency, base(clips[:, :, :16]).saliency[1:], rtol=0, atol=1e-5
    )
    for length in (4, 17):
        with pytest.raises(UsageError, match=f"5 to 16 frames .*got {length}"):
            base(clips[:, :, :length])


@given(levels=st.sets(st.sampled_from(list(LEVELS)), min_size=1), size=st.integers(0, 200))
def test_sizes_that_the_network_cannot_take(levels: set[int], size: int) -> None:
    config = Config(levels=tuple(sorted(levels)))
    multiple = {1: 8, 2: 16, 3: 32, 4: 32}[max(levels)]
    if size and size % multiple == 0:
        config.check_size(size, multiple)
        config.check_size(multiple, size)
        return
    for wrong in ((size, multiple), (multiple, size)):
        with pytest.raises(UsageError, match=f"multiples of {multiple}$"):
            config.check_size(*wrong)


def test_wrong_use_is_said(base: Hd2s, adapted: Hd2s, specific: Hd2s, small: Tensor) -> None:
    with pytest.raises(UsageError, match="multiples of 32"):
        base(small[..., :48])
    with pytest.raises(UsageError, match="no domain classifiers"):
        base(small, reversal=1.0)
    with pytest.raises(UsageError, match="made for 64x64, got clips of 32x64"):
        adapted(small[..., :32, :], reversal=1.0)
    for domain in (None, "DHF1K", "salicon"):
        with pytest.raises(UsageError, match=f"dhf1k, hollywood, ucfsports, got {domain}"):
            specific(small, domain)
    for levels in ((), (5,), (0, 1), (2, 1), (1, 1)):
        with pytest.raises(UsageError, match="levels 1, 2, 3, 4"):
            Config(levels=levels)
    with pytest.raises(UsageError, match="exclude each other"):
        Config(adaptation=True, priors=True)
    with pytest.raises(UsageError, match="rounding"):
        Config(rounding=True)


# Domain adaptation


def test_reversal_multiplies_the_gradient_by_minus_lambda() -> None:
    x = torch.randn(4, 5, requires_grad=True)
    gradient = torch.randn(4, 5)
    out = reverse_gradient(x, 0.3)
    torch.testing.assert_close(out, x, rtol=0, atol=0)
    out.backward(gradient)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(x.grad, -0.3 * gradient, rtol=0, atol=0)


@pytest.mark.parametrize("level", LEVELS)
def test_features_get_minus_lambda_times_the_classifiers_gradient(
    adapted: Hd2s, small: Tensor, level: int
) -> None:
    with torch.no_grad():
        features = adapted.encode(small)[level]

    def gradients(reversal: float | None) -> tuple[Tensor, Tensor]:
        """Of the features and of the classifier's first weights; None: without reversal."""
        inputs = features.clone().requires_grad_()
        reduction = adapted.get_submodule(f"featureReduction{level + 1}")
        if reversal is None:
            classifier = adapted.get_submodule(f"domainClassifier{level + 1}")
            answer = classifier(reduction(inputs).flatten(1))
        else:
            answer = adapted.classify(level, inputs, reversal)
        of_inputs, of_weights = torch.autograd.grad(
            -answer[:, 0].sum(), [inputs, next(reduction.parameters())], materialize_grads=True
        )
        return of_inputs, of_weights

    plain, weights = gradients(None)
    assert plain.abs().max() > 0
    for reversal in (0.0, 0.3, 1.0):
        reversed_, same_weights = gradients(reversal)
        torch.testing.assert_close(reversed_, -reversal * plain, rtol=0, atol=0)
        torch.testing.assert_close(same_weights, weights, rtol=0, atol=0)


def test_domain_loss_reaches_the_backbone_but_not_the_decoders(
    adapted: Hd2s, small: Tensor
) -> None:
    prediction = adapted(small, reversal=1.0)
    assert prediction.domains.shape == (2, 4, 2)
    torch.testing.assert_close(prediction.domains.exp().sum(-1), torch.ones(2, 4))
    named = dict(adapted.named_parameters())
    losses = torch.autograd.grad(
        -prediction.domains[..., 1].sum(), list(named.values()), allow_unused=True
    )
    for name, gradient in zip(named, losses, strict=True):
        assert (gradient is None) == name.startswith(("decoder", "last_conv")), name


# Domain-specific learning


@pytest.mark.parametrize("off", MECHANISMS)
def test_each_mechanism_switched_off_leaves_its_own_entries_out(off: str) -> None:
    expected, plain = layout("hd2s_dsl"), layout("hd2s")
    if off == "priors":
        own = {name for name in expected if name.startswith("gaussians")}
        # Without the priors' channels, the decoders' first convolutions are the base's.
        other = {name for name in expected if plain.get(name, expected[name]) != expected[name]}
        assert (len(own), len(other)) == (12, 4)
    elif off == "domain_norm":
        own = {name for name in expected if name.startswith("decoder") and ".bn" in name}
        other = {name for name in plain if name.startswith("decoder") and ".bn" in name}
        assert len(own) == 3 * len(other) > 0
    else:
        own = {name for name in expected if name.startswith(("last_block", "GL"))}
        other = {"last_conv.weight", "last_conv.bias"}
        assert len(own) == 9
    expected = {name: shape for name, shape in expected.items() if name not in own}
    expected |= {name: plain[name] for name in other}
    assert layout_of(replace(DSL, **{off: False})) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("mechanism", MECHANISMS)
@torch.inference_mode()
def test_each_mechanism_alone_tells_domains_apart(small: Tensor, mechanism: str) -> None:
    """Changed entries of one domain change that domain's maps, and no other's."""
    model = filled(replace(Config(), **{mechanism: True}))  # type: ignore[arg-type]
    before = {domain: model(small, domain).saliency for domain in DOMAINS}
    changed = [
        value
        for name, value in model.state_dict().items()
        if "ollywood" in name and value.is_floating_point()
    ]
    assert changed
    for value in changed:
        value.mul_(0.9)
    for domain in DOMAINS:
        difference = (model(small, domain).saliency - before[domain]).abs().max()
        assert (difference > 0) == (domain == "hollywood"), domain


def test_a_batch_of_one_domain_changes_nothing_of_another(small: Tensor) -> None:
    model = filled(DSL).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prediction = model(small, "hollywood")
    (prediction.saliency.mean() + prediction.conspicuity.mean()).backward()
    others = ("dhf1k", "ucfsports", "DHF1K", "UCFSports")
    seen = {False: 0, True: 0}
    for name, value in model.state_dict().items():
        if "running" in name or "num_batches" in name:
            of_others = any(f"bn_{domain}" in name for domain in others)
            assert torch.equal(value, before[name]) == of_others, name
            seen[of_others] += 1
    assert min(seen.values()) > 0
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == any(f"_{domain}" in name for domain in others), name


@torch.inference_mode()
def test_smoothing_equals_the_67x67_convolution() -> None:
    smoothing = GaussianSmoothing()
    maps = torch.rand(1, 48, 80, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for sigma in (1.0, 5.5, 30.0):
        smoothing.double().sigma.fill_(sigma)
        offset = torch.arange(-33, 34, dtype=torch.float64)
        squared = offset[:, None] ** 2 + offset**2
        kernel = torch.exp(-squared / (2 * sigma**2))
        kernel /= kernel.sum()
        expected = F.conv2d(maps[:, None], kernel[None, None], padding=33)[:, 0]
        torch.testing.assert_close(smoothing(maps), expected, rtol=0, atol=1e-12)


# SalGradNet and the ablations


def test_salgradnet_is_hd2s_da_by_its_appendix() -> None:
    assert layout_of(CONFIGS["salgradnet"]) == layout("hd2s_da")


@pytest.mark.parametrize("name", ABLATIONS)
@torch.inference_mode()
def test_an_ablation_is_the_full_network_without_the_other_levels(
    base: Hd2s, small: Tensor, name: str
) -> None:
    config = CONFIGS[name]
    levels = config.levels
    assert set(name.removeprefix("hd2s-net")) == set(map(str, levels))
    absent = [level for level in LEVELS if level not in levels]
    gone = [f"{part}{level + 1}" for part in ("decoder", "conv_t") for level in absent]
    gone += [f"featureExtractor.block{level + 1}" for level in absent if level > max(levels)]
    gone += ["last_conv"] if len(levels) == 1 else []
    state = {n: v for n, v in base.state_dict().items() if not n.startswith(tuple(gone))}
    assert bool(absent) == (len(state) < len(base.state_dict()))

    full = Hd2s()
    full.load_state_dict(base.state_dict(), assign=True)
    if len(levels) > 1:
        # The fusion takes the maps deepest first, and the paper adds them in that order.
        state["last_conv.weight"] = state["last_conv.weight"][:, : len(levels)]
        weight = base.last_conv.weight.clone()
        weight[:, len(levels) :] = 0
        full.last_conv.weight = nn.Parameter(weight)

    ablated = Hd2s(config).eval()
    ablated.load_state_dict(state, strict=True)
    expected = full.eval()(small)
    one_map = expected.conspicuity[:, levels[0] - 1]
    prediction = ablated(small)
    torch.testing.assert_close(
        prediction.saliency,
        one_map if len(levels) == 1 else expected.saliency,
        rtol=0,
        atol=1e-6,
    )
    assert prediction.conspicuity is None
