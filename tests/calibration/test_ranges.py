"""Ranges: histograms against numpy over the same values, and what each method makes of outliers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from salstream.calibration.ranges import Histogram

parts = st.lists(
    arrays(np.float32, st.integers(1, 50), elements=st.floats(0, 1e4, width=32)), min_size=1
)


def filled(values: list[np.ndarray]) -> Histogram:
    histogram = Histogram()
    for part in values:
        histogram.add(part)
    return histogram


@given(parts)
def test_every_value_is_counted_and_the_largest_is_exact(values: list[np.ndarray]) -> None:
    histogram = filled(values)
    together = np.concatenate(values)
    assert histogram.maximum() == together.max()
    assert histogram.counts.sum() == (len(together) if together.any() else 0)


@given(parts, st.floats(1, 100))
def test_a_percentile_is_exceeded_by_no_more_than_it_says(
    values: list[np.ndarray], percent: float
) -> None:
    together = np.concatenate(values)
    limit = filled(values).percentile(percent)
    assert limit <= together.max()
    assert (together <= limit * (1 + 1e-5)).mean() >= percent / 100 - 1e-9


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_percentiles_equal_those_of_the_values(seed: int) -> None:
    """To a bin: the bins grow with the values, whatever comes first."""
    rng = np.random.default_rng(seed)
    parts = [np.abs(rng.normal(0, scale, 5000)).astype(np.float32) for scale in (0.1, 1, 3)]
    expected = float(np.percentile(np.concatenate(parts), 99))
    assert filled(parts).percentile(99) == pytest.approx(expected, rel=0.02)


def test_what_each_method_makes_of_an_outlier() -> None:
    """One value of 100 among many up to 4: only minmax makes room for it."""
    rng = np.random.default_rng(0)
    values = np.append(np.abs(rng.normal(0, 1, 200_000)), 100).astype(np.float32)
    histogram = filled([values])
    assert histogram.maximum() == 100
    assert histogram.percentile() == pytest.approx(np.percentile(values, 99.99), abs=0.1)
    assert 3 < histogram.least_divergence() < 20


def test_entropy_keeps_the_whole_of_an_even_distribution() -> None:
    """Nothing can be cut off where all values are as frequent."""
    values = np.linspace(0, 1, 100_000, dtype=np.float32)
    assert filled([values]).least_divergence() == pytest.approx(1, abs=0.02)


def test_zeros_alone() -> None:
    histogram = filled([np.zeros(10, np.float32)])
    methods = histogram.maximum, histogram.percentile, histogram.least_divergence
    assert [method() for method in methods] == [0, 0, 0]
