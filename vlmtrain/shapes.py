"""Models without weights: what a stage's section of the configuration would build, as shapes."""

from typing import Any

import torch
from torch import nn

from vlmtrain.config.build import build
from vlmtrain.training.costs import MemoryCost, estimate_memory
from vlmtrain.training.precision import resolve_precision, set_weight_precision
from vlmtrain.training.sharing import Sharing
from vlmtrain.training.thawing import thawing_of
from vlmtrain.training.trainability import set_trainability


def build_on_meta(stage: dict[str, Any]) -> nn.Module:
    """The stage's model on the meta device, with the right parameters frozen, in the formats they are kept in."""
    with torch.device("meta"):
        model: nn.Module = build(stage["model"])
    set_trainability(model, thawing_of(stage["trainable"], stage["trainer"]["max_steps"]).at_the_end())
    set_weight_precision(model, resolve_precision(stage["trainer"]["precision"]))
    return model


def estimate_stage(model: nn.Module, stage: dict[str, Any], processes: int, sharing: Sharing) -> MemoryCost:
    """What one of so many processes takes that trains `model`, made by `build_on_meta`, as `stage` says."""
    trainer = stage["trainer"]
    micro_batch = trainer["batch_size"] // (trainer["accumulate"] * processes)
    return estimate_memory(
        model,
        resolve_precision(trainer["precision"]),
        micro_batch,
        trainer["gradient_checkpointing"],
        sharing,
        trainer["ema_decay"] is not None,
    )
