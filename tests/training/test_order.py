"""Which clips a step sees."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from salstream.training.order import generator, source_of, video_of


def test_random_numbers_depend_on_the_key_alone() -> None:
    keys = [(0, "a", 1), (0, "a", 2), (1, "a", 1), (0, "b", 1)]
    draws = [generator(*key).random() for key in keys]
    assert draws == [generator(*key).random() for key in keys]
    assert len(set(draws)) == len(keys)


@given(seed=st.integers(0, 5), count=st.integers(1, 40), epoch=st.integers(0, 3))
def test_every_video_comes_once_per_epoch(seed: int, count: int, epoch: int) -> None:
    seen = [video_of(seed, "x", epoch * count + k, count) for k in range(count)]
    assert sorted(seen) == list(range(count))


def test_epochs_have_orders_of_their_own() -> None:
    first, second = ([video_of(0, "x", e * 50 + k, 50) for k in range(50)] for e in (0, 1))
    assert first != second


@given(sources=st.integers(1, 4), batch=st.integers(0, 100))
def test_sources_take_turns(sources: int, batch: int) -> None:
    assert source_of(0, batch, [3] * sources, False) == (batch % sources, batch // sources)


@given(batches=st.lists(st.integers(1, 6), min_size=1, max_size=4), seed=st.integers(0, 5))
def test_shuffled_sources_come_in_proportion_and_in_order(batches: list[int], seed: int) -> None:
    """In every epoch each source has its batches, numbered on without a gap."""
    epochs = 3
    found = [source_of(seed, b, batches, True) for b in range(epochs * sum(batches))]
    assert Counter(s for s, _ in found[: sum(batches)]) == Counter(dict(enumerate(batches)))
    for source, count in enumerate(batches):
        assert [n for s, n in found if s == source] == list(range(epochs * count))
