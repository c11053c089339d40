"""Rows of a model that reads the text of a pair by itself: dual encoders, and the Q-Former in stage 1."""

from collections.abc import Callable
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from vlmtrain.batch import TextBatch
from vlmtrain.layout import Layout, NothingToLearn, Part, Text
from vlmtrain.layouts.tokens import Row, describe, prompt_batch, tokenize, training_batch


class PairLayout(Layout):
    """[class] text [separator]: the image leaves no place in the row.

    Targets are those of a causal reading of the row (captioning in BLIP-2's stage 1): the token that follows, where it
    is supervised, the closing separator included.  Rows are cut to `max_tokens`, class token and separator counted in,
    and keep their separator; cut rows are counted in `TextBatch.truncated`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.first_id = _first_known(tokenizer, "cls_token_id", "bos_token_id")
        self.last_id = _first_known(tokenizer, "sep_token_id", "eos_token_id")
        self.pad_id = _first_known(tokenizer, "pad_token_id")
        if max_tokens < 3:
            raise ValueError(f"max_tokens {max_tokens} leaves no room for text between class token and separator.")

    def write(self, samples: list[list[Part]], placeholders_per_item: Callable[[int], int]) -> TextBatch:
        ids = tokenize(self.tokenizer, samples)
        rows = [self._row(parts, ids, room=self.max_tokens - 2) for parts in samples]
        for number, (row, parts) in enumerate(zip(rows, samples, strict=True)):
            if not any(row.supervised) or not any(isinstance(part, Text) and part.string.strip() for part in parts):
                reason = f"Nothing to learn in {describe(parts)}: no caption within {self.max_tokens} tokens."
                raise NothingToLearn(number, reason)
            row.extend([self.last_id], supervised=row.supervised[-1])
        return training_batch(rows, self.pad_id)

    def write_prompts(self, samples: list[list[Part]], placeholders_per_item: Callable[[int], int]) -> TextBatch:
        ids = tokenize(self.tokenizer, samples)
        return prompt_batch([self._row(parts, ids, room=self.max_tokens - 1) for parts in samples], self.pad_id)

    def write_whole(self, strings: list[str]) -> TextBatch:
        """Rows that are only read, an empty text included: [class] text [separator], without targets."""
        samples: list[list[Part]] = [[Text(string, supervised=False)] for string in strings]
        ids = tokenize(self.tokenizer, samples)
        rows = [self._row(parts, ids, room=self.max_tokens - 2) for parts in samples]
        for row in rows:
            row.extend([self.last_id])
        return replace(training_batch(rows, self.pad_id), targets=None)

    def read(self, token_ids: list[int]) -> str:
        end = token_ids.index(self.last_id) if self.last_id in token_ids else len(token_ids)
        return str(self.tokenizer.decode(token_ids[:end], skip_special_tokens=True)).strip()

    def _row(self, parts: list[Part], ids: dict[str, list[int]], room: int) -> Row:
        row = Row()
        row.extend([self.first_id])
        for part in parts:
            if isinstance(part, Text):
                tokens = ids[part.string]
                row.extend(tokens[:room], supervised=part.supervised)
                row.truncated |= len(tokens) > room
                room = max(0, room - len(tokens))
        return row


def _first_known(tokenizer: PreTrainedTokenizerBase, *names: str) -> int:
    for name in names:
        token = getattr(tokenizer, name)
        if token is not None:
            return int(token)
    raise ValueError(f"The tokenizer {tokenizer.name_or_path!r} has no {' and no '.join(names)}; a text row needs it.")
