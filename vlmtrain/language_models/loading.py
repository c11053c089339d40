"""Causal language models of transformers by name, by folder, or from the architecture alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from vlmtrain.nn.pretrained import builds_without_weights, is_local

Precision = Literal["fp32", "bf16"]
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_causal(
    source: str | None, architecture: Mapping[str, object] | None, revision: str | None, precision: Precision
) -> PreTrainedModel:
    """The weights of `source`; random ones of `architecture` without it; shapes only on the meta device."""
    dtype = DTYPES[precision]
    if source is None or builds_without_weights():
        config = _config(source, architecture, revision)
        return AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    local = is_local(source)
    model = AutoModelForCausalLM.from_pretrained(
        str(Path(source).expanduser()) if local else source,
        revision=revision,
        dtype=dtype,
        local_files_only=local,
        trust_remote_code=False,
    )
    _check_architecture(model.config, architecture, source)
    return model


def _config(source: str | None, architecture: Mapping[str, object] | None, revision: str | None) -> PretrainedConfig:
    if architecture is not None:
        if "model_type" not in architecture:
            raise ValueError("architecture: name its model_type, for example model_type: opt.")
        return AutoConfig.for_model(**architecture)
    if source is None:
        raise ValueError("Give source (a name or folder), or architecture (the fields of a config.json).")
    local = is_local(source)
    return AutoConfig.from_pretrained(
        str(Path(source).expanduser()) if local else source,
        revision=revision,
        local_files_only=local,
        trust_remote_code=False,
    )


def _check_architecture(config: PretrainedConfig, architecture: Mapping[str, object] | None, source: str) -> None:
    wrong = [
        f"{name} is {getattr(config, name, None)!r}, not {wanted!r}"
        for name, wanted in (architecture or {}).items()
        if getattr(config, name, None) != wanted
    ]
    if wrong:
        raise ValueError(f"architecture does not describe {source}: {'; '.join(wrong)}.")
