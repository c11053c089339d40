"""How many processes, in what precision."""

from pathlib import Path

import pytest
import torch
from training_toy import Guessing, ToyModel, ToySteps

from vlmtrain.training.accelerator import build_accelerator
from vlmtrain.training.optimizer import AdamWChoices, build_optimizer
from vlmtrain.training.precision import set_weight_precision
from vlmtrain.training.schedule import Schedule
from vlmtrain.training.step import TrainingStep
from vlmtrain.training.trainability import set_trainability
from vlmtrain.training.update import Update


def test_wrong_processes_are_named() -> None:
    with pytest.raises(ValueError, match="torchrun --nproc_per_node 2"):
        build_accelerator("fp32", 2)


def test_bf16_trains_fp32_weights_beside_frozen_bf16_ones(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ToyModel()
    rates = set_trainability(model, {"encoder": None, "connector": 1.0, "head": 1.0, "scale": 1.0})
    set_weight_precision(model, "bf16")
    model.encoder.forward = lambda pixels: model.encoder.norm(  # type: ignore[method-assign]
        model.encoder.project(pixels.flatten(1).bfloat16() / 255)
    )
    seen: list[torch.dtype] = []
    model.connector[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    update = Update(
        build_accelerator("bf16"),
        TrainingStep(model, Guessing()),
        build_optimizer(model, rates, AdamWChoices()),
        Schedule(lr=0.05, max_steps=50),
    )
    steps = ToySteps(8).steps(0)
    losses = [float(update(next(steps), step).loss()) for step in range(30)]
    assert losses[-1] < losses[0] and set(seen) == {torch.bfloat16}
    assert model.connector[0].weight.dtype == torch.float32 and model.encoder.project.weight.dtype == torch.bfloat16
    with build_accelerator("fp32").autocast():  # a later stage
        assert not torch.is_autocast_enabled("cpu")
