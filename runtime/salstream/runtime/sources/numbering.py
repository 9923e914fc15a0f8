"""Whether the names of pictures say that they are the frames of a video."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from math import gcd
from pathlib import Path
from typing import Final

# Names that downloads, messengers and screenshots give to pictures that only came one by one.
_COLLECTED: Final = re.compile(r"(?i)\([0-9]+\)$|-WA[0-9]+$|^screen ?shot")
_HOLES: Final = 10  # pictures that are there, for each one that may be missing
_FEWEST: Final = 4  # pictures that show a step of more than one


def are_numbered(paths: Sequence[Path]) -> bool:
    """Whether pictures are numbered as the frames of a video are, in this order.

    All lie in one folder and have one suffix, and their names differ in one number, which
    grows by an even step: by 1, or by more where there are at least four pictures. For each
    ten pictures that are there, one may be missing. Names such as ``photo (2)``,
    ``IMG-20240101-WA0002`` and ``Screenshot 2`` are none of a video.

    Args:
        paths: In the order in which they would be shown.
    """
    if len(paths) < 2 or len({(path.parent, path.suffix.lower()) for path in paths}) > 1:
        return False
    if _COLLECTED.search(paths[0].stem):
        return False
    # text and numbers alternate
    parts = [re.split(r"([0-9]+)", path.stem) for path in paths]
    if len({len(part) for part in parts}) > 1:
        return False
    differing = [column for column in zip(*parts, strict=True) if len(set(column)) > 1]
    if len(differing) != 1 or not re.fullmatch(r"[0-9]+", differing[0][0]):
        return False
    numbers = [int(number) for number in differing[0]]
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    if min(steps) < 1:
        return False
    step = gcd(*steps)
    missing = sum(steps) // step + 1 - len(paths)
    return missing * _HOLES <= len(paths) and (step == 1 or len(paths) >= _FEWEST)
