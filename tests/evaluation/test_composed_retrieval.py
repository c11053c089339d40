"""T32: an image and words find another image; against the image alone, the words alone and both added."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vlmtrain.batch import Batch, TextBatch, VisualBatch, VisualFeatures
from vlmtrain.evaluation.base import EvaluationTools
from vlmtrain.evaluation.composed_retrieval import ComposedRetrieval, cosines, find
from vlmtrain.layout import Layout, Part, Text, Visual

SHAPES, EXTRAS = "abc", "xyz"


@dataclass(frozen=True)
class Picture:
    """`image` is the number of a shape, and behind it that of something more, if there is something more."""

    key: str
    image: bytes
    extra: dict[str, Any] = field(default_factory=dict)
    captions: Sequence[str] = ()

    @property
    def images(self) -> list[bytes]:
        return [self.image]


def picture(label: str, **extra: str) -> Picture:
    shape, more = SHAPES.index(label[0]), EXTRAS.index(label[1]) + 1 if len(label) > 1 else 0
    return Picture(f"{label} {extra}", bytes([shape, more]), {"label": label, **extra})


def query(shown: str, more: str) -> Picture:
    return picture(shown, query=f"* with {more}", words=more, target=shown + more, shown=shown)


class Letters(Layout):
    """The number of a letter of EXTRAS, and whether there is an image."""

    def write(self, samples: list[list[Part]], placeholders_per_item: Callable[[int], int]) -> TextBatch:
        texts = ["".join(part.string for part in parts if isinstance(part, Text)) for parts in samples]
        ids = torch.tensor([[EXTRAS.index(text[-1])] for text in texts])
        marked = torch.tensor([[any(isinstance(part, Visual) for part in parts)] for parts in samples])
        self.written = texts
        return TextBatch(ids, torch.ones_like(marked), marked, placeholders=int(marked.sum()))

    write_prompts = write

    def read(self, token_ids: list[int]) -> str:
        raise NotImplementedError


class Composer(nn.Module):
    """Vectors of three numbers for shapes and three for more; knows how to compose, as far as `skill` goes."""

    def __init__(self, skill: float = 1.0, length: float = 1.0) -> None:
        super().__init__()
        self.skill, self.length, self.letters = skill, length, Letters()

    def layout(self) -> Layout:
        return self.letters

    def placeholders_per_item(self, tiles: int) -> int:
        return 1

    def encode(self, visual: VisualBatch) -> VisualFeatures:
        return VisualFeatures(visual.pixels[:, 0, :, 0].long(), visual.tiles_per_item, visual.items_per_sample)

    def embed_visual(self, visual: VisualFeatures) -> Tensor:
        shape, more = visual.patches.unbind(1)
        vectors = torch.cat([torch.eye(3)[shape], torch.cat([torch.zeros(1, 3), torch.eye(3)])[more]], dim=1)
        return self.length * nn.functional.normalize(vectors, dim=-1).unsqueeze(1)

    def embed_text(self, text: TextBatch) -> Tensor:
        assert not text.placeholders
        return torch.cat([torch.zeros(len(text.input_ids), 3), torch.eye(3)[text.input_ids[:, 0]]], dim=1)

    def embed_composed(self, visual: VisualFeatures, text: TextBatch) -> Tensor:
        assert text.placeholders == len(text.input_ids)
        words = torch.cat([torch.zeros(len(text.input_ids), 3), torch.eye(3)[text.input_ids[:, 0]]], dim=1)
        return self.embed_visual(visual)[:, 0] + self.skill * words

    def similarity_scale(self) -> Tensor:
        return torch.ones(())


def tools_of(model: Composer, batch_size: int = 2) -> EvaluationTools:
    def batches(source: list[Picture], limit: int | None, prompts: bool) -> Iterator[tuple[list[Picture], Batch]]:
        records = source[:limit]
        for start in range(0, len(records), batch_size):
            some = records[start : start + batch_size]
            pixels = torch.tensor([list(record.image) for record in some], dtype=torch.uint8)[:, None, :, None]
            ones = [1] * len(some)
            empty = torch.zeros(len(some), 1, dtype=torch.long)
            text = TextBatch(empty, empty.bool(), empty.bool())
            yield some, Batch(VisualBatch(pixels.expand(-1, 3, -1, -1), ones, ones), text)

    return EvaluationTools(torch.device("cpu"), batches, model.layout(), nullcontext)


CANDIDATES = [picture(label) for label in ("a", "ax", "bx", "ay", "b", "by", "cx", "c")]
QUERIES = [query("a", "x"), query("b", "y"), query("c", "x")]


def test_t32_image_and_words_find_what_neither_finds_alone() -> None:
    model = Composer()
    sources = {"test": QUERIES, "test_candidates": CANDIDATES}
    result = ComposedRetrieval("a photo of *")(model, sources, tools_of(model))
    found = result.metrics
    assert found["test/composed_r1"] == 1.0
    assert found["test/image_only_composed_r1"] == pytest.approx(1 / 3)  # cx is the only other picture of a c
    assert found["test/text_only_composed_r1"] == 0.0 and found["test/text_only_composed_r5"] > 0
    assert found["test/chance_composed_r1"] == pytest.approx(1 / 8)
    assert found["test/num_candidates"] == 8 and found["test/num_queries"] == 3
    assert model.letters.written == ["a photo of with x"]
    assert [sample.text for sample in result.samples] == ["ax", "by", "cx"]
    assert all(sample.correct for sample in result.samples) and result.samples[0].prompt == "* with x"


def test_t32_who_cannot_compose_finds_the_image_of_the_query_itself() -> None:
    model = Composer(skill=0.0)
    sources = {"test": QUERIES, "test_candidates": CANDIDATES}
    found = ComposedRetrieval()(model, sources, tools_of(model))
    assert found.metrics["test/composed_r1"] == 0.0
    assert [sample.text for sample in found.samples] == ["a", "b", "c"]
    assert not any(sample.correct for sample in found.samples)


@pytest.mark.parametrize("length", [1e-3, 40.0])
def test_t32_the_length_of_the_candidates_does_not_matter(length: float) -> None:
    candidates = nn.functional.normalize(torch.randn(9, 4), dim=-1)
    lengths = torch.linspace(length, 1, 9).unsqueeze(1)
    queries = torch.randn(5, 4)
    assert torch.equal(find(queries, candidates, 4), find(queries, lengths * candidates, 4))
    torch.testing.assert_close(cosines(queries, candidates), cosines(length * queries, lengths * candidates))


@settings(deadline=None, max_examples=40)
@given(top=st.integers(1, 12), seed=st.integers(0, 50))
def test_t32_the_first_k_by_cosine(top: int, seed: int) -> None:
    torch.manual_seed(seed)
    queries, candidates = torch.randn(3, 4), torch.randn(8, 4)
    found = find(queries, candidates, top)
    assert found.shape == (3, min(top, 8))
    scores = nn.functional.cosine_similarity(queries.unsqueeze(1), candidates.unsqueeze(0), dim=-1)
    assert torch.equal(found, scores.argsort(dim=1, descending=True)[:, :top])


def test_ties_and_missing_targets_are_no_finds() -> None:
    model = Composer()
    twice = [*CANDIDATES, Picture("another", bytes([0, 1]), {"label": "looks like ax and is not"})]
    found = ComposedRetrieval()(model, {"test": QUERIES, "test_candidates": twice}, tools_of(model)).metrics
    assert found["test/composed_r1"] == pytest.approx(2 / 3)
    without = [each for each in CANDIDATES if each.extra["label"] != "ax"]
    found = ComposedRetrieval()(model, {"test": QUERIES, "test_candidates": without}, tools_of(model)).metrics
    assert found["test/composed_r1"] == found["test/composed_r10"] == pytest.approx(2 / 3)


def test_what_cannot_be_measured_is_told_before_training() -> None:
    model = Composer()
    with pytest.raises(ValueError, match=r"no evaluation split 'test_candidates'"):
        ComposedRetrieval(splits=["test"]).check(model, {"test": QUERIES})
    with pytest.raises(ValueError, match="needs a model with"):
        ComposedRetrieval().check(nn.Linear(1, 1), {})
    with pytest.raises(ValueError, match=r"has 0 \*"):
        ComposedRetrieval("a photo")
    with pytest.raises(ValueError, match="limit=0"):
        ComposedRetrieval(limit=0)
    assert ComposedRetrieval()(model, {"test": QUERIES}, tools_of(model)).metrics == {}
