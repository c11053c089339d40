"""Images that are numbers, named by numbers, and a model of tables: what the right class is, is known beforehand."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import Batch, TextBatch, VisualBatch, VisualFeatures
from vlmtrain.evaluation.base import EvaluationTools
from vlmtrain.layout import Layout, Part, Text

LETTERS = "abcdefghijklmnopqrstuvwxyz "


@dataclass(frozen=True)
class Shown:
    """`image` holds the number of a direction; `extra["class"]` says what it is."""

    key: str
    image: bytes
    extra: Mapping[str, Any]
    captions: Sequence[str] = ("a",)


@dataclass
class Toy:
    """A data set of (number, class) pairs."""

    classes: Sequence[str]
    train: Sequence[Shown]
    evaluation: Mapping[str, Sequence[Shown]]
    templates: Sequence[str] = ("a {}", "the {}")
    together: int = field(default=1)


def shown(*pairs: tuple[int, str]) -> list[Shown]:
    return [Shown(f"r{place}", bytes([number]), {"class": name}) for place, (number, name) in enumerate(pairs)]


class Spelling(Layout):
    """A letter is a token; 0 is padding."""

    def write(self, samples: list[list[Part]], placeholders_per_item: Callable[[int], int]) -> TextBatch:
        texts = ["".join(part.string for part in parts if isinstance(part, Text)) for parts in samples]
        rows = [[LETTERS.index(letter) + 1 for letter in text] for text in texts]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        return TextBatch(ids, ids > 0, torch.zeros_like(ids, dtype=torch.bool))

    def write_prompts(self, samples: list[list[Part]], placeholders_per_item: Callable[[int], int]) -> TextBatch:
        raise NotImplementedError

    def read(self, token_ids: list[int]) -> str:
        raise NotImplementedError


def tools_of(batch_size: int = 3) -> EvaluationTools:
    def batches(source: Sequence[Shown], limit: int | None, prompts: bool) -> Iterator[tuple[list[Shown], Batch]]:
        records = list(source[:limit])
        for start in range(0, len(records), batch_size):
            some = records[start : start + batch_size]
            pixels = torch.tensor([record.image[0] for record in some], dtype=torch.uint8).view(-1, 1, 1, 1)
            text = Spelling().write([[Text(record.captions[0])] for record in some], lambda tiles: 0)
            yield some, Batch(VisualBatch(pixels.repeat(1, 3, 1, 1), [1] * len(some), [1] * len(some)), text)

    return EvaluationTools(torch.device("cpu"), batches, Spelling(), nullcontext)


class TwoTables(nn.Module):
    """An image is row n of a table [numbers, Q, E]; a text the mean of its letters' rows, with dropout in training."""

    def __init__(self, images: Tensor, width: int) -> None:
        super().__init__()
        self.images = nn.Parameter(F.normalize(images, dim=-1))
        self.letters = nn.Parameter(torch.randn(len(LETTERS) + 1, width, generator=torch.Generator().manual_seed(0)))
        self.dropout = nn.Dropout(0.5)

    def layout(self) -> Layout:
        return Spelling()

    def placeholders_per_item(self, tiles: int) -> int:
        return 0

    def encode(self, visual: VisualBatch) -> VisualFeatures:
        return VisualFeatures(visual.pixels[:, :1, :1, 0], visual.tiles_per_item, visual.items_per_sample)

    def embed_visual(self, visual: VisualFeatures) -> Tensor:
        return self.dropout(self.images[visual.patches.flatten().long()])

    def embed_text(self, text: TextBatch) -> Tensor:
        mask = text.attention_mask.unsqueeze(-1)
        return F.normalize((self.dropout(self.letters[text.input_ids]) * mask).sum(1), dim=-1)

    def similarity_scale(self) -> Tensor:
        return torch.ones(())
