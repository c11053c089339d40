"""Finds an image by another image and words that say what shall be different (Pic2Word, section 3.3)."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import TextBatch, VisualBatch
from vlmtrain.evaluation.base import (
    EvaluationResult,
    EvaluationTools,
    RecordLike,
    SampleOutcome,
    evaluating,
    pick_sources,
    require_capability,
)
from vlmtrain.evaluation.contact_sheet import contact_sheet
from vlmtrain.evaluation.retrieval import count_ahead
from vlmtrain.layout import Part, Text
from vlmtrain.layouts.pseudo_words import PLACEHOLDER, parts_of_prompt
from vlmtrain.models.capabilities import Composes

logger = logging.getLogger(__name__)

CANDIDATES = "_candidates"  # ends the name of the split that the queries of another are answered from
COMPOSED = "composed"
IMAGE_ONLY, TEXT_ONLY, ADDED = "image_only_composed", "text_only_composed", "added_composed"
_RANKS = (1, 5, 10)
_SHOWN = 3  # candidates of a sample


@dataclass(frozen=True)
class _Gallery:
    """All candidates of a split."""

    vectors: Tensor  # [C, E]
    labels: list[str]
    images: list[bytes]


class ComposedRetrieval:
    """Recall at 1, 5 and 10 of queries that are an image and a text, among all images of `<split>_candidates`.

    A record of a query says in its fields `query` the text, with * where its image stands; in `words` what it asks for
    beside the image; in `target` the label of the candidates that are right, and in `shown` that of what it shows.  A
    candidate's label is its field `label`, or its key.

    Metrics per split: `composed_r1`, `_r5`, `_r10`, and in the same way what is reached without composing:
    `image_only_*` by the image's own vector, where candidates that show the same as it are left out, since these would
    come first every time; `text_only_*` by the words; `added_*` by the sum of both vectors (the baselines of Saito et
    al. 2023, section 4.1); `chance_composed_r1`, what a guess gets.  Ties count against the right candidate.

    Args:
        prompt: what stands around the query, as in training; its * is the query, or the words.
        splits: of the queries; None: all that have candidates.
        limit: queries per split.
        num_samples: queries per split for the sample page, each with the first candidates.
    """

    def __init__(
        self,
        prompt: str = "a photo of *",
        splits: list[str] | None = None,
        limit: int | None = None,
        num_samples: int = 6,
    ) -> None:
        parts_of_prompt(prompt)
        if splits == [] or num_samples < 0 or (limit is not None and limit < 1):
            raise ValueError(
                f"ComposedRetrieval wants splits or null, num_samples >= 0 and limit >= 1 or null; got "
                f"splits={splits}, num_samples={num_samples}, limit={limit}."
            )
        self.prompt = prompt
        self.splits = splits
        self.limit = limit
        self.num_samples = num_samples

    def check(self, model: nn.Module, sources: Mapping[str, Any]) -> None:
        require_capability("ComposedRetrieval", model, Composes, "Evaluate another stage by it.")
        self._splits(sources)

    def __call__(self, model: nn.Module, sources: Mapping[str, Any], tools: EvaluationTools) -> EvaluationResult:
        self.check(model, sources)
        metrics: dict[str, float] = {}
        samples: list[SampleOutcome] = []
        with evaluating(model, tools):
            for split, (queries, candidates) in self._splits(sources).items():
                figures, outcomes = self._measure(cast(Composes, model), split, queries, candidates, tools)
                metrics |= {f"{split}/{name}": value for name, value in figures.items()}
                samples += outcomes
        return EvaluationResult(metrics, samples)

    def _splits(self, sources: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Split -> its queries and its candidates."""
        named = self.splits
        if named is None:
            named = [split for split in sources if f"{split}{CANDIDATES}" in sources]
        if not named:
            logger.warning("No split of the data has candidates (SPLIT%s): nothing is retrieved.", CANDIDATES)
        found = pick_sources(sources, [each for split in named for each in (split, f"{split}{CANDIDATES}")])
        return {split: (found[split], found[f"{split}{CANDIDATES}"]) for split in named}

    def _measure(
        self, model: Composes, split: str, queries: Any, candidates: Any, tools: EvaluationTools
    ) -> tuple[dict[str, float], list[SampleOutcome]]:
        gallery = _gallery(model, candidates, tools)
        ahead: dict[str, list[Tensor]] = {}
        right: list[Tensor] = []
        samples: list[SampleOutcome] = []
        for records, batch in tools.batches(queries, self.limit, False):
            asked = self._embed(model, records, batch.visual.to(tools.device), tools)
            is_right, is_shown = (_agree(records, field, gallery) for field in ("target", "shown"))
            right.append(is_right)
            for name, vectors in asked.items():
                scores = cosines(vectors, gallery.vectors).cpu()
                if name == IMAGE_ONLY:
                    scores = scores.masked_fill(is_shown & ~is_right, -torch.inf)
                ahead.setdefault(name, []).append(count_ahead(scores, is_right))
            best = find(asked[COMPOSED], gallery.vectors, _SHOWN).tolist()
            samples += [
                _outcome(split, record, gallery, found)
                for record, found in zip(records[: self.num_samples - len(samples)], best, strict=False)
            ]
        if not right:
            logger.warning("The split %r holds no query that can be asked.", split)
            return {}, []
        return _figures(ahead, torch.cat(right)), samples

    def _embed(
        self, model: Composes, records: Sequence[RecordLike], visual: VisualBatch, tools: EvaluationTools
    ) -> dict[str, Tensor]:
        """The vectors of the queries in each way to ask: [Q, E]."""
        features = model.encode(visual)
        images = model.embed_visual(features).squeeze(1)
        words = model.embed_text(self._write(records, "words", model, tools))
        composed = model.embed_composed(features, self._write(records, "query", model, tools))
        return {COMPOSED: composed, IMAGE_ONLY: images, TEXT_ONLY: words, ADDED: images + words}

    def _write(self, records: Sequence[RecordLike], field: str, model: Composes, tools: EvaluationTools) -> TextBatch:
        """The prompts as rows; with a placeholder each where `field` has an *."""
        prompts = [self.prompt.replace(PLACEHOLDER, str(record.extra[field])) for record in records]
        samples: list[list[Part]] = [
            parts_of_prompt(prompt) if field == "query" else [Text(prompt)] for prompt in prompts
        ]
        return tools.layout.write(samples, model.placeholders_per_item).to(tools.device)


def cosines(queries: Tensor, candidates: Tensor) -> Tensor:
    """[Q, E], [C, E] -> [Q, C] in fp32, whatever their lengths."""
    with torch.autocast(queries.device.type, enabled=False):
        return F.normalize(queries.float(), dim=-1) @ F.normalize(candidates.float(), dim=-1).T


def find(queries: Tensor, candidates: Tensor, top: int) -> Tensor:
    """[Q, E], [C, E] -> [Q, top] numbers of the most similar candidates, the best first; of fewer, all."""
    return cosines(queries, candidates).topk(min(top, len(candidates)), dim=1).indices


def _gallery(model: Composes, source: Any, tools: EvaluationTools) -> _Gallery:
    vectors: list[Tensor] = []
    labels: list[str] = []
    images: list[bytes] = []
    for records, batch in tools.batches(source, None, False):
        vectors.append(model.embed_visual(model.encode(batch.visual.to(tools.device))).squeeze(1))
        labels += [str(record.extra.get("label", record.key)) for record in records]
        images += [record.image for record in records]
    return _Gallery(torch.cat(vectors), labels, images)


def _agree(records: Sequence[RecordLike], field: str, gallery: _Gallery) -> Tensor:
    """[Q, C] bool: whether a candidate has the label that the record's `field` names."""
    wanted = [str(record.extra.get(field, "")) for record in records]
    return torch.tensor([[label == each for label in gallery.labels] for each in wanted])


def _figures(ahead: Mapping[str, list[Tensor]], is_right: Tensor) -> dict[str, float]:
    """Recalls of every way to ask; a query whose target is no candidate is never answered."""
    figures = {}
    has_answer = is_right.any(1)
    for name, counts in ahead.items():
        for rank in _RANKS:
            figures[f"{name}_r{rank}"] = ((torch.cat(counts) < rank) & has_answer).double().mean().item()
    queries, candidates = is_right.shape
    chance = is_right.double().mean().item()
    return figures | {
        "chance_composed_r1": chance,
        "num_queries": float(queries),
        "num_candidates": float(candidates),
    }


def _outcome(split: str, record: RecordLike, gallery: _Gallery, found: list[int]) -> SampleOutcome:
    """The image of the query and, behind it, the first candidates."""
    first, target = gallery.labels[found[0]], str(record.extra["target"])
    return SampleOutcome(
        task="composed retrieval",
        split=split,
        key=record.key,
        image=contact_sheet([record.image, *(gallery.images[place] for place in found)]),
        text=first,
        references=[target],
        correct=first == target,
        reason="" if first == target else "another image is more similar",
        prompt=str(record.extra["query"]),
    )
