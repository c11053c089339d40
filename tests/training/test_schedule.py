"""The learning rate by step, and durations with their unit."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmtrain.training.duration import steps_of
from vlmtrain.training.schedule import Schedule


def test_warm_up_counts_steps_and_ends_at_the_peak() -> None:
    schedule = Schedule(lr=1.0, max_steps=100, warmup=4)
    assert [schedule.learning_rate(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert schedule.learning_rate(4) < 1.0


@pytest.mark.parametrize("shape", ["cosine", "linear"])
@pytest.mark.parametrize("warmup", [0, 1, 10, "3 percent"])
def test_last_step_has_the_lowest_rate(shape: str, warmup: int | str) -> None:
    schedule = Schedule(lr=1e-3, max_steps=100, min_lr=1e-5, warmup=warmup, shape=shape)
    rates = [schedule.learning_rate(step) for step in range(100)]
    assert rates[-1] == pytest.approx(1e-5) and max(rates) == pytest.approx(1e-3)
    assert all(rate > 1e-5 for rate in rates[steps_of(warmup, 100) : -1])


def test_cosine_is_half_way_in_the_middle() -> None:
    assert Schedule(lr=1.0, max_steps=101).learning_rate(50) == pytest.approx(0.5)


@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_every_step_has_a_rate_of_its_own_whatever_an_epoch_is(shape: str) -> None:
    """LAVIS warms up in epoch 0 only and moves its cosine once an epoch: a staircase."""
    schedule = Schedule(lr=1.0, max_steps=1000, warmup=400, shape=shape)  # type: ignore[arg-type]
    rates = [schedule.learning_rate(step) for step in range(1000)]
    assert all(early < late for early, late in pairwise(rates[:400]))
    assert all(early > late for early, late in pairwise(rates[399:]))
    assert rates[399] == 1.0 and rates[0] == 1 / 400


@given(
    max_steps=st.integers(1, 500),
    share=st.floats(0, 100),
    shape=st.sampled_from(["cosine", "linear", "constant"]),
    min_lr=st.floats(0, 1),
)
def test_rates_stay_between_bounds_and_fall_after_the_peak(
    max_steps: int, share: float, shape: str, min_lr: float
) -> None:
    schedule = Schedule(lr=1.0, max_steps=max_steps, min_lr=min_lr, warmup=f"{share:.4f} percent", shape=shape)
    rates = [schedule.learning_rate(step) for step in range(max_steps)]
    warmup = steps_of(schedule.warmup, max_steps)
    assert all(0 < rate <= 1 or rate == min_lr for rate in rates)
    after = rates[max(warmup - 1, 0) :]
    assert all(early >= late - 1e-12 for early, late in pairwise(after))


@pytest.mark.parametrize(
    ("duration", "steps"), [(0, 0), (20, 20), ("20", 20), ("20 steps", 20), ("3 percent", 6), ("2.5%", 5)]
)
def test_durations(duration: int | str, steps: int) -> None:
    assert steps_of(duration, 200) == steps


@pytest.mark.parametrize("duration", ["three", "3 epochs", -1, "-3", True, 201, "101 percent"])
def test_wrong_durations_are_named(duration: int | str) -> None:
    with pytest.raises(ValueError, match=str(duration)):
        steps_of(duration, 200)


def test_wrong_choices_are_named() -> None:
    with pytest.raises(ValueError, match="cosine, linear or constant"):
        Schedule(lr=1.0, max_steps=10, shape="exponential")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="min_lr"):
        Schedule(lr=1.0, max_steps=10, min_lr=2.0)
