"""Rows of a decoder-only language model: vision, prompt and answer in one sequence."""

from collections.abc import Callable

from transformers import PreTrainedTokenizerBase

from vlmtrain.batch import TextBatch
from vlmtrain.layout import Layout, NothingToLearn, Part, Text, Visual
from vlmtrain.layouts.tokens import Row, describe, prompt_batch, tokenize, training_batch


class CausalLayout(Layout):
    """One sequence per sample in reading order, as BLIP-2 lays it out for OPT (and transformers' Blip2 after it).

    A Visual part leaves its placeholders (the padding id stands there); the beginning-of-sequence token, where the
    tokenizer has one, stands before the first text; every supervised stretch of text ends with `terminator` (None: the
    end-of-sequence token), supervised too, which is what generation stops at.

    Each part is tokenized on its own, so that a prompt has the same tokens in training as in generation: a space
    between two parts must stand in one of them.  Rows are cut after `max_tokens` tokens of text (prompts, answers and
    terminators count; placeholders and the beginning token do not) and counted in `TextBatch.truncated`; a cut answer
    has no terminator, because it does not end there.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int, terminator: str | None = "\n") -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.end_answers_with(_terminator_id(tokenizer, terminator))
        eos_id = tokenizer.eos_token_id
        self.begin_ids = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        self.pad_id = next(
            token for token in (tokenizer.pad_token_id, eos_id, tokenizer.bos_token_id, 0) if token is not None
        )

    def end_answers_with(self, token_id: int) -> None:
        eos_id = self.tokenizer.eos_token_id
        self.terminator_id = token_id
        self.stop_ids = sorted({token_id} | ({eos_id} if eos_id is not None else set()))

    def write(self, samples: list[list[Part]], placeholders_per_item: Callable[[int], int]) -> TextBatch:
        rows = self._rows(samples, placeholders_per_item, terminate=True)
        for number, (row, parts) in enumerate(zip(rows, samples, strict=True)):
            if not any(isinstance(part, Text) and part.supervised and part.string.strip() for part in parts):
                raise NothingToLearn(number, f"Nothing to learn in {describe(parts)}: the caption or answer is empty.")
            if row.num_targets() == 0:
                raise NothingToLearn(
                    number,
                    f"Nothing to learn in {describe(parts)}: its prompt alone fills all {self.max_tokens} tokens."
                    "  Raise max_tokens or shorten the prompt.",
                )
        return training_batch(rows, self.pad_id)

    def write_prompts(self, samples: list[list[Part]], placeholders_per_item: Callable[[int], int]) -> TextBatch:
        return prompt_batch(self._rows(samples, placeholders_per_item, terminate=False), self.pad_id)

    def read(self, token_ids: list[int]) -> str:
        kept = []
        for token in token_ids:
            if token in self.stop_ids:
                break
            kept.append(token)
        return str(self.tokenizer.decode(kept, skip_special_tokens=True)).strip()

    def _rows(self, samples: list[list[Part]], placeholders: Callable[[int], int], terminate: bool) -> list[Row]:
        ids = tokenize(self.tokenizer, samples)
        return [self._row(parts, ids, placeholders, terminate) for parts in samples]

    def _row(
        self, parts: list[Part], ids: dict[str, list[int]], placeholders: Callable[[int], int], terminate: bool
    ) -> Row:
        row, room, begun = Row(), self.max_tokens, False
        row.extend(list(self.opening))
        for index, part in enumerate(parts):
            if isinstance(part, Visual):
                row.extend([self.pad_id] * placeholders(part.tiles), visual=True)
                continue
            if not begun:
                row.extend(self.begin_ids)
                begun = True
            following = parts[index + 1] if index + 1 < len(parts) else None
            goes_on = isinstance(following, Text) and following.supervised
            # in a prompt, the answers of earlier turns end; the last part is what generation continues
            ends = part.supervised and not goes_on and (terminate or following is not None)
            tokens = ids[part.string] + ([self.terminator_id] if ends else [])
            row.extend(tokens[:room], supervised=part.supervised)
            row.truncated |= len(tokens) > room
            room = max(0, room - len(tokens))
        if not begun:
            row.extend(self.begin_ids)
        return row


def _terminator_id(tokenizer: PreTrainedTokenizerBase, terminator: str | None) -> int:
    if terminator is None:
        if tokenizer.eos_token_id is None:
            raise ValueError("The tokenizer has no end-of-sequence token; name a terminator.")
        return int(tokenizer.eos_token_id)
    # asked for behind a word: some tokenizers put a space of their own before a lone string
    before, both = tokenizer(["a", "a" + terminator], add_special_tokens=False).input_ids
    added = both[len(before) :]
    if both[: len(before)] != before or len(added) != 1 or added[0] == tokenizer.unk_token_id:
        raise ValueError(
            f"terminator {terminator!r} must be one token of the tokenizer, it is {added}; "
            "choose another, or null for the end-of-sequence token."
        )
    return int(added[0])
