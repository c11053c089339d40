"""Hides one word of a caption after another and lets the model fill it in: from the image, or from the text alone?"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from vlmtrain.batch import VisualFeatures
from vlmtrain.evaluation.base import EvaluationResult, EvaluationTools, RecordLike, require_capability
from vlmtrain.evaluation.by_split import BySplit
from vlmtrain.layouts.masked import MaskedPairLayout, Word
from vlmtrain.models.capabilities import PredictsTokens

_ROWS_AT_ONCE = 256

AsksFor = Callable[[str], tuple[str, list[str]] | None]
"""A word -> its kind and all words that are as right in its place; None where it is not to be hidden."""


@dataclass(frozen=True)
class _Hidden:
    """One word of one caption, behind the mask token."""

    image: int  # in its batch
    caption: str
    place: Word
    kind: str
    right: list[str]


@dataclass(frozen=True)
class _Filled:
    """Whether the model found it, with the image and with another record's; and what is right."""

    kind: str
    word: str
    is_right: bool
    is_right_without: bool | None


class MaskedWords(BySplit):
    """Accuracy on each word of the first caption that `asks_for` wants hidden, one at a time, the others in sight.

    Metrics per split: `masked_word_accuracy`, and per kind `<kind>/masked_word_accuracy`; with two yardsticks of the
    same shape: `control_*`, with the image of the record before in the batch, and `majority_*`, what the commonest
    answer of the kind would get.

    Args:
        asks_for: says which words are hidden and what else is right; for scenes vlmtrain.data.scenes.visual_words.
        splits: None: all that the data has.
        limit: records per split.
    """

    nothing = "No caption of the split %r holds a word to hide."

    def __init__(self, asks_for: AsksFor, splits: list[str] | None = None, limit: int | None = None) -> None:
        super().__init__(splits, limit)
        self.asks_for = asks_for

    def check_model(self, model: nn.Module) -> None:
        require_capability("MaskedWords", model, PredictsTokens, "Evaluate another stage by it.")
        layout = cast(PredictsTokens, model).layout()
        if not isinstance(layout, MaskedPairLayout):
            raise ValueError(f"MaskedWords hides words by a MaskedPairLayout; this model's is {type(layout).__name__}.")

    def measure(self, model: PredictsTokens, source: Any, tools: EvaluationTools, split: str) -> EvaluationResult:
        filled = list(self._fill_in(model, source, tools))
        return EvaluationResult(_measure(filled) if filled else {})

    def _fill_in(self, model: PredictsTokens, source: Any, tools: EvaluationTools) -> Iterator[_Filled]:
        layout = cast(MaskedPairLayout, tools.layout)  # the model's, which `check` has seen
        for records, batch in tools.batches(source, self.limit, False):
            features = model.encode(batch.visual.to(tools.device))
            hidden = self._choose(records, layout)
            for start in range(0, len(hidden), _ROWS_AT_ONCE):
                some = hidden[start : start + _ROWS_AT_ONCE]
                own = torch.tensor([each.image for each in some], device=tools.device)
                told = _predict(model, features, layout, some, own)
                other: Sequence[str | None] = [None] * len(some)
                if len(records) > 1:
                    other = _predict(model, features, layout, some, (own - 1) % len(records))
                for each, said, said_without in zip(some, told, other, strict=True):
                    without = None if said_without is None else said_without in each.right
                    yield _Filled(each.kind, each.right[0], said in each.right, without)

    def _choose(self, records: Sequence[RecordLike], layout: MaskedPairLayout) -> list[_Hidden]:
        captions = [record.captions[0].strip() for record in records]
        return [
            _Hidden(image, caption, place, *asked)
            for image, (caption, words) in enumerate(zip(captions, layout.words(captions), strict=True))
            for word, place in words
            if (asked := self.asks_for(word)) is not None
        ]


def _predict(
    model: PredictsTokens, features: VisualFeatures, layout: MaskedPairLayout, hidden: list[_Hidden], images: Tensor
) -> list[str]:
    """The likeliest word in every place."""
    whole = layout.write_whole([each.caption for each in hidden])
    text = layout.hide_words(whole, [each.place for each in hidden]).to(images.device)
    states = model.hidden_states(features, text, images)
    tokens = states.head(states.states).argmax(-1).split([len(each.place) for each in hidden])
    return [layout.read(word.tolist()) for word in tokens]


def _measure(filled: list[_Filled]) -> dict[str, float]:
    """All figures of a split, over all kinds and per kind."""
    by_kind: dict[str, list[_Filled]] = defaultdict(list)
    for each in filled:
        by_kind[each.kind].append(each)
    metrics = _shares(filled)
    for kind, members in sorted(by_kind.items()):
        metrics |= {f"{kind}/{name}": value for name, value in _shares(members).items()}
    majority = sum(_commonest(members) for members in by_kind.values()) / len(filled)
    return metrics | {"majority_masked_word_accuracy": majority, "num_masked_words": float(len(filled))}


def _shares(filled: list[_Filled]) -> dict[str, float]:
    shares = {"masked_word_accuracy": sum(each.is_right for each in filled) / len(filled)}
    swapped = [each.is_right_without for each in filled if each.is_right_without is not None]
    if swapped:
        shares["control_masked_word_accuracy"] = sum(swapped) / len(swapped)
    if len({each.kind for each in filled}) == 1:
        shares["majority_masked_word_accuracy"] = _commonest(filled) / len(filled)
    return shares


def _commonest(filled: list[_Filled]) -> int:
    return max(Counter(each.word for each in filled).values())
