"""What changes while training goes on: functions of how far it is, so nothing is stored."""

from __future__ import annotations

import math


def reversal_strength(progress: float) -> float:
    """Gradient reversal's λ, from 0 towards 1 (HD2S, Eq. 4).

    Args:
        progress: Iterations done by iterations in all, p in Eq. 5.
    """
    return 2 / (1 + math.exp(-10 * progress)) - 1


def learning_rate(initial: float, decay: float, epoch: int) -> float:
    """Return the learning rate of an epoch: multiplied by ``decay`` after each one."""
    return initial * decay**epoch
