"""Decoder-only language models of transformers behind the LanguageModel seam."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from vlmtrain.language_models.base import LanguageModel
from vlmtrain.language_models.generation import reading_embeddings
from vlmtrain.language_models.heads import check_head, logit_head
from vlmtrain.language_models.loading import HeldIn, load_causal, refuse_encoder_decoder
from vlmtrain.language_models.pretrained import PretrainedLanguageModel, find_tokenizer
from vlmtrain.language_models.probes import check_generation, try_out
from vlmtrain.layouts.causal import CausalLayout
from vlmtrain.nn.autocast import in_own_precision
from vlmtrain.nn.checkpointing import checkpointed
from vlmtrain.nn.residual_blocks import residual_blocks


class CausalLanguageModel(PretrainedLanguageModel):
    """OPT, Llama, GPT-2, Qwen, Gemma, Mamba...: any causal language model of transformers that reads embeddings.

    Args:
        source: folder or hub name of the pretrained weights; None makes random ones.
        architecture: fields of the model's config.json, `model_type` among them.  Needed without `source`.  With it,
            they are checked against the weights, and stand for them on the meta device, where nothing is loaded.
        tokenizer: folder or hub name; that of `source` if not given.
        max_tokens: longest text of a row (see CausalLayout).
        terminator: what ends an answer; None for the end-of-sequence token.
        revision: of `source` on the hub.
        precision: of the weights.  bf16 is for frozen models: half the memory, and autocast stays out of them.  So is
            nf4 (`language_models.four_bits`): linear layers in four bits, all else in bf16; LoRA trains beside them.
    """

    def __init__(
        self,
        source: str | None = None,
        architecture: dict[str, object] | None = None,
        tokenizer: str | None = None,
        max_tokens: int = 32,
        terminator: str | None = "\n",
        revision: str | None = None,
        precision: HeldIn = "fp32",
    ) -> None:
        super().__init__()
        model = load_causal(source, architecture, revision, precision)
        self.adopt(model, find_tokenizer(tokenizer, source, revision), max_tokens, terminator)
        self.source = source or "random"

    @classmethod
    def from_model(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        max_tokens: int = 32,
        terminator: str | None = "\n",
    ) -> "CausalLanguageModel":
        """One around a model that exists already."""
        language_model = cls.__new__(cls)
        LanguageModel.__init__(language_model)
        language_model.adopt(model, tokenizer, max_tokens, terminator)
        return language_model

    def adopt(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, max_tokens: int, terminator: str | None
    ) -> None:
        """Hold `model` and lay text out for it; ValueError where it does not do what it is needed for."""
        refuse_encoder_decoder(model.config)
        self.take(model, None if tokenizer is None else CausalLayout(tokenizer, max_tokens, terminator))
        # what a folder says on sampling, beams or penalties is not ours: writing is the same every time
        self.model.generation_config = GenerationConfig(do_sample=False, num_beams=1)
        if model.get_input_embeddings().weight.device.type != "meta":
            try_out(model, self._check)

    def _check(self) -> None:
        check_head(self.model, logit_head(self.model))
        check_generation(self.model, self.logits, self.generating())

    @property
    def input_layers(self) -> nn.ModuleList:
        return residual_blocks(self.model)

    def head(self) -> Callable[[Tensor], Tensor]:
        return logit_head(self.model)

    def states(self, embeddings: Tensor, attention_mask: Tensor, targets: Tensor) -> Tensor:
        with in_own_precision(embeddings.device, self.dtype), checkpointed(self.input_layers, self.is_checkpointed):
            return self.rows.decode(self.model, embeddings, attention_mask, self.in_prefix(targets))

    def in_prefix(self, targets: Tensor) -> Tensor | None:
        """[B, T] bool: what is read both ways; None: nothing."""
        return None

    def generating(self) -> AbstractContextManager[None]:
        return reading_embeddings(self.model)
