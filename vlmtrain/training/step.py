"""Model and objective as one module with one forward, which is what DDP, FSDP, DeepSpeed and compile wrap."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vlmtrain.batch import Batch, VisualFeatures
from vlmtrain.objectives.base import Context, Everyone, Lesson, Loss, Objective


@dataclass(frozen=True)
class Survey:
    """What one micro-batch contributes to Everyone, and its features for the second pass."""

    embeddings: dict[str, Tensor]
    features: VisualFeatures


class TrainingStep(nn.Module):
    """One call computes one micro-batch."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        objective.require(model)
        self.model: Any = model  # what it can do was checked; nn.Module does not tell
        self.objective = objective

    def forward(
        self,
        batch: Batch,
        everyone: Everyone | None = None,
        features: VisualFeatures | None = None,
        lesson: Lesson | None = None,
    ) -> Loss:
        """The loss of `batch`; `features` saves encoding twice after a survey with a frozen encoder."""
        features = self.model.encode(batch.visual) if features is None else features
        return self.objective(self.model, Context(features, batch, everyone, lesson))

    def survey(self, batch: Batch) -> Survey:
        """First of two passes, without gradient, when the global batch is cut into several micro-batches."""
        features = self.model.encode(batch.visual)
        embeddings = self.objective.survey(self.model, Context(features, batch))
        return Survey(embeddings, replace(features))  # a fresh copy: what features remember is of no use with gradient

    def teach(self, batch: Batch, weights: dict[str, Tensor], step: int) -> Lesson:
        """What the model with other `weights`, by parameter name, says of a micro-batch; its own are not touched."""
        named = {f"model.{name}": value for name, value in weights.items()}
        self.eval()
        try:
            with torch.no_grad():
                embeddings, answers = functional_call(_Teacher(self.model, self.objective), named, batch)
        finally:
            self.train()  # frozen parts stay in eval mode
        return Lesson(step, embeddings, answers)


class _Teacher(nn.Module):
    """The forward pass that runs with the teacher's weights."""

    def __init__(self, model: Any, objective: Objective) -> None:
        super().__init__()
        self.model: Any = model
        self.objective = objective

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        context = Context(self.model.encode(batch.visual), batch)
        return self.objective.teach(self.model, context), self.objective.answer(self.model, context)
