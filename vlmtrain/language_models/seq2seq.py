"""Encoder-decoders of transformers behind the LanguageModel seam."""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from vlmtrain.batch import IGNORED_TARGET
from vlmtrain.language_models.base import LanguageModel
from vlmtrain.language_models.heads import seq2seq_head, shrinks_states
from vlmtrain.language_models.loading import HeldIn, load_seq2seq, refuse_decoder_only
from vlmtrain.language_models.pretrained import PretrainedLanguageModel, find_tokenizer
from vlmtrain.language_models.probes import try_out
from vlmtrain.layouts.seq2seq import Seq2SeqLayout
from vlmtrain.nn.autocast import in_own_precision
from vlmtrain.nn.checkpointing import checkpointed
from vlmtrain.nn.residual_blocks import residual_blocks


class Seq2SeqLanguageModel(PretrainedLanguageModel):
    """T5, Flan-T5, mT5, BART...: any encoder-decoder of transformers whose encoder reads embeddings.

    The encoder reads vision and prompt, the decoder writes the answer (BLIP-2, Li et al. 2023, section 3.3).

    Args:
        source: folder or hub name of the pretrained weights; None makes random ones.
        architecture: fields of the model's config.json, `model_type` among them.  Needed without `source`.  With it,
            they are checked against the weights, and stand for them on the meta device, where nothing is loaded.
        tokenizer: folder or hub name; that of `source` if not given.
        max_tokens: longest text of an encoder row (see Seq2SeqLayout).
        max_target_tokens: longest answer; None for `max_tokens`.
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
        max_target_tokens: int | None = None,
        revision: str | None = None,
        precision: HeldIn = "fp32",
    ) -> None:
        super().__init__()
        model = load_seq2seq(source, architecture, revision, precision)
        self.adopt(model, find_tokenizer(tokenizer, source, revision), max_tokens, max_target_tokens)
        self.source = source or "random"

    @classmethod
    def from_model(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        max_tokens: int = 32,
        max_target_tokens: int | None = None,
    ) -> "Seq2SeqLanguageModel":
        """One around a model that exists already."""
        language_model = cls.__new__(cls)
        LanguageModel.__init__(language_model)
        language_model.adopt(model, tokenizer, max_tokens, max_target_tokens)
        return language_model

    def adopt(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        max_tokens: int,
        max_target_tokens: int | None,
    ) -> None:
        """Hold `model` and lay text out for it; ValueError where it does not do what it is needed for."""
        refuse_decoder_only(model.config)
        self.take(model, None if tokenizer is None else Seq2SeqLayout(tokenizer, max_tokens, max_target_tokens))
        self._start_id = _start_id(model)
        # what a folder says on sampling, beams or penalties is not ours: writing is greedy and the same every time
        self.model.generation_config = GenerationConfig(
            do_sample=False, num_beams=1, decoder_start_token_id=self._start_id
        )
        has_weights = model.get_input_embeddings().weight.device.type != "meta"
        self._shrinks_states = has_weights and try_out(model, partial(shrinks_states, model))

    @property
    def input_layers(self) -> nn.ModuleList:
        return residual_blocks(self.model.get_encoder())

    def head(self) -> Callable[[Tensor], Tensor]:
        return seq2seq_head(self.model, self._shrinks_states)

    def generate(self, embeddings: Tensor, attention_mask: Tensor, max_new_tokens: int, num_beams: int = 1) -> Tensor:
        written = super().generate(embeddings, attention_mask, max_new_tokens, num_beams)
        return written[:, 1:]  # the start token is nothing that was written

    def wrapping_units(self) -> Iterable[nn.Module]:
        return chain(self.input_layers, residual_blocks(self.model.get_decoder()))

    def states(self, embeddings: Tensor, attention_mask: Tensor, targets: Tensor) -> Tensor:
        """The decoder reads what it shall have written so far: the start token, then all targets but the last."""
        written = torch.cat([torch.full_like(targets[:, :1], self._start_id), targets[:, :-1]], dim=1)
        # ignored targets only follow the last one of a row, and a causal decoder never looks at what follows
        decoder_ids = written.masked_fill(written == IGNORED_TARGET, self._start_id)
        units = self.wrapping_units()
        with in_own_precision(embeddings.device, self.dtype), checkpointed(units, self.is_checkpointed):
            return self.rows.encode_and_decode(self.model, embeddings, attention_mask, decoder_ids, targets)


def _start_id(model: PreTrainedModel) -> int:
    """What the decoder reads before it has written anything."""
    for place in (model.config, model.generation_config):
        token = getattr(place, "decoder_start_token_id", None)
        if token is not None:
            return int(token)
    raise ValueError(
        f"{model.config.model_type}: its config does not say what the decoder starts with; "
        "add decoder_start_token_id to the config.json, or to `architecture` where there is none."
    )
