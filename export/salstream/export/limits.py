"""How far an artefact may be from PyTorch, by its precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from salstream.runtime import UsageError

MAX_ABS_FP32: Final = 1e-4
MIN_CC_FP16: Final = 0.9995
MEAN_CC_INT8: Final = 0.98


def fault(precision: str, figures: Mapping[str, float]) -> str:
    """Say what is wrong with the figures of a comparison; nothing if they are good enough.

    Args:
        precision: ``fp32``: no value of a map, whose maximum is 1, differs by more than 1e-4.
            ``fp16``: no frame's CC is below 0.9995. ``int8``: the mean CC is at least 0.98.
        figures: ``max_abs`` and, where there are any, ``conspicuity_max_abs``; ``min_cc``;
            ``mean_cc``.

    Raises:
        UsageError: The precision is not known.
    """
    largest = max(figures["max_abs"], figures.get("conspicuity_max_abs", 0.0))
    # Written so that NaN is a fault.
    if precision == "fp32" and not largest <= MAX_ABS_FP32:
        return f"the largest difference of a map is {largest:.1e}, allowed is {MAX_ABS_FP32:.0e}"
    if precision == "fp16" and not figures["min_cc"] >= MIN_CC_FP16:
        return f"the smallest CC of a frame is {figures['min_cc']:.5f}, asked is {MIN_CC_FP16}"
    if precision == "int8" and not figures["mean_cc"] >= MEAN_CC_INT8:
        return f"the mean CC is {figures['mean_cc']:.4f}, asked is {MEAN_CC_INT8}"
    if precision not in ("fp32", "fp16", "int8"):
        raise UsageError(f"unknown precision {precision!r}")
    return ""
