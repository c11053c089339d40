"""Decoder-only language models of transformers behind the LanguageModel seam."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from vlmtrain.batch import IGNORED_TARGET, TargetStates
from vlmtrain.language_models.base import LanguageModel
from vlmtrain.language_models.generation import reading_embeddings
from vlmtrain.language_models.heads import check_head, decoder_states, logit_head, positions
from vlmtrain.language_models.loading import Precision, load_causal, refuse_encoder_decoder
from vlmtrain.language_models.probes import check_generation
from vlmtrain.language_models.tokenizers import check_vocabulary, load_tokenizer
from vlmtrain.layout import Layout
from vlmtrain.layouts.causal import CausalLayout
from vlmtrain.nn.autocast import in_own_precision
from vlmtrain.nn.checkpointing import checkpointed
from vlmtrain.nn.pretrained import builds_without_weights
from vlmtrain.nn.residual_blocks import residual_blocks


class CausalLanguageModel(LanguageModel):
    """OPT, Llama, GPT-2, Qwen, Gemma, Mamba...: any causal language model of transformers that reads embeddings.

    Args:
        source: folder or hub name of the pretrained weights; None makes random ones.
        architecture: fields of the model's config.json, `model_type` among them.  Needed without `source`.  With it,
            they are checked against the weights, and stand for them on the meta device, where nothing is loaded.
        tokenizer: folder or hub name; that of `source` if not given.
        max_tokens: longest text of a row (see CausalLayout).
        terminator: what ends an answer; None for the end-of-sequence token.
        revision: of `source` on the hub.
        precision: of the weights.  bf16 is for frozen models: half the memory, and autocast stays out of them.
    """

    def __init__(
        self,
        source: str | None = None,
        architecture: dict[str, object] | None = None,
        tokenizer: str | None = None,
        max_tokens: int = 32,
        terminator: str | None = "\n",
        revision: str | None = None,
        precision: Precision = "fp32",
    ) -> None:
        super().__init__()
        model = load_causal(source, architecture, revision, precision)
        words = tokenizer or source
        loaded = None if words is None or builds_without_weights() else load_tokenizer(words, revision)
        self._take(model, loaded, max_tokens, terminator)
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
        language_model._take(model, tokenizer, max_tokens, terminator)
        return language_model

    def _take(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, max_tokens: int, terminator: str | None
    ) -> None:
        refuse_encoder_decoder(model.config)
        self.model = model
        self.width = model.get_input_embeddings().embedding_dim
        self._checkpoints = False
        self._layout = None if tokenizer is None else CausalLayout(tokenizer, max_tokens, terminator)
        if tokenizer is not None:
            check_vocabulary(tokenizer, model)
        # what a folder says on sampling, beams or penalties is not ours: writing is the same every time
        self.model.generation_config = GenerationConfig(do_sample=False, num_beams=1)
        if model.get_input_embeddings().weight.device.type != "meta":
            check_head(model, logit_head(model))
            check_generation(model, self.logits, self._generating())

    @property
    def input_layers(self) -> nn.ModuleList:
        return residual_blocks(self.model)

    def layout(self) -> Layout:
        if self._layout is None:
            raise ValueError("This language model was built without tokenizer; give tokenizer, a folder or hub name.")
        return self._layout

    def embed(self, input_ids: Tensor) -> Tensor:
        return self.model.get_input_embeddings()(input_ids)

    def target_states(self, embeddings: Tensor, attention_mask: Tensor, targets: Tensor) -> TargetStates:
        states = self._states(embeddings, attention_mask, targets)
        rows = (targets.flatten() != IGNORED_TARGET).nonzero().squeeze(1)  # one index for both, found once
        return TargetStates(
            states=states.flatten(0, 1).index_select(0, rows),
            targets=targets.flatten().index_select(0, rows),
            head=logit_head(self.model),
        )

    def logits(self, embeddings: Tensor, attention_mask: Tensor, targets: Tensor) -> Tensor:
        return logit_head(self.model)(self._states(embeddings, attention_mask, targets))

    @torch.no_grad()
    def generate(self, embeddings: Tensor, attention_mask: Tensor, max_new_tokens: int, num_beams: int = 1) -> Tensor:
        layout = self.layout()
        assert isinstance(layout, CausalLayout)
        with in_own_precision(embeddings.device, self._dtype), self._generating():
            return self.model.generate(
                inputs_embeds=embeddings.to(self._dtype),
                attention_mask=attention_mask.long(),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=num_beams,
                eos_token_id=layout.stop_ids,
                pad_token_id=layout.pad_id,
            )

    def enable_gradient_checkpointing(self) -> None:
        """Keep only the input of each block for the backward pass, also where the model is frozen."""
        self._checkpoints = True

    @property
    def _dtype(self) -> torch.dtype:
        return self.model.get_input_embeddings().weight.dtype

    def _generating(self) -> AbstractContextManager[None]:
        """What has to be in force while transformers' `generate` runs."""
        return reading_embeddings(self.model)

    def _states(self, embeddings: Tensor, attention_mask: Tensor, targets: Tensor) -> Tensor:
        with in_own_precision(embeddings.device, self._dtype), checkpointed(self.input_layers, self._checkpoints):
            return decoder_states(self.model, embeddings, attention_mask.long(), positions(attention_mask))
