"""UNISAL, and the settings (i) to (vi) of its Table 2 (UNISAL, section 4.1)."""

from __future__ import annotations

from dataclasses import replace

from salstream.training.recipes.config import Clips, Optimizer, Recipe, Validation

SETTINGS = {
    "i": ("dhf1k",),
    "ii": ("hollywood",),
    "iii": ("ucfsports",),
    "iv": ("salicon",),
    "v": ("dhf1k", "hollywood", "ucfsports"),
    "vi": ("dhf1k", "hollywood", "ucfsports", "salicon"),
}


def unisal(setting: str = "vi") -> Recipe:
    """UNISAL on the data of a setting; validated on DHF1K where that is among them."""
    sources = SETTINGS[setting]
    return Recipe(
        model="unisal",
        sources=sources,
        clips=Clips(
            size=(0, 0),
            length=12,
            rate=6.0,
            batch=4,
            image_batch=32,
            short_videos="leave-out",
            mix="shuffle",
        ),
        optimizer=Optimizer(
            kind="sgd",
            learning_rate=0.04,
            decay=0.8,
            weight_decay=1e-4,
            momentum=0.9,
            clip=2.0,
            backbone_rate=0.1,
            backbone_weight_decay=1e-5,
            backbone_after=2,
            image_rate=0.5,
        ),
        validation=Validation(every=1000, on="dhf1k" if "dhf1k" in sources else ""),
        epochs=16,
        frozen_norms="backbone",
    )


def tiny(recipe: Recipe) -> Recipe:
    """Seconds on a CPU, from scratch: every part learns at once."""
    return replace(
        recipe,
        clips=replace(recipe.clips, size=(64, 96), length=3, batch=2, image_batch=2),
        optimizer=replace(
            recipe.optimizer, learning_rate=0.004, backbone_rate=1.0, backbone_after=0
        ),
        validation=replace(recipe.validation, every=4, stride=8, pictures=1),
        iterations=8,
        epochs=0,
        save_every=8,
        frozen_norms="none",
        norm_momentum=0.1,
        accelerator="cpu",
    )
