"""Text towers of transformers: CLIP's and SigLIP's, BERT and its kin, the encoder of a T5."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from vlmtrain.batch import TextBatch
from vlmtrain.language_models.loading import DTYPES, Precision
from vlmtrain.language_models.text_encoder import TextEncoder
from vlmtrain.language_models.tokenizers import check_vocabulary, load_tokenizer
from vlmtrain.layout import Layout
from vlmtrain.layouts.pair import PairLayout
from vlmtrain.nn.autocast import in_own_precision
from vlmtrain.nn.checkpointing import Checkpointable, checkpointed
from vlmtrain.nn.pooling import LastPosition, Pooling
from vlmtrain.nn.pretrained import builds_without_weights, is_local
from vlmtrain.nn.residual_blocks import residual_blocks
from vlmtrain.nn.transformers_loading import load_model

NOT_READ = ("pooler", "head")  # behind the states: the dual encoder pools and projects itself


class HuggingFaceTextEncoder(Checkpointable, TextEncoder):
    """A text transformer by folder or hub name; of a two-tower model such as CLIP, the text tower.

    Args:
        source: folder or hub name; None makes random weights.
        architecture: fields of the text model's config.json, `model_type` among them.  Needed without `source`; with
            it, they stand for it on the meta device, where nothing is loaded.  `vocab_size` may be left to the
            tokenizer.
        tokenizer: name or folder; None: that of `source`.
        max_tokens: longest text, special tokens included.
        pooling: of the states; the last position that counts is CLIP's end token.
        layout: made from tokenizer and max_tokens; FixedLengthLayout for SigLIP.
        revision: of `source` on the hub.
        precision: of the weights.
    """

    def __init__(
        self,
        source: str | None = None,
        architecture: dict[str, Any] | None = None,
        tokenizer: str | None = None,
        max_tokens: int = 77,
        pooling: Callable[..., Pooling] = LastPosition,
        layout: Callable[..., Layout] = PairLayout,
        revision: str | None = None,
        precision: Precision = "fp32",
    ) -> None:
        super().__init__()
        words = tokenizer or source
        if words is None:
            raise ValueError("Give tokenizer: without source there is none to take along.")
        is_counted = builds_without_weights() and "vocab_size" in (architecture or {})
        self.tokenizer = None if is_counted else load_tokenizer(words, revision if words == source else None)
        config = _find_config(source, architecture, revision, 0 if is_counted else len(self.tokenizer))  # type: ignore[arg-type]
        self.model = _load(source, config, revision, DTYPES[precision])
        if self.tokenizer is not None:
            check_vocabulary(self.tokenizer, self.model)
        self.source = source or "random"
        self.width = int(config.hidden_size)
        self.max_tokens = max_tokens
        self.pooling = pooling(self.width, max_tokens)
        self._layout = layout
        longest = getattr(config, "max_position_embeddings", None)
        if longest is not None and max_tokens > longest:
            raise ValueError(
                f"max_tokens {max_tokens} is more than the {longest} positions of {type(self.model).__name__}."
            )

    def wrapping_units(self) -> nn.ModuleList:
        return residual_blocks(self.model)

    def layout(self) -> Layout:
        return self._layout(self.tokenizer, self.max_tokens)

    def forward(self, text: TextBatch) -> Tensor:
        return self.pooling(self.states(text), text.attention_mask)

    def states(self, text: TextBatch) -> Tensor:
        """[B, T] -> [B, T, W]"""
        dtype = next(self.model.parameters()).dtype
        with (
            checkpointed(residual_blocks(self.model), self.is_checkpointed),
            in_own_precision(text.input_ids.device, dtype),
        ):
            output = self.model(input_ids=text.input_ids, attention_mask=text.attention_mask.long())
        return output.last_hidden_state

    def word_table(self) -> nn.Embedding:
        table: nn.Embedding = self.model.get_input_embeddings()
        return table

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a Hugging Face folder with its tokenizer."""
        self.model.save_pretrained(folder)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)


def _find_config(
    source: str | None, architecture: dict[str, Any] | None, revision: str | None, num_words: int
) -> PretrainedConfig:
    if source is not None and not (architecture and builds_without_weights()):
        local = is_local(source)
        config = AutoConfig.from_pretrained(source, revision=revision, local_files_only=local, trust_remote_code=False)
        return getattr(config, "text_config", config)
    if architecture is None or "model_type" not in architecture:
        raise ValueError("Give source (a name or folder), or architecture (fields of a config.json with model_type).")
    return AutoConfig.for_model(**{"vocab_size": num_words, **architecture})


def _load(source: str | None, config: PretrainedConfig, revision: str | None, dtype: torch.dtype) -> PreTrainedModel:
    kind = _find_class(config)
    if source is None or builds_without_weights():
        model: PreTrainedModel = kind._from_config(config, dtype=dtype)
    else:
        model = load_model(kind, source, config, revision, dtype)
    if config.is_encoder_decoder:
        model = model.get_encoder()
    for name in NOT_READ:
        if isinstance(getattr(model, name, None), nn.Module):
            setattr(model, name, nn.Identity())
    return model


def _find_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """XModel for XConfig: AutoModel does not know the text halves of two-tower models."""
    name = type(config).__name__.removesuffix("Config") + "Model"
    kind = getattr(transformers, name, None)
    if kind is None:
        raise ValueError(f"transformers has no {name}, so that {config.model_type} cannot be a text encoder.")
    return kind
