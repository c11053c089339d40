"""What decoders and encoder-decoders of transformers have in common behind the LanguageModel seam."""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from vlmtrain.batch import IGNORED_TARGET, TargetStates
from vlmtrain.language_models.base import LanguageModel
from vlmtrain.language_models.rows import RowPerSample, Rows
from vlmtrain.language_models.tokenizers import check_vocabulary, load_tokenizer
from vlmtrain.layouts.causal import CausalLayout
from vlmtrain.layouts.seq2seq import Seq2SeqLayout
from vlmtrain.nn.autocast import in_own_precision
from vlmtrain.nn.checkpointing import Checkpointable
from vlmtrain.nn.pretrained import builds_without_weights
from vlmtrain.nn.shared_rows import SharedRows


class PretrainedLanguageModel(Checkpointable, LanguageModel):
    """A model of transformers, reading embeddings.  A subclass says what its states are and which head reads them."""

    model: PreTrainedModel

    @abstractmethod
    def head(self) -> Callable[[Tensor], Tensor]:
        """States [s, D] -> logits [s, vocabulary]."""

    @abstractmethod
    def states(self, embeddings: Tensor, attention_mask: Tensor, targets: Tensor) -> Tensor:
        """[B, T, D], [B, T], [B, L] -> what the head reads, [B, L, D]."""

    def take(self, model: PreTrainedModel, layout: CausalLayout | Seq2SeqLayout | None) -> None:
        """Hold `model`; ValueError where the layout's tokenizer is not the one that it was trained with."""
        self.model = model
        self.width = model.get_input_embeddings().embedding_dim
        self.rows: Rows = RowPerSample()
        self._layout = layout
        if layout is not None:
            check_vocabulary(layout.tokenizer, model)

    def layout(self) -> CausalLayout | Seq2SeqLayout:
        if self._layout is None:
            raise ValueError("This language model was built without tokenizer; give tokenizer, a folder or hub name.")
        return self._layout

    def wrapping_units(self) -> Iterable[nn.Module]:
        return self.input_layers

    def embed(self, input_ids: Tensor) -> Tensor:
        return self.model.get_input_embeddings()(input_ids)

    def target_states(self, embeddings: Tensor, attention_mask: Tensor, targets: Tensor) -> TargetStates:
        states = self.states(embeddings, attention_mask, targets)
        rows = (targets.flatten() != IGNORED_TARGET).nonzero().squeeze(1)  # one index for both, found once
        return TargetStates(
            states=states.flatten(0, 1).index_select(0, rows),
            targets=targets.flatten().index_select(0, rows),
            head=self.head(),
        )

    def logits(self, embeddings: Tensor, attention_mask: Tensor, targets: Tensor) -> Tensor:
        return self.head()(self.states(embeddings, attention_mask, targets))

    @torch.no_grad()
    def generate(self, embeddings: Tensor, attention_mask: Tensor, max_new_tokens: int, num_beams: int = 1) -> Tensor:
        layout = self.layout()
        with in_own_precision(embeddings.device, self.dtype), self.generating():
            return self.model.generate(
                inputs_embeds=embeddings.to(self.dtype),
                attention_mask=attention_mask.long(),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=num_beams,
                eos_token_id=layout.stop_ids,
                pad_token_id=layout.pad_id,
            )

    def generating(self) -> AbstractContextManager[None]:
        """What has to be in force while transformers' `generate` runs."""
        return nullcontext()

    @property
    def shared_rows(self) -> SharedRows | None:
        return self.rows.shared

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.model.get_input_embeddings().weight.dtype


def find_tokenizer(tokenizer: str | None, source: str | None, revision: str | None) -> PreTrainedTokenizerBase | None:
    """The one named, or that of the weights; None where there is neither or nothing is loaded."""
    words = tokenizer or source
    return None if words is None or builds_without_weights() else load_tokenizer(words, revision)
