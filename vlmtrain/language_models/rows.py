"""How samples are laid into the rows that a language model of transformers reads in training."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from vlmtrain.batch import IGNORED_TARGET
from vlmtrain.language_models.heads import decoder_states, positions, seq2seq_states
from vlmtrain.nn.prefix_mask import added_to_scores, prefix_mask, same_sample
from vlmtrain.nn.shared_rows import SharedRows, share


class Rows(Protocol):
    """Runs a language model on samples [B, T] and gives states of samples, whatever rows lie between.

    `shared` says during such a pass how the rows are shared, for who acts between the layers; None: a row is a sample.
    """

    shared: SharedRows | None

    def decode(
        self, model: PreTrainedModel, embeddings: Tensor, attention_mask: Tensor, in_prefix: Tensor | None = None
    ) -> Tensor:
        """[B, T, D], [B, T], [B, T] bool where a prefix is read both ways -> states [B, T, D]."""

    def encode_and_decode(
        self, model: PreTrainedModel, embeddings: Tensor, attention_mask: Tensor, decoder_ids: Tensor, targets: Tensor
    ) -> Tensor:
        """[B, T, D], [B, T] for the encoder, [B, L] twice for the decoder -> its states [B, L, D]."""


class RowPerSample:
    """Every sample in a row of its own, padded to the longest."""

    shared: SharedRows | None = None

    def decode(
        self, model: PreTrainedModel, embeddings: Tensor, attention_mask: Tensor, in_prefix: Tensor | None = None
    ) -> Tensor:
        mask = attention_mask.long()
        if in_prefix is not None:
            check_window(model, embeddings.shape[1])
            mask = prefix_mask(mask, in_prefix, _dtype(model))
        return decoder_states(model, embeddings, mask, positions(attention_mask))

    def encode_and_decode(
        self, model: PreTrainedModel, embeddings: Tensor, attention_mask: Tensor, decoder_ids: Tensor, targets: Tensor
    ) -> Tensor:
        return seq2seq_states(model, embeddings, attention_mask.long(), decoder_ids)


class PackedSamples:
    """Samples share rows, each with positions of its own and blind to the others: less padding, the same states.

    A row is as long as the longest sample, or `row_length` where that is more.  Counting the samples' lengths asks the
    device once a pass.
    """

    def __init__(self, row_length: int = 0) -> None:
        self.row_length = row_length
        self.shared: SharedRows | None = None

    def decode(
        self, model: PreTrainedModel, embeddings: Tensor, attention_mask: Tensor, in_prefix: Tensor | None = None
    ) -> Tensor:
        check_window(model, embeddings.shape[1])
        lengths = attention_mask.sum(dim=1).tolist()
        longest = max(self.row_length, *lengths)
        shared = SharedRows.of(attention_mask.bool(), share([[each] for each in lengths], [longest]), longest)
        sees_both_ways = torch.zeros_like(attention_mask, dtype=torch.bool) if in_prefix is None else in_prefix
        mask = prefix_mask(shared.owners, shared.pack(sees_both_ways), _dtype(model))
        with self._sharing(shared):
            places = shared.pack(positions(attention_mask))
            return shared.unpack(decoder_states(model, shared.pack(embeddings), mask, places))

    def encode_and_decode(
        self, model: PreTrainedModel, embeddings: Tensor, attention_mask: Tensor, decoder_ids: Tensor, targets: Tensor
    ) -> Tensor:
        is_target = targets != IGNORED_TARGET
        lengths = torch.stack([attention_mask.sum(dim=1), is_target.sum(dim=1)], dim=1).tolist()
        longest = [max(self.row_length, *kind) for kind in zip(*lengths, strict=True)]
        rows = share(lengths, longest)
        read, written = (
            SharedRows.of(mask, rows, length)
            for mask, length in zip((attention_mask.bool(), is_target), longest, strict=True)
        )
        dtype = _dtype(model)
        nowhere = torch.zeros_like(written.owners, dtype=torch.bool)
        masks = (
            prefix_mask(written.owners, nowhere, dtype),
            added_to_scores(same_sample(written.owners, read.owners), dtype),
        )
        encoder_mask = added_to_scores(same_sample(read.owners, read.owners), dtype)
        with self._sharing(read):
            states = seq2seq_states(model, read.pack(embeddings), encoder_mask, written.pack(decoder_ids), masks)
        return written.unpack(states)

    @contextmanager
    def _sharing(self, shared: SharedRows) -> Iterator[None]:
        self.shared = shared
        try:
            yield
        finally:
            self.shared = None


def check_window(model: PreTrainedModel, length: int) -> None:
    """ValueError where samples of `length` would need the sliding window that a mask of ours switches off."""
    window = getattr(model.config.get_text_config(decoder=True), "sliding_window", None)
    if window is not None and length > window:
        raise ValueError(
            f"A sample of {length} positions does not fit the sliding window of {window} of {type(model).__name__}, "
            "which masks of prefixes or packed samples switch off.  Shorten max_tokens or the visual tokens, or use "
            "CausalLanguageModel without packing."
        )


def _dtype(model: PreTrainedModel) -> torch.dtype:
    return model.get_input_embeddings().weight.dtype
