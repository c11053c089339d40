"""The published numbers of ViLT, VisualBERT and METER reach what trains; copies of these systems got them wrong."""

from typing import Any

import pytest

from vlmtrain.config.compose import compose
from vlmtrain.training.duration import steps_of
from vlmtrain.training.schedule import Schedule


def stage_of(experiment: str) -> dict[str, Any]:
    stage: dict[str, Any] = compose([f"experiment={experiment}", "scale=paper"]).config["stages"]["pretrain"]
    return stage


@pytest.mark.parametrize(
    ("experiment", "steps", "batch", "lr", "betas"),
    [
        ("vilt", 100_000, 4096, 1e-4, [0.9, 0.98]),
        ("visualbert", 123_280, 48, 5e-5, [0.9, 0.999]),
        ("mlm_itm", 100_000, 4096, 5e-5, [0.9, 0.98]),
    ],
)
def test_rates_warm_up_over_a_tenth_of_all_steps_and_fall_linearly(
    experiment: str, steps: int, batch: int, lr: float, betas: list[float]
) -> None:
    """Over steps: an epoch of ViLT's data is 1000 steps, and a warm-up within the first epoch would end too soon."""
    stage = stage_of(experiment)
    trainer, optimizer = stage["trainer"], stage["optimizer"]
    assert (trainer["max_steps"], trainer["batch_size"], optimizer["lr"]) == (steps, batch, lr)
    assert optimizer["betas"] == betas and optimizer["weight_decay"] == 0.01
    assert steps_of(optimizer["warmup"], steps) == steps // 10
    schedule = Schedule(lr, steps, optimizer["min_lr"], optimizer["warmup"], optimizer["schedule"])
    assert schedule.learning_rate(steps // 10 - 1) == pytest.approx(lr)
    assert schedule.learning_rate(steps // 20) == pytest.approx(lr / 2, rel=1e-3)
    assert schedule.learning_rate(steps * 11 // 20) == pytest.approx(lr / 2, rel=1e-3)
    assert schedule.learning_rate(steps - 1) == pytest.approx(0, abs=lr / steps * 2)


@pytest.mark.parametrize("experiment", ["vilt", "visualbert", "mlm_itm"])
def test_fifteen_in_a_hundred_words_are_hidden(experiment: str) -> None:
    form = stage_of(experiment)["form"]
    assert form["_target_"].endswith("masked.Masked") and form.get("share", 0.15) == 0.15


def test_vilt_aligns_at_a_tenth_and_draws_evenly() -> None:
    pairs = stage_of("vilt")["objective"]["objectives"]["pairs"]
    assert pairs["weight"] == 0.1 and not {"beta", "num_iterations", "negatives"} & pairs.keys()
    assert pairs["matching"].keys() == {"_target_"}, "one pair a sample, half of them wrong, any other text as likely"


@pytest.mark.parametrize(("experiment", "encoder"), [("vilt", 1.0), ("visualbert", None), ("mlm_itm", 0.2)])
def test_what_learns(experiment: str, encoder: float | None) -> None:
    trainable = stage_of(experiment)["trainable"]
    assert trainable.pop("encoder") == encoder
    idle = {"visual_projection", "text_projection", "log_temperature"} if experiment == "mlm_itm" else set()
    assert {part for part, rate in trainable.items() if rate is None} == idle, "nothing asks for a shared space"
    assert {rate for part, rate in trainable.items() if part not in idle} == {1.0}
