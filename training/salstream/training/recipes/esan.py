"""ESAN-VSP (section 4.1)."""

from __future__ import annotations

from dataclasses import replace

from salstream.training.recipes.config import Clips, Optimizer, Recipe, Validation


def esan() -> Recipe:
    """ESAN-VSP: three groups of five frames per clip, Adam at 1e-7."""
    return Recipe(
        model="esan",
        clips=Clips(size=(256, 320), length=15, batch=4, short_videos="leave-out"),
        optimizer=Optimizer(learning_rate=1e-7),
        validation=Validation(every=1000),
        iterations=20_000,
        save_every=1000,
    )


def tiny(recipe: Recipe) -> Recipe:
    """Seconds on a CPU; from scratch, so at a larger learning rate."""
    return replace(
        recipe,
        clips=replace(recipe.clips, size=(32, 64), length=5, batch=1),
        optimizer=replace(recipe.optimizer, learning_rate=3e-5),
        validation=replace(recipe.validation, every=6, stride=8, pictures=1),
        iterations=6,
        save_every=6,
        accelerator="cpu",
    )
