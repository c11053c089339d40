"""Rows of an encoder-decoder: vision and prompt for the encoder, the answer for the decoder."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from transformers import PreTrainedTokenizerBase

from vlmtrain.batch import IGNORED_TARGET, TextBatch
from vlmtrain.layout import Layout, NothingToLearn, Part, Text, Visual
from vlmtrain.layouts.tokens import Row, describe, input_batch, tokenize


@dataclass
class _Pair:
    """One sample: what the encoder reads, and what the decoder learns to write."""

    row: Row = field(default_factory=Row)
    targets: list[int] = field(default_factory=list)


class Seq2SeqLayout(Layout):
    """Two sequences per sample, as BLIP-2 lays them out for Flan-T5 (and transformers' Blip2 after it).

    The last supervised stretch of text is the decoder's: `TextBatch.targets` [B, L], with L of its own.  Everything
    else is the encoder's, in reading order, vision and the answers of earlier turns among it: of a conversation only
    the last answer is learned, so give a sample per turn where all of them shall be.  An encoder reads both ways:
    what stands behind the last answer is read too.

    Both sequences are framed as the tokenizer frames a text by itself (T5: `</s>` behind it; BART: also `<s>` before
    it, after vision that comes first), so that a row without vision and prompt holds its end token and is not empty.

    Each part is tokenized on its own, so that a prompt has the same tokens in training as in generation: a space
    between two parts must stand in one of them.  Of the encoder's text `max_tokens` tokens are kept and of an answer,
    its end counted, `max_target_tokens`; shortened samples are counted in `TextBatch.truncated`.  The frame of the
    encoder's row does not count; a cut answer has no end token, because it does not end there.  Rows to be continued
    are padded on the right like others, since no answer is appended to them.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, max_tokens: int, max_target_tokens: int | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.max_target_tokens = max_tokens if max_target_tokens is None else max_target_tokens
        if self.max_tokens < 1 or self.max_target_tokens < 1:
            raise ValueError(
                f"max_tokens {max_tokens} and max_target_tokens {max_target_tokens}: give each at least 1."
            )
        self.begin_ids, self.end_ids = _frame(tokenizer)
        self.stop_ids = sorted({self.end_ids[0], tokenizer.eos_token_id})
        self.pad_id = next(token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id) if token is not None)

    def write(self, samples: list[list[Part]], placeholders_per_item: Callable[[int], int]) -> TextBatch:
        ids = tokenize(self.tokenizer, samples)
        pairs = []
        for number, parts in enumerate(samples):
            answer = _last_answer(parts)
            if not any(_has_text(part) for part in parts[answer]):
                raise NothingToLearn(number, f"Nothing to learn in {describe(parts)}: the caption or answer is empty.")
            context = parts[: answer.start] + parts[answer.stop :]
            pairs.append(_Pair(self._row(context, ids, placeholders_per_item)))
            self._add_targets(pairs[-1], parts[answer], ids)
        length = max((len(pair.targets) for pair in pairs), default=0)
        targets = [pair.targets + [IGNORED_TARGET] * (length - len(pair.targets)) for pair in pairs]
        return replace(
            input_batch([pair.row for pair in pairs], self.pad_id),
            targets=torch.tensor(targets),
            supervised=sum(len(pair.targets) for pair in pairs),
            supervised_per_sample=[len(pair.targets) for pair in pairs],
        )

    def write_prompts(self, samples: list[list[Part]], placeholders_per_item: Callable[[int], int]) -> TextBatch:
        ids = tokenize(self.tokenizer, samples)
        return input_batch([self._row(parts, ids, placeholders_per_item) for parts in samples], self.pad_id)

    def read(self, token_ids: list[int]) -> str:
        end = next((place for place, token in enumerate(token_ids) if token in self.stop_ids), len(token_ids))
        return str(self.tokenizer.decode(token_ids[:end], skip_special_tokens=True)).strip()

    def _row(self, parts: list[Part], ids: dict[str, list[int]], placeholders: Callable[[int], int]) -> Row:
        row, room, begun = Row(), self.max_tokens, False
        row.extend(list(self.opening))
        for part in parts:
            if isinstance(part, Visual):
                row.extend([self.pad_id] * placeholders(part.tiles), visual=True)
                continue
            if not begun:
                row.extend(self.begin_ids)
                begun = True
            tokens = ids[part.string]
            row.extend(tokens[:room])
            row.truncated |= len(tokens) > room
            room = max(0, room - len(tokens))
        if not begun:
            row.extend(self.begin_ids)
        row.extend(self.end_ids)
        return row

    def _add_targets(self, pair: _Pair, answer: list[Part], ids: dict[str, list[int]]) -> None:
        tokens = [token for part in answer if isinstance(part, Text) for token in ids[part.string]] + self.end_ids
        pair.row.truncated |= len(tokens) > self.max_target_tokens
        pair.targets = self.begin_ids + tokens[: self.max_target_tokens]


def _last_answer(parts: list[Part]) -> slice:
    """Where the last stretch of supervised text that says something stands; an empty slice if there is none."""
    last = max((place for place, part in enumerate(parts) if _has_text(part)), default=-1)
    first, after = last, last + 1
    while first > 0 and _is_supervised(parts[first - 1]):
        first -= 1
    while after < len(parts) and _is_supervised(parts[after]):
        after += 1
    return slice(max(first, 0), after)


def _has_text(part: Part) -> bool:
    return isinstance(part, Text) and part.supervised and bool(part.string.strip())


def _is_supervised(part: Part) -> bool:
    return isinstance(part, Text) and part.supervised


def _frame(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and behind a text."""
    if tokenizer.eos_token_id is None:
        raise ValueError(f"The tokenizer {tokenizer.name_or_path!r} has no end-of-sequence token; an answer needs one.")
    bare, framed = tokenizer("a", add_special_tokens=False).input_ids, tokenizer("a").input_ids
    before = next(place for place in range(len(framed)) if framed[place : place + len(bare)] == bare)
    return framed[:before], framed[before + len(bare) :] or [int(tokenizer.eos_token_id)]
