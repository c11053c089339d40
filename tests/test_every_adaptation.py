"""Every file of conf/model/adaptation/ composes, is counted and trains what it adds.  Found by itself."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vlmtrain.batch import VisualBatch
from vlmtrain.config.build import build
from vlmtrain.config.check import check
from vlmtrain.config.compose import compose
from vlmtrain.layout import Text, Visual
from vlmtrain.models.vision_language_model import VisionLanguageModel
from vlmtrain.nn.adapters import adapter_names
from vlmtrain.shapes import build_on_meta
from vlmtrain.training.trainability import set_trainability

FOLDER = Path(__file__).parents[1] / "conf" / "model"
CHOICES = [
    f"model/{group}={path.stem}"
    for group in ("adaptation", "encoder_adaptation")
    for path in sorted((FOLDER / group).glob("*.yaml"))
]
EVERYTHING_FROZEN: dict[str, float | None] = dict.fromkeys(("encoder", "connector", "fusion", "language_model"))


def stage(choice: str) -> dict[str, Any]:
    composed = compose(
        ["experiment=blip2_opt", "run_stages=[language]", "init_from=.", "model/connector=linear", choice]
    )
    composed.config["stages"]["language"]["start_from"] = {}
    composed.config["init_from"] = None
    check(composed)
    section: dict[str, Any] = composed.config["stages"]["language"]
    return section


@pytest.mark.parametrize("choice", CHOICES)
def test_what_it_adds_trains_and_nothing_else_does(choice: str) -> None:
    section = stage(choice)
    torch.manual_seed(0)
    model: VisionLanguageModel = build(section["model"])
    added = adapter_names(model)
    assert bool(added) == (not choice.endswith("=none"))
    rates = set_trainability(model, EVERYTHING_FROZEN)
    assert set(rates) <= added and bool(rates) == bool(added)
    assert set(set_trainability(model, section["trainable"])) > set(rates)
    text = model.layout().write([[Visual(), Text("see", False), Text(" a red circle")]], model.placeholders_per_item)
    visual = VisualBatch(torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8), [1], [1])
    model.target_states(model.encode(visual), text).states.square().sum().backward()
    without = [name for name in rates if model.get_parameter(name).grad is None]
    assert not without


@pytest.mark.parametrize("choice", CHOICES)
def test_plan_counts_what_training_has(choice: str) -> None:
    section = stage(choice)
    real: nn.Module = build(section["model"])
    rates = set_trainability(real, section["trainable"])
    shapes = build_on_meta(section)
    counted = {name: value.shape for name, value in shapes.named_parameters() if value.requires_grad}
    assert counted == {name: real.get_parameter(name).shape for name in rates}
