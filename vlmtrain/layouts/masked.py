"""Rows with words hidden, for masked language modelling (Devlin et al. 2018, section 3.1; whole words: ViLT, 3.3)."""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from vlmtrain.batch import IGNORED_TARGET, TextBatch
from vlmtrain.layout import Part, Text
from vlmtrain.layouts.pair import PairLayout

SHOWN_AS_MASK, SHOWN_AS_ANY = 0.8, 0.1  # of hidden tokens; the rest keeps its place and is to be predicted all the same

Word = list[int]  # the positions of its tokens in a row


class MaskedPairLayout(PairLayout):
    """PairLayout; texts that are to be hidden in part stand in `TextBatch.masked` once more, with words hidden.

    The plain rows stay what they are, so that objectives which read the whole text have it.  What is hidden depends on
    the text and the key of its `Hiding` alone: not on the batch, its padding, the rank or the worker.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> None:
        super().__init__(tokenizer, max_tokens)
        if tokenizer.mask_token_id is None:
            raise ValueError(f"The tokenizer {tokenizer.name_or_path!r} has no mask token; words cannot be hidden.")
        self.mask_id = int(tokenizer.mask_token_id)
        special = set(tokenizer.all_special_ids)
        self.ordinary_ids = [token for token in range(len(tokenizer)) if token not in special]

    def write(self, samples: list[list[Part]], placeholders_per_item: Callable[[int], int]) -> TextBatch:
        text = super().write(samples, placeholders_per_item)
        if not any(isinstance(part, Text) and part.hiding is not None for parts in samples for part in parts):
            return text
        return replace(text, masked=self._hide(text, samples))

    def words(self, strings: list[str]) -> list[list[tuple[str, Word]]]:
        """Of each string the words with their positions in the row that `write` and `write_whole` make of it.

        A word is what the tokenizer takes as one before it cuts it into pieces.  Words cut off by `max_tokens`, also
        in part, are not among them.
        """
        if not strings:
            return []
        encoded = self.tokenizer(strings, add_special_tokens=False, truncation=False)
        return [self._words_of(encoded, number, string) for number, string in enumerate(strings)]

    def hide_words(self, text: TextBatch, words: list[Word]) -> TextBatch:
        """The rows of `text` with one word of each behind the mask token, to be predicted."""
        ids, targets = text.input_ids.clone(), torch.full_like(text.input_ids, IGNORED_TARGET)
        for row, word in enumerate(words):
            targets[row, word] = text.input_ids[row, word]
            ids[row, word] = self.mask_id
        return self._with_targets(text, ids, targets, [len(word) for word in words])

    def _words_of(self, encoded: Any, number: int, string: str) -> list[tuple[str, Word]]:
        found: dict[int, Word] = {}
        for place, word in enumerate(encoded.word_ids(number)):
            found.setdefault(word, []).append(1 + place)
        spans = {word: encoded.word_to_chars(number, word) for word in found}
        return [
            (string[spans[word].start : spans[word].end].strip(), places)
            for word, places in found.items()
            if places[-1] <= self.max_tokens - 2
        ]

    def _hide(self, text: TextBatch, samples: list[list[Part]]) -> TextBatch:
        strings = list({part.string: None for parts in samples for part in parts if isinstance(part, Text)})
        encoded = self.tokenizer(strings, add_special_tokens=False, truncation=False)
        known = {string: (encoded.word_ids(number)) for number, string in enumerate(strings)}
        ids, targets = text.input_ids.clone(), torch.full_like(text.input_ids, IGNORED_TARGET)
        counts = [self._hide_in(ids[row], targets[row], parts, known) for row, parts in enumerate(samples)]
        return self._with_targets(text, ids, targets, counts)

    def _hide_in(self, ids: torch.Tensor, targets: torch.Tensor, parts: list[Part], known: dict[str, list[int]]) -> int:
        """Hides words of one row, in place; gives the number of their tokens."""
        start, count = 1, 0
        for part in parts:
            if not isinstance(part, Text):
                continue
            words: dict[int, Word] = {}
            for place, word in enumerate(known[part.string], start):
                if place <= self.max_tokens - 2:
                    words.setdefault(word, []).append(place)
            start += len(known[part.string])
            if part.hiding is None:
                continue
            draws = Random(part.hiding.key)
            for place in choose_words(list(words.values()), part.hiding.share, draws):
                targets[place] = ids[place]
                ids[place] = self._shown(int(ids[place]), draws)
                count += 1
        return count

    def _shown(self, token: int, draws: Random) -> int:
        """What stands in place of a hidden token: mostly the mask, sometimes any word, sometimes itself."""
        drawn, choice = draws.random(), draws.random()
        if drawn < SHOWN_AS_MASK:
            return self.mask_id
        if drawn < SHOWN_AS_MASK + SHOWN_AS_ANY:
            return self.ordinary_ids[int(choice * len(self.ordinary_ids))]
        return token

    @staticmethod
    def _with_targets(text: TextBatch, ids: torch.Tensor, targets: torch.Tensor, counts: list[int]) -> TextBatch:
        return TextBatch(
            input_ids=ids,
            attention_mask=text.attention_mask,
            visual_mask=text.visual_mask,
            targets=targets,
            supervised=sum(counts),
            supervised_per_sample=counts,
        )


def choose_words(words: list[Word], share: float, draws: Random) -> Word:
    """Positions of whole words drawn at random until `share` of all tokens is reached, and of one at least.

    A word that would exceed the share is passed over for a shorter one, as Devlin's data preparation does.
    """
    wanted = max(1, round(share * sum(map(len, words))))
    chosen: Word = []
    for word in sorted(words, key=lambda _: draws.random()):
        if not chosen or len(chosen) + len(word) <= wanted:
            chosen += word
    return sorted(chosen)
