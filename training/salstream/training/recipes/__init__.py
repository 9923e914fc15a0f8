"""One recipe per experiment, by name: plain functions that return a typed configuration.

Every recipe has a ``-tiny`` variant that runs in seconds on a CPU; HD2S's also have a
``-small`` one, for the study in docs/training.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from salstream.runtime.errors import UsageError
from salstream.training.hd2s import CONFIGS
from salstream.training.recipes import esan, hd2s, unisal
from salstream.training.recipes.config import Clips, Optimizer, Recipe, Validation, suggestion

__all__ = ["RECIPES", "Clips", "Optimizer", "Recipe", "Validation", "get"]

_HD2S: Final[dict[str, Callable[[], Recipe]]] = {
    "hd2s": hd2s.hd2s,
    "hd2s-da": hd2s.hd2s_da,
    "hd2s-dsl": hd2s.hd2s_dsl,
    **{name: partial(hd2s.ablation, name) for name in CONFIGS if name.startswith("hd2s-net")},
}
_UNISAL: Final[dict[str, Callable[[], Recipe]]] = {
    "unisal": unisal.unisal,
    **{f"unisal-{setting}": partial(unisal.unisal, setting) for setting in unisal.SETTINGS},
}
_ESAN: Final[dict[str, Callable[[], Recipe]]] = {"esan": esan.esan}


def _variants(
    recipes: dict[str, Callable[[], Recipe]], suffix: str, change: Callable[[Recipe], Recipe]
) -> dict[str, Callable[[], Recipe]]:
    def variant(make: Callable[[], Recipe]) -> Recipe:
        return change(make())

    return {f"{name}-{suffix}": partial(variant, make) for name, make in recipes.items()}


RECIPES: Final[dict[str, Callable[[], Recipe]]] = {
    **_HD2S,
    **_UNISAL,
    **_ESAN,
    **_variants(_HD2S, "small", hd2s.small),
    **_variants(_HD2S, "tiny", hd2s.tiny),
    **_variants(_UNISAL, "tiny", unisal.tiny),
    **_variants(_ESAN, "tiny", esan.tiny),
}


def get(name: str) -> Recipe:
    """Return the recipe called ``name``.

    Raises:
        UsageError: There is none.
    """
    if name not in RECIPES:
        full = [known for known in RECIPES if not known.endswith(("-tiny", "-small"))]
        raise UsageError(
            f"there is no recipe {name!r}{suggestion(name, RECIPES)}; known: "
            f"{', '.join(full)}, each with -tiny (HD2S's also with -small) behind it"
        )
    return RECIPES[name]()
