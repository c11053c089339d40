"""Getting vision models of transformers: their config, their weights, how they want pixels, what of them is read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.utils import cached_file

from vlmtrain.encoders.taps import Tap, Taps, choose_taps
from vlmtrain.nn.checkpointing import checkpointed
from vlmtrain.nn.pretrained import builds_without_weights, is_local
from vlmtrain.nn.residual_blocks import residual_blocks
from vlmtrain.nn.transformers_loading import load_model

HALF = (0.5, 0.5, 0.5)
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def _where(source: str, revision: str | None) -> dict[str, Any]:
    return {"revision": revision, "local_files_only": is_local(source), "trust_remote_code": False}


def find_vision_config(
    source: str | None, architecture: Mapping[str, Any] | None, revision: str | None
) -> PretrainedConfig:
    if source is not None and not (architecture and builds_without_weights()):
        config = AutoConfig.from_pretrained(source, **_where(source, revision))
    elif architecture is None or "model_type" not in architecture:
        raise ValueError("Give source (a name or folder), or architecture (fields of a config.json with model_type).")
    else:
        config = AutoConfig.for_model(**architecture)
    return getattr(config, "vision_config", config)


def load_vision_model(
    source: str | None, config: PretrainedConfig, revision: str | None, dtype: torch.dtype
) -> PreTrainedModel:
    if source is None or builds_without_weights():
        return AutoModel.from_config(config, dtype=dtype, trust_remote_code=False)
    return load_model(AutoModel, source, config, revision, dtype)


def cut_to(tap: Tap, model: PreTrainedModel) -> Taps:
    """Which blocks of `model` are read; what stands behind the last of them, or never reaches our output, is gone."""
    blocks = residual_blocks(model)
    taps = choose_taps(tap, len(blocks))
    del blocks[taps.num_blocks :]
    drop_unread(model, taps.reads_end)
    return taps


def drop_unread(model: nn.Module, reads_end: bool) -> None:
    """Take out what never reaches our output: its parameters would be counted, moved and wait for gradient in vain."""
    for module in (model, *model.children()):
        for name in ("pooler", "head", "mask_token"):
            if isinstance(getattr(module, name, None), nn.Module | nn.Parameter):
                setattr(module, name, None)
        if hasattr(module, "use_head"):
            module.__dict__["use_head"] = False
        for name in () if reads_end else ("layernorm", "post_layernorm"):
            if isinstance(getattr(module, name, None), nn.Module):
                setattr(module, name, nn.Identity())


def find_normalisation(
    source: str | None, revision: str | None
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    if source is None or builds_without_weights():
        return HALF, HALF
    path = cached_file(
        source,
        "preprocessor_config.json",
        revision=revision,
        local_files_only=is_local(source),
        _raise_exceptions_for_missing_entries=False,
    )
    if path is None:
        raise ValueError(f"{source}: no preprocessor_config.json, so how pixels are normalised is unknown; add one.")
    preprocessing = json.loads(Path(path).read_text())
    return tuple(preprocessing["image_mean"]), tuple(preprocessing["image_std"])


def read_layers(model: nn.Module, taps: Taps, checkpoints: bool, inputs: Mapping[str, Any]) -> Tensor:
    """One forward pass; what came out of the blocks that `taps` names, side by side: [N, tokens, taps * W]."""
    blocks = residual_blocks(model)
    states: dict[int, Tensor] = {}

    def keep(layer: int, output: Tensor | tuple[Tensor, ...]) -> None:
        states[layer] = output if isinstance(output, Tensor) else output[0]

    handles = [
        blocks[layer - 1].register_forward_hook(lambda module, given, output, layer=layer: keep(layer, output))
        for layer in taps.layers
    ]
    try:
        with checkpointed(blocks, checkpoints):
            output = model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    if taps.reads_end:
        states[taps.depth] = output.last_hidden_state
    return taps.join(states)
