"""Images with a class each: what share of them do classifiers name right, and how much of it is lost under shifts?"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.evaluation.base import (
    EvaluationResult,
    EvaluationTools,
    RecordLike,
    evaluating,
    pick_sources,
    require_capability,
)
from vlmtrain.evaluation.retrieval import count_ahead
from vlmtrain.evaluation.robustness import accuracy_gap, gap_reduction
from vlmtrain.models.capabilities import EmbedsBoth

logger = logging.getLogger(__name__)

CLASS = "class"  # of a record's extra: the name of what it shows


class ClassifiedImages(Protocol):
    """A data set whose records say by `extra["class"]` which of `classes` they show.

    Images of a split `<split>/<shift>` are those of `<split>`, changed.
    """

    @property
    def classes(self) -> Sequence[str]: ...
    @property
    def templates(self) -> Sequence[str]:
        """Sentences about an image with {} for the name of its class."""

    @property
    def train(self) -> Any:
        """Examples to learn the classes from; only few-shot classifiers look at them."""

    @property
    def evaluation(self) -> Mapping[str, Any]: ...


Classify = Callable[[Tensor], Tensor]
"""[B, Q, E] vectors of images -> [B, C], a score for each class."""


class Classifier(ABC):
    """A way to tell classes by the vectors of a model that is not trained for it."""

    def check(self) -> None:  # noqa: B027 - nothing to check, mostly
        """ValueError where it cannot run; asked before training."""

    @abstractmethod
    def prepare(self, model: EmbedsBoth, data: ClassifiedImages, tools: EvaluationTools) -> Classify:
        """What classifies images of `data`."""


class Classification:
    """Share of the images of `data` whose class gets the highest score, by each of the classifiers in `by`.

    Metrics per split and classifier: `<name>_accuracy`, beside `chance_<name>_accuracy`.  Where `data` has shifted
    versions of a split, also `<name>_gap`, what the mean over them falls short of the split itself; and for every other
    classifier than `reference` its `<name>_gap_reduction` (CLIP, Radford et al. 2021, arXiv:2103.00020, section 3.3).

    A wrong class with the same score as the right one counts as before it, and a score that is not a number loses.

    Args:
        data: has classes of its own, which have nothing to do with what the stage is trained on.
        by: classifiers by the names of their figures.
        reference: the classifier whose gap the others are compared with; None: nobody's.
        splits: of `data`; None: all.
        limit: images per split.
    """

    def __init__(
        self,
        data: ClassifiedImages,
        by: dict[str, Classifier],
        reference: str | None = None,
        splits: list[str] | None = None,
        limit: int | None = None,
    ) -> None:
        if not by or splits == [] or (limit is not None and limit < 1):
            raise ValueError(
                f"Classification wants a classifier at least, splits or null, and limit >= 1 or null; got "
                f"{', '.join(by) or 'no classifier'}, {splits}, {limit}."
            )
        if reference is not None and reference not in by:
            raise ValueError(f"reference {reference!r} is none of the classifiers {', '.join(by)}: name one, or null.")
        self.data = data
        self.by = by
        self.reference = reference
        self.splits = splits
        self.limit = limit

    def check(self, model: nn.Module, sources: Mapping[str, Any]) -> None:
        require_capability("Classification", model, EmbedsBoth, "Evaluate another stage by it.")
        pick_sources(self.data.evaluation, self.splits)
        for classifier in self.by.values():
            classifier.check()

    def __call__(self, model: nn.Module, sources: Mapping[str, Any], tools: EvaluationTools) -> EvaluationResult:
        self.check(model, sources)
        embeds = cast(EmbedsBoth, model)
        metrics: dict[str, float] = {}
        with evaluating(model, tools):
            classifiers = {name: each.prepare(embeds, self.data, tools) for name, each in self.by.items()}
            for split, source in pick_sources(self.data.evaluation, self.splits).items():
                parts = list(embed_images(embeds, source, self.data.classes, tools, self.limit))
                if not parts:
                    logger.warning("The split %r holds no images to classify.", split)
                    continue
                queries, labels = (torch.cat(each) for each in zip(*parts, strict=True))
                for name, classify in classifiers.items():
                    metrics[f"{split}/{name}_accuracy"] = accuracy(classify(queries), labels)
                    metrics[f"{split}/chance_{name}_accuracy"] = 1 / len(self.data.classes)
                metrics[f"{split}/num_images"] = float(len(labels))
        return EvaluationResult(metrics | self._gaps(metrics))

    def _gaps(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """What shifts take away, for every split that there are shifted versions of."""
        found: dict[str, float] = {}
        for base in self.data.evaluation:
            gaps = {name: gap for name in self.by if (gap := _gap(metrics, base, f"{name}_accuracy")) is not None}
            found |= {f"{base}/{name}_gap": gap for name, gap in gaps.items()}
            for name, gap in gaps.items():
                if self.reference in gaps and name != self.reference:
                    reduction = gap_reduction(gap, gaps[self.reference])
                    found |= {} if reduction is None else {f"{base}/{name}_gap_reduction": reduction}
        return found


def _gap(metrics: Mapping[str, float], base: str, what: str) -> float | None:
    """None where the split `base` or any shifted version of it was not measured."""

    def belongs(name: str) -> bool:
        split, _, figure = name.rpartition("/")
        return split.rpartition("/")[0] == base and figure == what

    shifted = [value for name, value in metrics.items() if belongs(name)]
    own = metrics.get(f"{base}/{what}")
    return accuracy_gap(own, shifted) if own is not None and shifted else None


def embed_images(
    model: EmbedsBoth, source: Any, classes: Sequence[str], tools: EvaluationTools, limit: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """[B, Q, E] unit vectors of the images and [B] numbers of their classes, batch by batch."""
    numbers = {name: number for number, name in enumerate(classes)}
    for records, batch in tools.batches(source, limit, False):
        vectors = model.embed_visual(model.encode(batch.visual.to(tools.device))).float()
        labels = [numbers[_class_of(record, classes)] for record in records]
        yield vectors, torch.tensor(labels, device=vectors.device)


def _class_of(record: RecordLike, classes: Sequence[str]) -> str:
    name = str(record.extra.get(CLASS))
    if name not in classes:
        raise ValueError(
            f"Record {record.key!r} is of class {name!r}, which is none of the {len(classes)} classes of its data "
            f'set. Give every record extra["{CLASS}"], spelled as in `classes`.'
        )
    return name


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """[B, C] scores, [B] numbers of the right classes -> the share that is right."""
    is_right = F.one_hot(labels, logits.shape[1]).bool()
    return (count_ahead(logits, is_right) == 0).double().mean().item()
