"""Recipes: what the papers say, and settings from the command line."""

from __future__ import annotations

import pytest
import torch

from salstream.runtime import UsageError
from salstream.training import recipes
from salstream.training.objectives import build, parameter_groups
from salstream.training.recipes import RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_a_network_and_a_tiny_variant(name: str) -> None:
    recipe = recipes.get(name)
    assert f"{name.removesuffix('-tiny').removesuffix('-small')}-tiny" in RECIPES
    with torch.device("meta"):
        model = build(recipe)
    backbone, rest = parameter_groups(model, recipe.family)
    assert backbone
    assert rest
    assert len(backbone) + len(rest) == len(list(model.parameters()))


def test_hd2s_is_trained_as_the_paper_says() -> None:
    """Section 4.2."""
    for name in ("hd2s", "hd2s-da", "hd2s-dsl", "hd2s-net4"):
        recipe = recipes.get(name)
        assert (recipe.clips.size, recipe.clips.length) == ((128, 192), 16)
        assert (recipe.clips.batch, recipe.clips.accumulate) == (8, 25)
        assert (recipe.optimizer.kind, recipe.optimizer.learning_rate) == ("adam", 1e-3)
        assert recipe.optimizer.weight_decay == recipe.optimizer.backbone_weight_decay == 2e-7
        assert (recipe.iterations, recipe.validation.every) == (2500, 100)
        assert recipe.multi_level == (name != "hd2s-net4")
    assert recipes.get("hd2s-da").data == ("source", "target")
    assert recipes.get("hd2s-dsl").sources == ("dhf1k", "hollywood", "ucfsports")


def test_unisal_is_trained_as_the_paper_says() -> None:
    """Section 4.1; the training settings of Table 2."""
    recipe = recipes.get("unisal")
    o, c = recipe.optimizer, recipe.clips
    assert (o.kind, o.learning_rate, o.decay, o.momentum, o.clip) == ("sgd", 0.04, 0.8, 0.9, 2)
    assert (o.weight_decay, o.backbone_weight_decay) == (1e-4, 1e-5)
    assert (o.backbone_rate, o.backbone_after, o.image_rate) == (0.1, 2, 0.5)
    assert (c.batch, c.image_batch, c.length, c.rate) == (4, 32, 12, 6.0)
    assert (recipe.epochs, recipe.frozen_norms) == (16, "backbone")
    assert recipe == recipes.get("unisal-vi")
    assert recipes.get("unisal-iv").sources == ("salicon",)
    assert recipes.get("unisal-v").sources == ("dhf1k", "hollywood", "ucfsports")


def test_esan_is_trained_as_the_paper_says() -> None:
    """Section 4.1."""
    recipe = recipes.get("esan")
    assert (recipe.clips.size, recipe.clips.length, recipe.clips.batch) == ((256, 320), 15, 4)
    assert (recipe.optimizer.learning_rate, recipe.iterations) == (1e-7, 20_000)


def test_settings_change_what_they_name_and_nothing_else() -> None:
    recipe = recipes.get("hd2s")
    changed = recipe.with_settings(
        ["clips.size=64x96", "optimizer.learning_rate = 1e-4", "sources=a, b", "multi_level=false",
         "clips.mix=shuffle", "iterations=0", "epochs=3"]
    )  # fmt: skip
    differences = {
        key: value for key, value in changed.settings().items() if value != recipe.settings()[key]
    }
    assert differences == {
        "clips.size": [64, 96],
        "optimizer.learning_rate": 1e-4,
        "sources": ["a", "b"],
        "multi_level": False,
        "clips.mix": "shuffle",
        "iterations": 0,
        "epochs": 3,
    }


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["optimizer.learning_rat=1"], r"no key 'optimizer.learning_rat' \(did you mean "
         "'optimizer.learning_rate'"),
        (["iterations=-1"], "cannot be negative"),
        (["validation.videos=-1"], "cannot be negative"),
        (["average=2"], "average must lie in 0 to 1"),
        (["clips.size=0x64"], "clips.size must be"),
        (["zzz=1"], "no key 'zzz'; --show lists"),
        (["learning_rate=1"], "did you mean 'optimizer.learning_rate'"),
        (["bacth=1"], "did you mean 'clips.batch'"),
        (["iteration=1"], "did you mean 'iterations'"),
        (["clips.size=64"], "clips.size must be HEIGHTxWIDTH, got '64'"),
        (["clips.batch=many"], "clips.batch must be int"),
        (["clips.batch=0"], "clips.batch must be at least 1"),
        (["clips.length=7"], "clips of 8 to 16 frames, got clips.length=7"),
        (["multi_level=maybe"], "true or false"),
        (["clips.mix=both"], "alternate or shuffle"),
        (["epochs=3"], "either iterations or epochs"),
        (["seed"], "key=value"),
        (["target=x"], "no domain classifiers"),
        (["sources="], "needs sources"),
        (["sources=a,a"], "each of them once"),
    ],
)  # fmt: skip
def test_wrong_settings_are_said(settings: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        recipes.get("hd2s").with_settings(settings)


@pytest.mark.parametrize(
    ("name", "setting", "said"),
    [
        ("esan", "clips.length=7", "multiple of that, got 7"),
        ("esan", "clips.size=48x64", "multiples of 32"),
        ("unisal", "clips.size=50x70", "multiples of 32"),
    ],
)
def test_what_a_network_cannot_take_is_said(name: str, setting: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        recipes.get(name).with_settings([setting])


def test_sources_of_a_network_with_domains_are_domains() -> None:
    with pytest.raises(UsageError, match=r"no domain 'remega'.*dhf1k"):
        recipes.get("hd2s-dsl").with_settings(["sources=remega"])


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no recipe 'hd2s-ad' \(did you mean 'hd2s-da'"):
        recipes.get("hd2s-ad")
