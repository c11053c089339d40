"""Finds the caption of an image among others, and the image of a caption."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from vlmtrain.batch import Batch, TextBatch, VisualFeatures
from vlmtrain.evaluation.base import (
    EvaluationResult,
    EvaluationTools,
    RecordLike,
    SampleOutcome,
    evaluating,
    pick_sources,
    require_capability,
)
from vlmtrain.evaluation.joining import join_batches
from vlmtrain.models.capabilities import EmbedsBoth, MatchesPairs
from vlmtrain.objectives.similarity import similarity
from vlmtrain.selection import select_rows, select_samples

logger = logging.getLogger(__name__)

_RANKS = (1, 5, 10)
_PAIRS_AT_ONCE = 128


@dataclass(frozen=True)
class _Group:
    """Records that are each other's candidates, and their batch (images and caption rows)."""

    records: list[RecordLike]
    batch: Batch


class Retrieval:
    """Recall at 1, 5 and 10, image to text and text to image, among `num_candidates` records at a time.

    Consecutive records of the split form groups of `num_candidates`; every image is a query against all captions of
    its group and the other way round, and the recalls are averaged over the groups.  Records left over after the last
    full group are not used.  Similarity is the contrastive one (BLIP-2, section 3.2: the best query of the image
    counts).  With `rerank` = k, the k most similar candidates are put in the order of the matching head (section 4.3
    of the paper, k = 128 there) and reported as `..._reranked` beside the plain figures.

    `split` None means every split of the data.

    Rules that make the figure honest: a candidate whose caption has the very same tokens counts as right too, as
    nobody could tell it apart; a wrong candidate with the same score as the right one counts as before it, and a score
    that is not a number loses, so that a constant or broken model gets nothing.
    """

    def __init__(
        self,
        split: str | None = None,
        num_candidates: int = 100,
        rerank: int = 0,
        limit: int | None = None,
        num_samples: int = 6,
    ) -> None:
        if num_candidates < 2 or rerank < 0 or num_samples < 0 or (limit is not None and limit < 2):
            raise ValueError(
                f"Retrieval wants num_candidates >= 2, rerank >= 0, num_samples >= 0 and limit >= 2 or null; got "
                f"num_candidates={num_candidates}, rerank={rerank}, num_samples={num_samples}, limit={limit}."
            )
        self.splits = None if split is None else [split]
        self.num_candidates = num_candidates
        self.rerank = rerank
        self.limit = limit
        self.num_samples = num_samples

    def check(self, model: nn.Module, sources: Mapping[str, Any]) -> None:
        require_capability("Retrieval", model, EmbedsBoth, "Evaluate another stage by it.")
        if self.rerank:
            require_capability("Retrieval with rerank", model, MatchesPairs, "Set rerank=0.")
        pick_sources(sources, self.splits)

    def __call__(self, model: nn.Module, sources: Mapping[str, Any], tools: EvaluationTools) -> EvaluationResult:
        self.check(model, sources)
        metrics: dict[str, float] = {}
        samples: list[SampleOutcome] = []
        with evaluating(model, tools):
            for split, source in pick_sources(sources, self.splits).items():
                recalls, outcomes = self._measure_split(cast(EmbedsBoth, model), split, source, tools)
                metrics |= {f"{split}/{name}": value for name, value in recalls.items()}
                samples += outcomes
        return EvaluationResult(metrics, samples)

    def _measure_split(
        self, model: EmbedsBoth, split: str, source: Any, tools: EvaluationTools
    ) -> tuple[dict[str, float], list[SampleOutcome]]:
        recalls: list[dict[str, float]] = []
        samples: list[SampleOutcome] = []
        size = 0
        for group in self._groups(split, source, tools):
            on_device = _Group(group.records, group.batch.to(tools.device))
            scores, metrics = self._measure(model, on_device)
            recalls.append(metrics)
            size = len(group.records)
            samples += _outcomes(split, on_device, scores)[: self.num_samples - len(samples)]
        if not recalls:
            logger.warning("The split %r holds fewer than 2 records: there is nothing to choose from.", split)
            return {}, []
        mean = {name: sum(each[name] for each in recalls) / len(recalls) for name in recalls[0]}
        return mean | {"num_candidates": float(size), "num_groups": float(len(recalls))}, samples

    def _groups(self, split: str, source: Any, tools: EvaluationTools) -> Iterator[_Group]:
        """Full groups in the order of the split; a smaller single one, with a warning, where there are too few."""
        records: list[RecordLike] = []
        batches: list[Batch] = []
        was_full = False
        for some, batch in tools.batches(source, self.limit, False):
            records, batches = records + list(some), [*batches, batch]
            while len(records) >= self.num_candidates:
                joined, cut, was_full = join_batches(batches), self.num_candidates, True
                yield _Group(records[:cut], select_samples(joined, range(cut)))
                records, batches = records[cut:], [select_samples(joined, range(cut, len(joined)))]
        if not was_full and len(records) >= 2:
            logger.warning(
                "The split %r has only %d records: retrieval is among these and easier than among %d.",
                split, len(records), self.num_candidates,
            )  # fmt: skip
            yield _Group(records, join_batches(batches))

    def _measure(self, model: EmbedsBoth, group: _Group) -> tuple[Tensor, dict[str, float]]:
        features = model.encode(group.batch.visual)
        scores = similarity(model.embed_visual(features), model.embed_text(group.batch.text))
        same = same_rows(group.batch.text.input_ids, group.batch.text.attention_mask)
        metrics = _recalls(scores, scores.T, same, "")
        if self.rerank and isinstance(model, MatchesPairs):
            metrics |= _recalls(*_rerank(model, features, group.batch.text, scores, self.rerank), same, "_reranked")
        return scores, metrics


def same_rows(input_ids: Tensor, mask: Tensor) -> Tensor:
    """[B, T] ids, [B, T] mask -> [B, B] bool: whether two rows hold the very same tokens."""
    ids = input_ids.masked_fill(~mask.bool(), -1)
    return (ids.unsqueeze(0) == ids.unsqueeze(1)).all(dim=-1)


def _outcomes(split: str, group: _Group, scores: Tensor) -> list[SampleOutcome]:
    """The most similar caption of every image."""
    same = same_rows(group.batch.text.input_ids, group.batch.text.attention_mask)
    best = scores.nan_to_num(nan=-torch.inf).argmax(dim=1).tolist()
    return [
        SampleOutcome(
            task="retrieval",
            split=split,
            key=record.key,
            image=record.image,
            text=group.records[best[row]].captions[0],
            references=list(record.captions[:1]),
            correct=bool(same[row, best[row]]),
            reason="" if same[row, best[row]] else "another record's caption is more similar",
        )
        for row, record in enumerate(group.records)
    ]


def count_ahead(scores: Tensor, is_right: Tensor) -> Tensor:
    """[B, C] scores, [B, C] bool -> [B] how many wrong candidates come before the best right one.

    Ties and scores that are not a number count against the right one.
    """
    infinite = {"posinf": torch.inf, "neginf": -torch.inf}
    wrong = scores.nan_to_num(nan=torch.inf, **infinite)
    right = scores.nan_to_num(nan=-torch.inf, **infinite).masked_fill(~is_right, -torch.inf)
    return ((wrong >= right.amax(dim=1, keepdim=True)) & ~is_right).sum(dim=1)


def _recalls(image_to_text: Tensor, text_to_image: Tensor, same: Tensor, suffix: str) -> dict[str, float]:
    """Recall at each rank in both directions of one group."""
    recalls = {}
    for direction, scores in (("image_to_text", image_to_text), ("text_to_image", text_to_image)):
        ahead = count_ahead(scores, same)
        for at in _RANKS:
            recalls[f"{direction}_r{at}{suffix}"] = (ahead < at).double().mean().item()
    return recalls


def _rerank(
    model: MatchesPairs, features: VisualFeatures, text: TextBatch, scores: Tensor, num_best: int
) -> tuple[Tensor, Tensor]:
    """[B, B] similarities -> image to text and text to image scores with each query's best in the head's order."""
    num_best = min(num_best, len(scores))
    best_texts = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, scores.topk(num_best, dim=1).indices, True)
    best_images = torch.zeros_like(scores, dtype=torch.bool).scatter_(0, scores.topk(num_best, dim=0).indices, True)
    pairs = (best_texts | best_images).nonzero()  # [R, 2] image, text
    logits = torch.cat(
        [
            model.match(features, select_rows(text, some[:, 1]), some[:, 0]).float()
            for some in pairs.split(_PAIRS_AT_ONCE)
        ]
    )
    matched = torch.full_like(scores, torch.nan)
    matched[pairs[:, 0], pairs[:, 1]] = logits
    above = scores.amax() + 1 - logits.amin()
    reranked = torch.where(best_texts, matched + above, scores), torch.where(best_images, matched + above, scores)
    return reranked[0], reranked[1].T
