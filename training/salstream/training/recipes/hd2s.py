"""HD2S, HD2S-DA, HD2S-DSL and the ablations (HD2S, section 4.2)."""

from __future__ import annotations

from dataclasses import replace

from salstream.training.recipes.config import Clips, Optimizer, Recipe, Validation


def hd2s() -> Recipe:
    """HD2S on one dataset: 200 clips an iteration, in 25 batches of 8."""
    return Recipe(
        model="hd2s",
        clips=Clips(size=(128, 192), length=16, batch=8, accumulate=25, flip=0.5),
        optimizer=Optimizer(learning_rate=1e-3, weight_decay=2e-7, backbone_weight_decay=2e-7),
        validation=Validation(every=100),
        iterations=2500,
    )


def hd2s_da() -> Recipe:
    """Adaptation to unlabelled data by gradient reversal at every level (section 3.5)."""
    return replace(hd2s(), model="hd2s-da", target="target")


def hd2s_dsl() -> Recipe:
    """Layers of each dataset's own (section 3.6); validated on DHF1K, as section 4.2 has it."""
    recipe = hd2s()
    return replace(
        recipe,
        model="hd2s-dsl",
        sources=("dhf1k", "hollywood", "ucfsports"),
        validation=replace(recipe.validation, on="dhf1k"),
    )


def ablation(model: str) -> Recipe:
    """Some of the Conspicuity-nets, the loss on the output alone (Tables 3 and 4)."""
    return replace(hd2s(), model=model, multi_level=False)


def small(recipe: Recipe) -> Recipe:
    """Minutes on a CPU, without Kinetics weights: smaller, shorter, fewer; for docs/training.md."""
    return replace(
        recipe,
        clips=replace(recipe.clips, size=(64, 96), length=8, batch=4, accumulate=1),
        validation=replace(recipe.validation, every=50, stride=50),
        iterations=150,
        norm_momentum=0.1,
    )


def tiny(recipe: Recipe) -> Recipe:
    """Seconds on a CPU."""
    return replace(
        recipe,
        clips=replace(recipe.clips, size=(64, 64), length=8, batch=2, accumulate=1),
        validation=replace(recipe.validation, every=6, stride=8, pictures=1),
        iterations=6,
        save_every=6,
        norm_momentum=0.1,
        accelerator="cpu",
    )
