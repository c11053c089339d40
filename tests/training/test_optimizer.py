"""Groups, rates, layer decay, and moments that follow names."""

import logging

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from training_toy import FROZEN_ENCODER, ToyModel

from vlmtrain.training.ema import ExponentialMovingAverage
from vlmtrain.training.optimizer import (
    AdamWChoices,
    build_optimizer,
    layer_scales,
    optimizer_tensors,
    restore_optimizer,
    set_learning_rate,
)
from vlmtrain.training.trainability import set_trainability

EVERYTHING = {"encoder": 1.0, "connector": 1.0, "head": 1.0, "scale": 1.0}


def built(rates: dict[str, float | None], choices: AdamWChoices | None = None) -> tuple[ToyModel, Optimizer]:
    torch.manual_seed(0)
    model = ToyModel()
    return model, build_optimizer(model, set_trainability(model, rates), choices or AdamWChoices())


def facts_by_name(optimizer: Optimizer, fact: str) -> dict[str, float]:
    return {name: group[fact] for group in optimizer.param_groups for name in group["names"]}


def step_once(model: ToyModel, optimizer: Optimizer) -> None:
    set_learning_rate(optimizer, 0.01)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


def test_no_decay_on_norms_biases_and_vectors() -> None:
    _, optimizer = built(EVERYTHING, AdamWChoices(weight_decay=0.1))
    decays = facts_by_name(optimizer, "weight_decay")
    undecayed = {name for name, decay in decays.items() if decay == 0}
    assert undecayed == {
        "scale",
        "encoder.project.bias",
        "encoder.norm.weight",
        "encoder.norm.bias",
        "connector.0.bias",
        "connector.1.weight",
        "connector.1.bias",
        "head.out.bias",
    }
    assert decays["head.embed.weight"] == decays["connector.0.weight"] == 0.1


def test_betas_and_rates_arrive() -> None:
    _, optimizer = built(FROZEN_ENCODER, AdamWChoices(betas=(0.9, 0.98), eps=1e-6))
    set_learning_rate(optimizer, 0.2)
    assert all(group["betas"] == (0.9, 0.98) and group["eps"] == 1e-6 for group in optimizer.param_groups)
    rates = facts_by_name(optimizer, "lr")
    assert rates["head.out.weight"] == 0.1 and rates["connector.0.weight"] == 0.2
    assert not any(name.startswith("encoder") for name in rates)


def test_layer_decay_really_slows_lower_layers() -> None:
    """LAVIS computes the scales and no optimizer reads them; here the weights move by them."""
    names = ["vit.patch.weight", "vit.layers.0.w.weight", "vit.layers.1.w.weight", "vit.norm.weight", "head.weight"]
    assert list(layer_scales(names, 0.5).values()) == [0.25, 0.5, 1.0, 1.0, 1.0]

    model = nn.ModuleDict({"vit": nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(3)))})
    before = [layer.weight.detach().clone() for layer in model["vit"]]
    rates = set_trainability(model, {"vit": 1.0})
    optimizer = build_optimizer(model, rates, AdamWChoices(weight_decay=0.0, layer_decay=0.5))
    set_learning_rate(optimizer, 0.1)
    for layer in model["vit"]:
        layer.weight.grad = torch.ones(4, 4)
    optimizer.step()
    moved = [float((layer.weight.detach() - was).abs().mean()) for layer, was in zip(model["vit"], before, strict=True)]
    assert moved == pytest.approx([0.025, 0.05, 0.1], rel=1e-4)


def test_nothing_trainable_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing trains"):
        built(dict.fromkeys(EVERYTHING))


def moments_after_a_step(rates: dict[str, float | None]) -> dict[str, Tensor]:
    model, optimizer = built(rates)
    step_once(model, optimizer)
    return {name: value.clone() for name, value in optimizer_tensors(optimizer).items()}


@pytest.mark.parametrize(
    ("after", "new", "dropped"),
    [
        (EVERYTHING, {"encoder"}, set()),
        ({**EVERYTHING, "head": None}, {"encoder"}, {"head"}),
        ({**FROZEN_ENCODER, "connector": None}, set(), {"connector"}),
        ({"encoder": 1.0, "connector": None, "head": None, "scale": None}, {"encoder"}, {"connector", "head", "scale"}),
        ({**EVERYTHING, "connector.0.weight": None}, {"encoder"}, {"connector"}),
        (FROZEN_ENCODER, set(), set()),
    ],
)
def test_moments_follow_names_when_the_trained_set_changes(
    after: dict[str, float | None], new: set[str], dropped: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    saved = moments_after_a_step(FROZEN_ENCODER)
    _, optimizer = built(after)
    restored = restore_optimizer(optimizer, saved)
    assert {name.split(".")[0] for name in restored.new} == new
    assert {name.split(".")[0] for name in restored.dropped} == dropped
    now = optimizer_tensors(optimizer)
    assert {key.rsplit("::", 1)[0] for key in now} == set(restored.kept)
    assert all(torch.equal(value, saved[key]) for key, value in now.items())
    assert bool(new or dropped) == ("start anew" in caplog.text)


def test_a_part_of_the_same_shape_does_not_inherit_moments(caplog: pytest.LogCaptureFixture) -> None:
    """torch's own load_state_dict gives the second layer the moments of the first, silently."""
    model = nn.ModuleDict({"one": nn.Linear(3, 3), "two": nn.Linear(3, 3)})
    optimizer = build_optimizer(model, set_trainability(model, {"one": 1.0, "two": None}), AdamWChoices())
    set_learning_rate(optimizer, 0.1)
    model["one"](torch.ones(1, 3)).sum().backward()
    optimizer.step()
    saved = optimizer_tensors(optimizer)
    other = build_optimizer(model, set_trainability(model, {"one": None, "two": 1.0}), AdamWChoices())
    with caplog.at_level(logging.WARNING):
        restored = restore_optimizer(other, saved)
    assert restored.kept == [] and not other.state
    assert "two.weight" in caplog.text and "one.weight" in caplog.text


def test_a_resized_parameter_starts_anew() -> None:
    saved = moments_after_a_step(FROZEN_ENCODER)
    saved["head.embed.weight::exp_avg"] = torch.zeros(99, 8)
    _, optimizer = built(FROZEN_ENCODER)
    restored = restore_optimizer(optimizer, saved)
    assert restored.new == restored.dropped == ["head.embed.weight"]


def test_restored_optimizer_goes_on_to_the_bit() -> None:
    model, optimizer = built(FROZEN_ENCODER)
    step_once(model, optimizer)
    weights = {name: value.detach().clone() for name, value in model.named_parameters()}
    saved = {name: value.clone() for name, value in optimizer_tensors(optimizer).items()}
    step_once(model, optimizer)
    other, again = built(FROZEN_ENCODER)
    other.load_state_dict(weights, strict=False)
    restore_optimizer(again, saved)
    step_once(other, again)
    for name, value in model.named_parameters():
        assert torch.equal(value, dict(other.named_parameters())[name])


def test_average_follows_the_weights_and_gives_them_back() -> None:
    model = nn.Linear(2, 2, bias=False)
    average = ExponentialMovingAverage(model, 0.9)
    start = model.weight.detach().clone()
    with torch.no_grad():
        model.weight += 1
    average.update()
    torch.testing.assert_close(average.averages["weight"], start + 0.1)
    with average.applied():
        torch.testing.assert_close(model.weight.detach(), start + 0.1)
    assert torch.equal(model.weight.detach(), start + 1)
    average.restore({"weight": torch.zeros(2, 2)})
    assert not average.averages["weight"].any()
    with pytest.raises(ValueError, match="between 0 and 1"):
        ExponentialMovingAverage(model, 1.0)
