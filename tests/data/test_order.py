"""The order of samples is a pure function that misses and repeats nothing."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmtrain.data.keys import key_of
from vlmtrain.data.order import permuted, reserve, sample_positions


@given(num_samples=st.integers(1, 3000), seed=st.integers(0, 2**32), epoch=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_permutation_is_a_bijection_for_any_size(num_samples: int, seed: int, epoch: int) -> None:
    indices = permuted(np.arange(num_samples), num_samples, seed, epoch)
    assert sorted(indices.tolist()) == list(range(num_samples))


@given(num_samples=st.integers(2**40, 2**45), offset=st.integers(0, 2**39))
@settings(max_examples=20, deadline=None)
def test_permutation_of_a_huge_range_needs_no_memory(num_samples: int, offset: int) -> None:
    indices = permuted(np.arange(offset, offset + 50), num_samples, 0, 0)
    assert len(set(indices.tolist())) == 50
    assert (indices >= 0).all() and (indices < num_samples).all()


@given(num_samples=st.integers(1, 60), share=st.floats(0, 1), num_steps=st.integers(1, 40), seed=st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_epochs_run_on_without_dropping_a_tail(num_samples: int, share: float, num_steps: int, seed: int) -> None:
    batch_size = 1 + int(share * (num_samples - 1))
    seen = [place for step in range(num_steps) for place in sample_positions(step, batch_size, num_samples, seed)]
    assert len(seen) == num_steps * batch_size
    assert len(set(seen)) == len(seen), "a sample comes twice in an epoch"
    counts = Counter(epoch for epoch, _ in seen)
    whole = len(seen) // num_samples
    assert [counts[epoch] for epoch in range(whole)] == [num_samples] * whole


@given(batch_size=st.sampled_from([4, 8, 12]), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_order_does_not_depend_on_the_batch_size(batch_size: int, seed: int) -> None:
    at_once = sample_positions(0, 24, 24, seed) + sample_positions(1, 24, 24, seed)
    in_pieces = [p for step in range(48 // batch_size) for p in sample_positions(step, batch_size, 24, seed)]
    assert in_pieces == at_once


@given(num_groups=st.integers(1, 40), groups_per_batch=st.integers(1, 40), together=st.integers(2, 4))
@settings(max_examples=40, deadline=None)
def test_groups_stay_side_by_side_in_one_batch(num_groups: int, groups_per_batch: int, together: int) -> None:
    groups_per_batch = min(groups_per_batch, num_groups)
    num_samples, batch_size = num_groups * together, groups_per_batch * together
    steps = [sample_positions(step, batch_size, num_samples, 0, together) for step in range(num_groups)]
    for batch in steps:
        for first in range(0, batch_size, together):
            epoch, index = batch[first]
            assert index % together == 0
            assert batch[first : first + together] == [(epoch, index + member) for member in range(together)]
    seen = Counter(place for batch in steps for place in batch)
    assert set(seen.values()) == {1} and len(seen) == num_samples * groups_per_batch


def test_groups_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="groups of 2: batch size 3 and number of samples 10"):
        sample_positions(0, 3, 10, 0, together=2)
    with pytest.raises(ValueError, match="groups of 2: batch size 4 and number of samples 11"):
        sample_positions(0, 4, 11, 0, together=2)


def test_epochs_and_seeds_differ_and_the_order_is_fixed() -> None:
    orders = {(seed, epoch): permuted(np.arange(1000), 1000, seed, epoch) for seed in (0, 1) for epoch in (0, 1)}
    for one, first in orders.items():
        for other, second in orders.items():
            assert one == other or (first == second).mean() < 0.01


def test_the_order_never_changes_between_versions() -> None:
    """A resumed run would otherwise see other samples."""
    assert permuted(np.arange(8), 1000, 0, 0).tolist() == [13, 553, 394, 932, 503, 751, 572, 594]
    assert [index for _, index in sample_positions(3, 8, 20, 1)] == [15, 17, 19, 1, 13, 5, 3, 18]
    assert [reserve(5, attempt, 1000, 0) for attempt in range(4)] == [607, 369, 452, 840]
    assert key_of("a", 1) == 4700869925214978433


def test_neighbours_are_scattered() -> None:
    """Serial correlation of a random permutation of n is about 1/sqrt(n)."""
    order = permuted(np.arange(100_000), 100_000, 3, 5).astype(float)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(np.arange(100_000), order)[0, 1]) < 0.02


def test_batch_larger_than_the_data_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"11 samples and the data has 10"):
        sample_positions(0, 11, 10, 0)
    with pytest.raises(ValueError, match="step -1"):
        sample_positions(-1, 2, 10, 0)


@given(position=st.integers(0, 2**50), num_samples=st.integers(1, 1000))
@settings(max_examples=30, deadline=None)
def test_reserve_is_keyed_and_in_range(position: int, num_samples: int) -> None:
    picks = [reserve(position, attempt, num_samples, 0) for attempt in range(20)]
    assert picks == [reserve(position, attempt, num_samples, 0) for attempt in range(20)]
    assert all(0 <= pick < num_samples for pick in picks)
    assert num_samples < 50 or len(set(picks)) > 10
