"""Language models of transformers by name, by folder, or from the architecture alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PretrainedConfig,
    PreTrainedModel,
)

from vlmtrain.language_models.four_bits import REST, four_bit_loading, keep_codes
from vlmtrain.nn.pretrained import builds_without_weights, is_local
from vlmtrain.nn.transformers_loading import load_model, load_quantized

Precision = Literal["fp32", "bf16"]
HeldIn = Literal["fp32", "bf16", "nf4"]
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "nf4": REST}


def load_causal(
    source: str | None, architecture: Mapping[str, object] | None, revision: str | None, precision: HeldIn
) -> PreTrainedModel:
    """The weights of `source`; random ones of `architecture` without it; shapes only on the meta device."""
    config = _config(source, architecture, revision)
    refuse_encoder_decoder(config)
    return _load(AutoModelForCausalLM, config, source, architecture, revision, precision)


def load_seq2seq(
    source: str | None, architecture: Mapping[str, object] | None, revision: str | None, precision: HeldIn
) -> PreTrainedModel:
    """As `load_causal`, for models with an encoder and a decoder."""
    config = _config(source, architecture, revision)
    refuse_decoder_only(config)
    model = _load(AutoModelForSeq2SeqLM, config, source, architecture, revision, precision)
    if source is None or builds_without_weights():
        _untie(model, architecture)
    return model


def refuse_encoder_decoder(config: PretrainedConfig) -> None:
    """ValueError where the model has an encoder, which a decoder-only class would leave out without a word."""
    if config.is_encoder_decoder:
        raise ValueError(
            f"{config.model_type} is an encoder-decoder: "
            "use vlmtrain.language_models.seq2seq.Seq2SeqLanguageModel for it."
        )


def refuse_decoder_only(config: PretrainedConfig) -> None:
    """ValueError where the model has no encoder to put the prompt into."""
    if not config.is_encoder_decoder:
        raise ValueError(
            f"{config.model_type} is no encoder-decoder: "
            "use vlmtrain.language_models.causal.CausalLanguageModel for it."
        )


def _load(
    auto_class: type,
    config: PretrainedConfig,
    source: str | None,
    architecture: Mapping[str, object] | None,
    revision: str | None,
    precision: HeldIn,
) -> PreTrainedModel:
    dtype = DTYPES[precision]
    if source is None and precision == "nf4":
        raise ValueError("precision=nf4 rounds weights as they are read: give source, or choose fp32 or bf16.")
    if source is None or builds_without_weights():
        return auto_class.from_config(config, dtype=dtype, trust_remote_code=False)  # type: ignore[attr-defined]
    _check_architecture(config, architecture, source)
    if precision != "nf4":
        return load_model(auto_class, source, config, revision, dtype)
    model = load_quantized(auto_class, source, config, revision, dtype, four_bit_loading())
    keep_codes(model)
    return model


def _config(source: str | None, architecture: Mapping[str, object] | None, revision: str | None) -> PretrainedConfig:
    if architecture is not None and (source is None or builds_without_weights()):
        return _named(architecture)
    if source is None:
        raise ValueError("Give source (a name or folder), or architecture (the fields of a config.json).")
    local = is_local(source)
    return AutoConfig.from_pretrained(
        str(Path(source).expanduser()) if local else source,
        revision=revision,
        local_files_only=local,
        trust_remote_code=False,
    )


def _named(architecture: Mapping[str, object]) -> PretrainedConfig:
    if "model_type" not in architecture:
        raise ValueError("architecture: name its model_type, for example model_type: opt.")
    return AutoConfig.for_model(**architecture)


def _check_architecture(config: PretrainedConfig, architecture: Mapping[str, object] | None, source: str) -> None:
    if architecture is None:
        return
    wanted = _named(architecture)  # some classes rewrite what a config.json says, so both are asked after that
    wrong = [
        f"{name} is {getattr(config, name, None)!r}, not {getattr(wanted, name, None)!r}"
        for name in architecture
        if getattr(config, name, None) != getattr(wanted, name, None)
    ]
    if wrong:
        raise ValueError(f"architecture does not describe {source}: {'; '.join(wrong)}.")


def _untie(model: PreTrainedModel, architecture: Mapping[str, object] | None) -> None:
    """T5 v1.1 and mT5 have a head of their own: their classes tie it to the embedding until weights say otherwise."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    says_untied = (architecture or {}).get("tie_word_embeddings") is False
    if says_untied and head is not None and head.weight is embedding.weight:
        head.weight = nn.Parameter(embedding.weight.detach().clone())
