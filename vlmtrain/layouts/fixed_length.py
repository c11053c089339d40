"""Rows of one length, padding read along: how SigLIP's text tower was trained."""

from collections.abc import Callable
from dataclasses import replace

import torch
from transformers import PreTrainedTokenizerBase

from vlmtrain.batch import TextBatch
from vlmtrain.layout import Layout, NothingToLearn, Part, Text
from vlmtrain.layouts.tokens import Row, describe, input_batch, tokenize


class FixedLengthLayout(Layout):
    """text [end] and padding up to `max_tokens`, which counts as text: the tower is read at its last position.

    Nothing is written word by word, so rows have no targets.  Longer texts are cut, keep their end and are counted in
    `TextBatch.truncated`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> None:
        end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
        if end is None or max_tokens < 2:
            raise ValueError(
                f"FixedLengthLayout needs an end token (the tokenizer {tokenizer.name_or_path!r} has {end}) and room "
                f"for text before it (max_tokens is {max_tokens})."
            )
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.last_id = int(end)
        self.pad_id = int(end if tokenizer.pad_token_id is None else tokenizer.pad_token_id)

    def write(self, samples: list[list[Part]], placeholders_per_item: Callable[[int], int]) -> TextBatch:
        for number, parts in enumerate(samples):
            if not any(isinstance(part, Text) and part.string.strip() for part in parts):
                raise NothingToLearn(number, f"Nothing to learn in {describe(parts)}: no text.")
        ids = tokenize(self.tokenizer, samples)
        batch = input_batch([self._row(parts, ids) for parts in samples], self.pad_id)
        return replace(batch, attention_mask=torch.ones_like(batch.attention_mask))

    def write_prompts(self, samples: list[list[Part]], placeholders_per_item: Callable[[int], int]) -> TextBatch:
        raise ValueError("Rows of FixedLengthLayout are only read; no model of it continues a prompt.")

    def read(self, token_ids: list[int]) -> str:
        end = token_ids.index(self.last_id) if self.last_id in token_ids else len(token_ids)
        return str(self.tokenizer.decode(token_ids[:end], skip_special_tokens=True)).strip()

    def _row(self, parts: list[Part], ids: dict[str, list[int]]) -> Row:
        row = Row()
        tokens = [token for part in parts if isinstance(part, Text) for token in ids[part.string]]
        row.extend([*tokens[: self.max_tokens - 1], self.last_id])
        row.truncated = len(tokens) >= self.max_tokens
        row.extend([self.pad_id] * (self.max_tokens - len(row.ids)))
        return row
