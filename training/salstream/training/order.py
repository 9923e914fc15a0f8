"""Which clips every step sees: pure functions of the seed and the step.

Nothing is remembered between steps, so a run that is resumed, or spread over several
processes, sees the very same clips as one left alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np


def generator(*key: int | str) -> np.random.Generator:
    """Return random numbers that depend on the key alone."""
    return np.random.default_rng([zlib.crc32(str(part).encode()) for part in key])


def video_of(seed: int, source: str, sample: int, count: int) -> int:
    """Return the video that a sample is from.

    Every video comes once per epoch, in an order of that epoch's own.

    Args:
        seed: The run's.
        source: Name of the data.
        sample: Number of the sample, over the whole run.
        count: Videos of the source.
    """
    epoch, position = divmod(sample, count)
    return int(generator(seed, source, "epoch", epoch).permutation(count)[position])


def source_of(seed: int, batch: int, batches: Sequence[int], shuffled: bool) -> tuple[int, int]:
    """Return which source a batch is from, and how many of that source came before it.

    Args:
        seed: The run's.
        batch: Number of the batch, over the whole run.
        batches: How many batches of each source an epoch has.
        shuffled: Mix the sources in proportion to their batches, in an order of each epoch's
            own (UNISAL); otherwise they take turns (HD2S-DSL).
    """
    if not shuffled:
        before, source = divmod(batch, len(batches))
        return source, before
    epoch, position = divmod(batch, sum(batches))
    deck = np.repeat(np.arange(len(batches)), batches)
    deck = generator(seed, "sources", epoch).permutation(deck)
    source = int(deck[position])
    return source, epoch * batches[source] + int((deck[:position] == source).sum())
