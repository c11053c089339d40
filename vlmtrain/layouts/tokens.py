"""What layouts share: rows of token ids in the making, and their padding."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch
from transformers import PreTrainedTokenizerBase

from vlmtrain.batch import IGNORED_TARGET, TextBatch
from vlmtrain.layout import Part, Text


@dataclass
class Row:
    """One sample's tokens in reading order."""

    ids: list[int] = field(default_factory=list)
    visual: list[bool] = field(default_factory=list)
    supervised: list[bool] = field(default_factory=list)
    truncated: bool = False

    def extend(self, ids: list[int], visual: bool = False, supervised: bool = False) -> None:
        self.ids += ids
        self.visual += [visual] * len(ids)
        self.supervised += [supervised] * len(ids)

    def num_targets(self) -> int:
        """Tokens to be predicted; the first of a row has nothing before it that could predict it."""
        return sum(self.supervised[1:])


def tokenize(tokenizer: PreTrainedTokenizerBase, samples: Iterable[Iterable[Part]]) -> dict[str, list[int]]:
    """Every text of the batch -> its ids, without special tokens, by one call of the tokenizer."""
    strings = list({part.string: None for parts in samples for part in parts if isinstance(part, Text)})
    encoded = tokenizer(strings, add_special_tokens=False, truncation=False).input_ids if strings else []
    return dict(zip(strings, encoded, strict=True))


def describe(parts: Iterable[Part]) -> str:
    """A sample for an error message."""
    return " + ".join(repr(part.string) if isinstance(part, Text) else "<visual>" for part in parts) or "nothing"


def training_batch(rows: list[Row], pad_id: int) -> TextBatch:
    """Rows padded on the right, with targets shifted once: targets[:, i] is the token at i + 1 where supervised."""
    length = max((len(row.ids) for row in rows), default=0)
    targets = []
    for row in rows:
        shifted = [
            token if supervised else IGNORED_TARGET
            for token, supervised in zip(row.ids[1:], row.supervised[1:], strict=True)
        ]
        targets.append(shifted + [IGNORED_TARGET] * (length - len(shifted)))
    counts = [row.num_targets() for row in rows]
    return replace(
        input_batch(rows, pad_id),
        targets=torch.tensor(targets),
        supervised=sum(counts),
        supervised_per_sample=counts,
    )


def input_batch(rows: list[Row], pad_id: int) -> TextBatch:
    """Rows padded on the right, without targets."""
    length = max((len(row.ids) for row in rows), default=0)
    return TextBatch(
        input_ids=torch.tensor([row.ids + [pad_id] * (length - len(row.ids)) for row in rows]),
        attention_mask=torch.tensor([[True] * len(row.ids) + [False] * (length - len(row.ids)) for row in rows]),
        visual_mask=torch.tensor([row.visual + [False] * (length - len(row.ids)) for row in rows]),
        placeholders=sum(sum(row.visual) for row in rows),
        truncated=sum(row.truncated for row in rows),
    )


def prompt_batch(rows: list[Row], pad_id: int) -> TextBatch:
    """Rows padded on the left, so that all of them are continued from the last position."""
    length = max((len(row.ids) for row in rows), default=0)
    return TextBatch(
        input_ids=torch.tensor([[pad_id] * (length - len(row.ids)) + row.ids for row in rows]),
        attention_mask=torch.tensor([[False] * (length - len(row.ids)) + [True] * len(row.ids) for row in rows]),
        visual_mask=torch.tensor([[False] * (length - len(row.ids)) + row.visual for row in rows]),
        placeholders=sum(sum(row.visual) for row in rows),
        truncated=sum(row.truncated for row in rows),
    )
