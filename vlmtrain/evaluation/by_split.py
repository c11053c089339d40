"""What evaluations have in common that measure one split after the other."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import nn

from vlmtrain.evaluation.base import EvaluationResult, EvaluationTools, SampleOutcome, evaluating, pick_sources

logger = logging.getLogger(__name__)


class BySplit(ABC):
    """Figures of every split, named after it; a split in which nothing can be measured is left out, with a warning."""

    nothing: str  # the warning, with %r for the split

    def __init__(self, splits: list[str] | None, limit: int | None) -> None:
        if splits == [] or (limit is not None and limit < 1):
            raise ValueError(
                f"{type(self).__name__} wants splits or null, and limit >= 1 or null; got {splits}, {limit}."
            )
        self.splits = splits
        self.limit = limit

    def check(self, model: nn.Module, sources: Mapping[str, Any]) -> None:
        """ValueError where the model cannot be measured so, or the data lacks a split."""
        self.check_model(model)
        pick_sources(sources, self.splits)

    @abstractmethod
    def check_model(self, model: nn.Module) -> None:
        """ValueError where the model cannot be measured so."""

    @abstractmethod
    def measure(self, model: Any, source: Any, tools: EvaluationTools, split: str) -> EvaluationResult:
        """Figures, not yet named after the split, and samples; no figures where there is nothing to measure."""

    def __call__(self, model: nn.Module, sources: Mapping[str, Any], tools: EvaluationTools) -> EvaluationResult:
        self.check(model, sources)
        metrics: dict[str, float] = {}
        samples: list[SampleOutcome] = []
        with evaluating(model, tools):
            for split, source in pick_sources(sources, self.splits).items():
                found = self.measure(model, source, tools, split)
                if not found.metrics:
                    logger.warning(self.nothing, split)
                metrics |= {f"{split}/{name}": value for name, value in found.metrics.items()}
                samples += found.samples
        return EvaluationResult(metrics, samples)
