"""What evaluations have in common that let a model write about every record and judge what it wrote."""

from abc import abstractmethod
from typing import Any

from torch import nn

from vlmtrain.evaluation.base import EvaluationResult, EvaluationTools, SampleOutcome, require_capability
from vlmtrain.evaluation.by_split import BySplit
from vlmtrain.evaluation.writing import Writing, Written
from vlmtrain.models.capabilities import Captions


class JudgedTexts(BySplit):
    """Figures of what is written about each split, and the first `num_samples` texts of each for the sample page."""

    def __init__(self, writing: Writing, splits: list[str] | None, num_samples: int) -> None:
        limit, max_new_tokens = writing.limit, writing.max_new_tokens
        if splits == [] or max_new_tokens < 1 or num_samples < 0 or (limit is not None and limit < 1):
            raise ValueError(
                f"{type(self).__name__} wants at least one split or null for all, limit >= 1 or null, "
                "max_new_tokens >= 1 and num_samples >= 0; "
                f"got splits={splits}, limit={limit}, max_new_tokens={max_new_tokens}, num_samples={num_samples}."
            )
        super().__init__(splits, limit)
        self.writing = writing
        self.num_samples = num_samples

    def check_model(self, model: nn.Module) -> None:
        require_capability(type(self).__name__, model, Captions, "Evaluate it by retrieval or held-out loss instead.")

    def measure(self, model: Any, source: Any, tools: EvaluationTools, split: str) -> EvaluationResult:
        written = self.writing.of_split(model, source, tools)
        samples = [self.show(each, split) for each in written[: self.num_samples]]
        return EvaluationResult(self.figures(written) if written else {}, samples)

    @abstractmethod
    def figures(self, written: list[Written]) -> dict[str, float]:
        """Of all texts of a split, of which there is one at least."""

    @abstractmethod
    def show(self, written: Written, split: str) -> SampleOutcome:
        """One text for the sample page."""
