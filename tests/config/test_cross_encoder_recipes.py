"""The published numbers of ALBEF reach what trains."""

from typing import Any

import pytest

from vlmtrain.config.compose import compose
from vlmtrain.training.duration import steps_of
from vlmtrain.training.schedule import Schedule

PARTS = {"encoder", "text", "visual_projection", "text_projection", "match_head", "log_temperature"}


def stage_of(scale: str) -> dict[str, Any]:
    stage: dict[str, Any] = compose(["experiment=albef", f"scale={scale}"]).config["stages"]["pretraining"]
    return stage


def test_albef_warms_up_over_1000_steps_whatever_an_epoch_is() -> None:
    """LAVIS warms up within epoch 0 only, and takes the betas of PyTorch whatever the paper says."""
    stage = stage_of("paper")
    trainer, optimizer = stage["trainer"], stage["optimizer"]
    assert (trainer["batch_size"], trainer["ema_decay"], optimizer["lr"]) == (512, 0.995, 1e-4)
    assert optimizer["betas"] == [0.9, 0.999] and optimizer["weight_decay"] == 0.02
    steps = trainer["max_steps"]
    assert steps_of(optimizer["warmup"], steps) == 1000
    schedule = Schedule(optimizer["lr"], steps, optimizer["min_lr"], optimizer["warmup"], optimizer["schedule"])
    assert schedule.learning_rate(499) == pytest.approx(0.5e-4) and schedule.learning_rate(999) == pytest.approx(1e-4)
    assert schedule.learning_rate(steps - 1) == pytest.approx(1e-5)


def test_albef_has_its_three_terms_of_weight_1_and_one_ramp_for_both_that_are_distilled() -> None:
    stage = stage_of("paper")
    objectives = stage["objective"]["objectives"]
    assert objectives.keys() == {"contrastive", "matching", "masked_words"}
    assert all(each.get("weight", 1.0) == 1.0 for each in objectives.values())
    contrastive, words = objectives["contrastive"], objectives["masked_words"]
    assert contrastive["queue_size"] == 65536
    assert contrastive["distillation"] == words["distillation"] == 0.4
    epoch = stage["trainer"]["max_steps"] / 30
    assert contrastive["ramp_steps"] == words["ramp_steps"] == pytest.approx(epoch, abs=1)
    assert stage["form"]["share"] == 0.15


@pytest.mark.parametrize("scale", ["tiny", "small", "paper"])
def test_everything_of_albef_trains_at_one_rate(scale: str) -> None:
    trainable = stage_of(scale)["trainable"]
    assert set(trainable) == PARTS and set(trainable.values()) == {1.0}
