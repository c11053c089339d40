"""Every part is named, frozen means frozen, and patterns refine."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from training_toy import FROZEN_ENCODER, ToyModel

from vlmtrain.training.precision import resolve_precision, set_weight_precision
from vlmtrain.training.trainability import enable_gradient_checkpointing, set_trainability


def test_unknown_and_missing_parts_are_listed() -> None:
    with pytest.raises(ValueError) as told:
        set_trainability(ToyModel(), {"encodr": None, "connector": 1.0, "head": 1.0})
    message = str(told.value)
    assert "unknown: encodr (did you mean encoder?)" in message and "missing: encoder, scale" in message


def test_patterns_refine_in_the_order_written() -> None:
    model = ToyModel()
    rates = set_trainability(
        model, {**FROZEN_ENCODER, "encoder.*": 0.1, "encoder.norm": None, "connector.*.bias": 2.0, "head.embed": None}
    )
    assert rates == {
        "scale": 1.0,
        "encoder.project.weight": 0.1,
        "encoder.project.bias": 0.1,
        "connector.0.weight": 1.0,
        "connector.0.bias": 2.0,
        "connector.1.weight": 1.0,
        "connector.1.bias": 2.0,
        "head.out.weight": 0.5,
        "head.out.bias": 0.5,
    }
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == set(rates)
    model.train()
    assert model.encoder.training and not model.encoder.norm.training and not model.head["embed"].training


@pytest.mark.parametrize(("key", "rate", "told"), [("encoder.blocks.*", 1.0, "matches no"), ("head", 0.0, "above 0")])
def test_useless_rates_are_errors(key: str, rate: float, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        set_trainability(ToyModel(), {**FROZEN_ENCODER, key: rate})


def test_t23_frozen_parts_stay_in_eval_mode_and_can_be_freed_again() -> None:
    model = ToyModel()
    set_trainability(model, FROZEN_ENCODER)
    for each in (model, deepcopy(model)):
        each.train()
        assert each.training and each.connector[2].training
        assert not any(part.training for part in each.encoder.modules())
        assert torch.equal(each.encoder(torch.ones(2, 48)), each.encoder(torch.ones(2, 48)))  # no dropout
    copied = deepcopy(model)
    set_trainability(copied, {**FROZEN_ENCODER, "encoder": 1.0})
    assert copied.encoder.norm.training and not model.encoder.norm.training


def test_weights_are_fp32_where_trained_and_bf16_where_frozen() -> None:
    model = ToyModel()
    model.connector.to(torch.float16)
    set_trainability(model, FROZEN_ENCODER)
    set_weight_precision(model, "bf16")
    for name, parameter in model.named_parameters():
        assert parameter.dtype == (torch.bfloat16 if name.startswith("encoder.project") else torch.float32), name
    assert model.encoder.norm.running_mean.dtype == torch.float32
    holder = nn.ModuleDict({"clip": nn.Linear(2, 2)})
    holder["clip"].log_scale = nn.Parameter(torch.tensor(2.6593))
    set_trainability(holder, {"clip": None})
    set_weight_precision(holder, "bf16")
    assert [parameter.dtype for parameter in holder.parameters()] == [torch.bfloat16] * 2 + [torch.float32]
    assert resolve_precision("bf16") == "bf16"
    with pytest.raises(ValueError, match="'fp8' is unknown; use auto, fp32, bf16, fp16"):
        resolve_precision("fp8")  # type: ignore[arg-type]


def test_frozen_weights_go_to_fp16_where_they_fit_and_were_not_given_as_bf16() -> None:
    model = nn.ModuleDict({"tower": nn.Sequential(nn.Linear(2, 2)), "writer": nn.Linear(2, 2).bfloat16()})
    set_trainability(model, {"tower": None, "writer": None})
    set_weight_precision(model, "fp16")
    assert {each.dtype for each in model["tower"].parameters()} == {torch.float16}
    assert {each.dtype for each in model["writer"].parameters()} == {torch.bfloat16}
    for wrong in (-7e4, 7e4):
        tower = model["tower"].float()
        tower[0].weight.data[1, 0] = wrong
        with pytest.raises(ValueError, match=r"tower\.0\.weight holds .* 70000, and fp16 ends at 65504.*bf16 or fp32"):
            set_weight_precision(model, "fp16")


class Checkpointable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def enable_gradient_checkpointing(self) -> None:
        self.calls += 1


def test_gradient_checkpointing_is_switched_on_where_offered() -> None:
    model = nn.ModuleDict({"one": Checkpointable(), "two": nn.Sequential(nn.ReLU(), Checkpointable())})
    assert enable_gradient_checkpointing(model) == 2
    assert model["one"].calls == 1
    with pytest.raises(ValueError, match="gradient_checkpointing=false"):
        enable_gradient_checkpointing(nn.ReLU())


def test_a_part_without_parameters_need_not_be_named() -> None:
    model = ToyModel()
    named: dict[str, float | None] = {name: 1.0 for name in ("encoder", "connector", "head", "scale")}
    model.add_module("pooling", nn.Identity())
    assert set_trainability(model, named) == set_trainability(ToyModel(), named) != {}
