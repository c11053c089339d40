"""Rows as open_clip's own tokenizers write them."""

from collections.abc import Callable
from typing import Any

import torch

from vlmtrain.batch import TextBatch
from vlmtrain.layout import Layout, NothingToLearn, Part, Text
from vlmtrain.layouts.tokens import describe


class OpenClipLayout(Layout):
    """Every row has the tower's context length; what of it is padding, the tower knows.  Rows have no targets.

    open_clip cuts without a word: a row without any padding counts as truncated.

    Args:
        tokenizer: what `open_clip.get_tokenizer` gives: strings and a length -> ids [B, length].
        max_tokens: the tower's context length.
        pad_id: what fills short rows.
    """

    def __init__(self, tokenizer: Any, max_tokens: int, pad_id: int) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.pad_id = pad_id

    def write(self, samples: list[list[Part]], placeholders_per_item: Callable[[int], int]) -> TextBatch:
        strings = ["".join(part.string for part in parts if isinstance(part, Text)) for parts in samples]
        for number, (string, parts) in enumerate(zip(strings, samples, strict=True)):
            if not string.strip():
                raise NothingToLearn(number, f"Nothing to learn in {describe(parts)}: no text.")
        ids = self.tokenizer(strings, context_length=self.max_tokens)
        everywhere = torch.ones_like(ids, dtype=torch.bool)
        truncated = int((ids != self.pad_id).all(dim=1).sum())
        return TextBatch(ids, everywhere, torch.zeros_like(everywhere), truncated=truncated)

    def write_prompts(self, samples: list[list[Part]], placeholders_per_item: Callable[[int], int]) -> TextBatch:
        raise ValueError("Rows of open_clip's towers are only read; no model of them continues a prompt.")

    def read(self, token_ids: list[int]) -> str:
        raise ValueError("open_clip's tokenizers write rows and read none.")
