"""Sample -> token rows.  A layout is the only place that knows where images, prompts and targets stand in a row."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vlmtrain.batch import TextBatch


@dataclass(frozen=True)
class Hiding:
    """What masked language modelling takes away of a text: about `share` of its tokens, by whole words; `key` decides
    which."""

    share: float
    key: int


@dataclass(frozen=True)
class Text:
    """A stretch of text; `supervised` text is what the model learns to write, `hiding` what it learns to fill in."""

    string: str
    supervised: bool = True
    hiding: Hiding | None = None


@dataclass(frozen=True)
class Visual:
    """A place in reading order where an item stands.

    `images` says which of the record's images are the item: one, or the frames of a video in their order.  `tiles` is
    how many tiles they were cut into; whoever decodes the images fills it in.
    """

    tiles: int = 1
    images: tuple[int, ...] = (0,)


Part = Text | Visual


class NothingToLearn(ValueError):
    """Row number `row` would hold no supervised target: that sample is of no use, the others may be."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(row, reason)
        self.row = row
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class Layout(ABC):
    """Writes parts in reading order into padded token rows, and reads token rows back."""

    tokenizer: Any  # of the rows
    opening: list[int] | tuple[()] = ()  # ids of a soft prompt, before every sample

    @abstractmethod
    def write(self, samples: list[list[Part]], placeholders_per_item: Callable[[int], int]) -> TextBatch:
        """Training rows with targets.  NothingToLearn where a row would hold no supervised target."""

    @abstractmethod
    def write_prompts(self, samples: list[list[Part]], placeholders_per_item: Callable[[int], int]) -> TextBatch:
        """Rows to be continued: no targets, padded on the side that continuing asks for (decoders: the left)."""

    @abstractmethod
    def read(self, token_ids: list[int]) -> str:
        """Generated tokens -> text, up to the end of the answer."""

    def end_answers_with(self, token_id: int) -> None:
        """Let this token end every answer.  ValueError where the end of a row is part of its format."""
        raise ValueError(f"Rows of {type(self).__name__} have an end of their own; leave ends_answers out.")
