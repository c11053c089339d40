"""Records of letters and a model that reads their images as numbers, for evaluations of hidden words and of pairs."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlmtrain.batch import IGNORED_TARGET, Batch, TargetStates, TextBatch, VisualBatch, VisualFeatures
from vlmtrain.evaluation.base import EvaluationTools
from vlmtrain.language_models.tokenizers import load_tokenizer
from vlmtrain.layout import Text
from vlmtrain.layouts.masked import MaskedPairLayout

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "red", "blue", "green", "cir", "##cle", "ring", "a"]
COLOURS = ["red", "blue", "green"]


@dataclass(frozen=True)
class Pair:
    """`image` holds the number of the colour that the caption names."""

    key: str
    image: bytes
    captions: Sequence[str]
    extra: dict[str, Any] = field(default_factory=dict)


def pairs_of(colours: Sequence[str], shapes: Sequence[str] = ("circle",)) -> list[Pair]:
    return [
        Pair(f"p{place}", bytes([COLOURS.index(colour)]), [f"the {colour} {shapes[place % len(shapes)]}"])
        for place, colour in enumerate(colours)
    ]


def make_layout(folder: Path) -> MaskedPairLayout:
    from transformers import BertTokenizerFast

    BertTokenizerFast(vocab={word: index for index, word in enumerate(WORDS)}).save_pretrained(folder)
    return MaskedPairLayout(load_tokenizer(str(folder)), 16)


def tools_of(layout: Any, batch_size: int = 4) -> EvaluationTools:
    def batches(source: Sequence[Pair], limit: int | None, prompts: bool) -> Iterator[tuple[list[Pair], Batch]]:
        records = list(source[:limit])
        for start in range(0, len(records), batch_size):
            some = records[start : start + batch_size]
            text = layout.write([[Text(record.captions[0])] for record in some], lambda tiles: 0)
            pixels = torch.tensor([record.image[0] for record in some], dtype=torch.uint8).view(-1, 1, 1, 1)
            yield some, Batch(VisualBatch(pixels.repeat(1, 3, 1, 1), [1] * len(some), [1] * len(some)), text)

    return EvaluationTools(torch.device("cpu"), batches, layout, nullcontext)


class ColourReader(nn.Module):
    """Fills in the colour that the image shows, any other word by "circle", and says whether colours agree."""

    def __init__(self, layout: Any) -> None:
        super().__init__()
        self.own_layout = layout
        self.calls: list[int] = []

    def layout(self) -> Any:
        return self.own_layout

    def placeholders_per_item(self, tiles: int) -> int:
        return 0

    def encode(self, visual: VisualBatch) -> VisualFeatures:
        return VisualFeatures(visual.pixels[:, :1, :1, 0].float(), visual.tiles_per_item, visual.items_per_sample)

    def hidden_states(self, visual: VisualFeatures, text: TextBatch, image_of_row: Tensor) -> TargetStates:
        self.calls.append(len(text.input_ids))
        row, column = (text.targets != IGNORED_TARGET).nonzero(as_tuple=True)
        colour = visual.patches[image_of_row].flatten()[row].long() + WORDS.index("red")
        targets = text.targets[row, column]
        is_colour = (targets >= WORDS.index("red")) & (targets <= WORDS.index("green"))
        second = text.input_ids.new_full(targets.shape, WORDS.index("cir"))
        second[1:] += ((row[1:] == row[:-1]) & (column[1:] == column[:-1] + 1)).long()
        said = torch.where(is_colour, colour, second)
        return TargetStates(nn.functional.one_hot(said, len(WORDS)).float(), targets, lambda states: states)

    def match(self, visual: VisualFeatures, text: TextBatch, image_of_row: Tensor) -> Tensor:
        colour = visual.patches[image_of_row].flatten().long() + WORDS.index("red")
        return torch.where((text.input_ids == colour.unsqueeze(1)).any(1), 2.0, -1.0)
