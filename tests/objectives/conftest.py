"""A small stage-1 model with its text, and a trainer's step played on it: one batch, or cut into micro-batches."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vlmtrain.batch import IGNORED_TARGET, Batch, TextBatch, VisualBatch
from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.models.joint_encoder import JointEncoder
from vlmtrain.models.qformer_pretraining import QFormerPretraining
from vlmtrain.models.vilt_stream import ViltStream
from vlmtrain.nn.qformer import QFormer
from vlmtrain.objectives.base import Context, Everyone, Objective

sys.path.insert(0, str(Path(__file__).parent))  # makes hidden_texts importable

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]


class TinyEncoder(VisionEncoder):
    """Four patches of a 4 x 4 picture."""

    width, patches_per_tile, image_size = 12, 4, 4

    def __init__(self) -> None:
        super().__init__((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        self.project = nn.Conv2d(3, self.width, 2, 2)

    def encode_tiles(self, pixels: Tensor) -> Tensor:
        return self.project(pixels).flatten(2).transpose(1, 2)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    from transformers import BertTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)}).save_pretrained(folder)
    return str(folder)


def build_model(tokenizer_folder: str, dropout: float = 0.0, frozen_encoder: bool = True) -> QFormerPretraining:
    torch.manual_seed(0)
    qformer = partial(QFormer, 16, num_queries=3, depth=2, num_heads=2, dropout=dropout)
    model = QFormerPretraining(TinyEncoder(), qformer, tokenizer_folder, embedding_width=8)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    model.encoder.requires_grad_(not frozen_encoder)
    return model


@pytest.fixture
def make_model(tokenizer_folder: str) -> Callable[..., QFormerPretraining]:
    return partial(build_model, tokenizer_folder)


def build_joint(tokenizer_folder: str, frozen_encoder: bool = True) -> JointEncoder:
    """ViLT in small."""
    torch.manual_seed(0)
    stream = partial(ViltStream, width=12, depth=2, num_heads=2)
    model = JointEncoder(TinyEncoder(), stream, tokenizer_folder)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    model.encoder.requires_grad_(not frozen_encoder)
    return model


@pytest.fixture
def make_joint(tokenizer_folder: str) -> Callable[..., JointEncoder]:
    return partial(build_joint, tokenizer_folder)


def hide(batch: Batch, seed: int = 5) -> Batch:
    """The same batch with one or two letters of each text hidden."""
    generator = torch.Generator().manual_seed(seed)
    ids, targets = batch.text.input_ids.clone(), torch.full_like(batch.text.input_ids, IGNORED_TARGET)
    for row, length in enumerate(batch.text.attention_mask.sum(1).tolist()):
        for place in 1 + torch.randperm(length - 2, generator=generator)[: 1 + row % 2]:
            targets[row, place], ids[row, place] = ids[row, place], 4
    masked = text_batch(ids, batch.text.attention_mask, batch.text.visual_mask, targets)
    return replace(batch, text=replace(batch.text, masked=masked))


@pytest.fixture
def hide_words() -> Callable[..., Batch]:
    return hide


@dataclass
class Step:
    """What a trainer would see of one step."""

    totals: dict[str, Tensor]
    metrics: dict[str, tuple[float, int]]
    gradients: dict[str, Tensor]
    images_judged: int = 0


def make_batch(size: int, captions: list[str] | None = None, seed: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 6, (size,), generator=generator).tolist()
    rows = [torch.randint(5, len(WORDS), (length,), generator=generator).tolist() for length in lengths]
    if captions is not None:
        rows = [[WORDS.index(letter) for letter in caption] for caption in captions]
    rows = [[2, *row, 3] for row in rows]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.arange(longest) < torch.tensor([len(row) for row in rows]).unsqueeze(1)
    targets = torch.full_like(ids, IGNORED_TARGET)
    targets[:, :-1] = ids[:, 1:].where(mask[:, 1:], IGNORED_TARGET)
    text = text_batch(ids, mask, torch.zeros_like(mask), targets)
    pixels = torch.randint(0, 256, (size, 3, 4, 4), generator=generator, dtype=torch.uint8)
    return Batch(VisualBatch(pixels, [1] * size, [1] * size), text, seed=17)


def text_batch(ids: Tensor, mask: Tensor, blank: Tensor, targets: Tensor) -> TextBatch:
    per_sample = (targets != IGNORED_TARGET).sum(1).tolist()
    placeholders, supervised = int(blank.sum()), sum(per_sample)
    return TextBatch(ids, mask, blank, targets, placeholders, supervised, supervised_per_sample=per_sample)


def cut(batch: Batch, size: int) -> list[Batch]:
    """Micro-batches of `size`, each padded to its own longest row only."""
    pieces = []
    for start in range(0, len(batch), size):
        rows = slice(start, start + size)
        width = int(batch.text.attention_mask[rows].sum(1).max())
        text = cut_text(batch.text, rows, width)
        if batch.text.masked is not None:
            text = replace(text, masked=cut_text(batch.text.masked, rows, width))
        ones = [1] * len(text.input_ids)
        visual = VisualBatch(batch.visual.pixels[rows], ones, ones)
        pieces.append(
            replace(batch, visual=visual, text=text, origins=batch.origins[rows], weights=batch.weights[rows])
        )
    return pieces


def cut_text(text: TextBatch, rows: slice, width: int) -> TextBatch:
    return text_batch(*(x[rows, :width] for x in (text.input_ids, text.attention_mask, text.visual_mask, text.targets)))


@pytest.fixture(name="cut")
def cut_fixture() -> Callable[[Batch, int], list[Batch]]:
    return cut


def play(model: nn.Module, objective: Objective, batch: Batch, size: int | None = None) -> Step:
    """One step: totals and gradients added over micro-batches of `size`, as the contract of the trainer says."""
    model.zero_grad()
    micro_batches = [batch] if size is None or size >= len(batch) else cut(batch, size)
    everyone, surveyed = None, [None] * len(micro_batches)
    if len(micro_batches) > 1:
        found = []
        for index, micro_batch in enumerate(micro_batches):
            torch.manual_seed(index)
            with torch.no_grad():
                surveyed[index] = model.encode(micro_batch.visual)
                found.append(objective.survey(model, Context(surveyed[index], micro_batch)))
        if found[0]:
            embeddings = {name: torch.cat([one[name] for one in found]) for name in found[0]}
            everyone = Everyone(embeddings, replace(batch.text, targets=None), 0)
    step = Step({}, {}, {})
    for index, micro_batch in enumerate(micro_batches):
        torch.manual_seed(index)
        start = sum(map(len, micro_batches[:index]))
        features = surveyed[index] if surveyed[index] is not None else model.encode(micro_batch.visual)
        if surveyed[index] is not None and any(parameter.requires_grad for parameter in model.encoder.parameters()):
            features = model.encode(micro_batch.visual)
        loss = objective(model, Context(features, micro_batch, everyone and replace(everyone, start=start)))
        weights, counts = objective.weights(), objective.counts(batch)
        assert loss.totals.keys() == weights.keys() == counts.keys()
        sum((loss.totals[term] * weights[term] / counts[term] for term in weights), torch.zeros(())).backward()
        for term, total in loss.totals.items():
            step.totals[term] = step.totals.get(term, 0) + total.detach()
        for name, (total, count) in loss.metrics.items():
            before = step.metrics.get(name, (0.0, 0))
            step.metrics[name] = (before[0] + float(total), before[1] + int(count))
    step.gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return step


@pytest.fixture
def batch_of() -> Callable[..., Batch]:
    return make_batch


@pytest.fixture
def step_of() -> Callable[..., Step]:
    return play
