"""Model and objective as one module with one forward, which is what DDP, FSDP, DeepSpeed and compile wrap."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

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

    def teach(self, batch: Batch, step: int) -> Lesson:
        """What the model, given its teacher's weights for as long, says of a micro-batch."""
        self.eval()
        try:
            with torch.no_grad():
                context = Context(self.model.encode(batch.visual), batch)
                embeddings = self.objective.teach(self.model, context)
                answers = self.objective.answer(self.model, context)
        finally:
            self.train()  # frozen parts stay in eval mode
        return Lesson(step, embeddings, answers)
