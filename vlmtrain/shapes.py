"""Models without weights: what a stage's section of the configuration would build, as shapes."""

from typing import Any

import torch
from torch import nn

from vlmtrain.config.build import build
from vlmtrain.training.thawing import Thawing
from vlmtrain.training.trainability import set_trainability


def build_on_meta(stage: dict[str, Any]) -> nn.Module:
    """The stage's model on the meta device, with the right parameters frozen."""
    with torch.device("meta"):
        model: nn.Module = build(stage["model"])
    set_trainability(model, Thawing(stage["trainable"]).at_the_end())
    return model
