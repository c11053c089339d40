"""Records, a layout and models so small that their right answers are known beforehand.

A record's image is one coloured number n (a pixel), its caption is "n".  The layout writes a caption as its number.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vlmtrain.batch import Batch, TextBatch, VisualBatch, VisualFeatures
from vlmtrain.evaluation.base import EvaluationTools
from vlmtrain.layout import Layout, Part

sys.path.insert(0, str(Path(__file__).parent))  # makes pairs_toy importable


@dataclass(frozen=True)
class ToyRecord:
    key: str
    image: bytes
    captions: Sequence[str]
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def images(self) -> list[bytes]:
        return [self.image]


class ToyLayout(Layout):
    def write(self, samples: list[list[Part]], placeholders_per_item: Callable[[int], int]) -> TextBatch:
        raise NotImplementedError

    def write_prompts(self, samples: list[list[Part]], placeholders_per_item: Callable[[int], int]) -> TextBatch:
        raise NotImplementedError

    def read(self, token_ids: list[int]) -> str:
        return " ".join(str(token) for token in token_ids if token >= 0)


def make_records(numbers: Sequence[int]) -> list[ToyRecord]:
    return [ToyRecord(f"r{place}", bytes([number]), [str(number)]) for place, number in enumerate(numbers)]


def make_batch(records: Sequence[ToyRecord]) -> Batch:
    """Captions become rows of digits, of different lengths, to be padded."""
    pixels = torch.tensor([record.image[0] for record in records], dtype=torch.uint8)
    rows = [[int(digit) + 1 for digit in record.captions[0]] for record in records]
    length = max(len(row) for row in rows)
    input_ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    text = TextBatch(input_ids, input_ids > 0, torch.zeros_like(input_ids, dtype=torch.bool))
    visual = VisualBatch(pixels.view(-1, 1, 1, 1).repeat(1, 3, 1, 1), [1] * len(records), [1] * len(records))
    return Batch(visual, text, sample_ids=[record.key for record in records])


@pytest.fixture
def make_tools() -> Callable[..., EvaluationTools]:
    def make(batch_size: int = 4, objective: Any = None) -> EvaluationTools:
        def batches(
            source: Sequence[ToyRecord], limit: int | None, prompts: bool
        ) -> Iterator[tuple[list[ToyRecord], Batch]]:
            records = list(source[:limit])
            for start in range(0, len(records), batch_size):
                some = records[start : start + batch_size]
                yield some, make_batch(some)

        return EvaluationTools(torch.device("cpu"), batches, ToyLayout(), nullcontext, objective)

    return make


@pytest.fixture
def records_of() -> Callable[[Sequence[int]], list[ToyRecord]]:
    return make_records


class ToyModel(nn.Module):
    """Encodes an image as its number; embeds image and text by tables; writes the number that it sees."""

    def __init__(self, image_table: Tensor, text_table: Tensor) -> None:
        super().__init__()
        self.image_table, self.text_table = nn.Parameter(image_table), nn.Parameter(text_table)
        self.dropout = nn.Dropout(0.5)
        self.is_blind = False
        self.matching: Callable[[int, int], float] = lambda image, text: float(image == text)

    def encode(self, visual: VisualBatch) -> VisualFeatures:
        return VisualFeatures(visual.pixels[:, :1, :1, 0], visual.tiles_per_item, visual.items_per_sample)

    def layout(self) -> Layout:
        return ToyLayout()

    def placeholders_per_item(self, tiles: int) -> int:
        return 0

    def numbers_of_text(self, text: TextBatch) -> Tensor:
        numbers = [
            int("".join(str(token - 1) for token, used in zip(row, mask, strict=True) if used))
            for row, mask in zip(text.input_ids.tolist(), text.attention_mask.tolist(), strict=True)
        ]
        return torch.tensor(numbers)

    def embed_visual(self, visual: VisualFeatures) -> Tensor:
        return self.image_table[visual.patches.flatten().long()]

    def embed_text(self, text: TextBatch) -> Tensor:
        return self.dropout(self.text_table[self.numbers_of_text(text)])

    def similarity_scale(self) -> Tensor:
        return torch.ones(())

    def match(self, visual: VisualFeatures, text: TextBatch, image_of_row: Tensor) -> Tensor:
        images = visual.patches.flatten()[image_of_row].tolist()
        texts = self.numbers_of_text(text).tolist()
        return torch.tensor([self.matching(image, caption) for image, caption in zip(images, texts, strict=True)])

    def write(self, visual: VisualFeatures, text: TextBatch, max_new_tokens: int) -> Tensor:
        numbers = visual.patches.flatten().long()
        if self.is_blind:
            numbers = torch.full_like(numbers, 3)
        return torch.stack([numbers, torch.full_like(numbers, -1)], dim=1)


@pytest.fixture
def make_model() -> Callable[..., ToyModel]:
    def make(image_table: Tensor | None = None, text_table: Tensor | None = None) -> ToyModel:
        plain = torch.eye(256)
        return ToyModel(
            plain.unsqueeze(1) if image_table is None else image_table, plain if text_table is None else text_table
        )

    return make
