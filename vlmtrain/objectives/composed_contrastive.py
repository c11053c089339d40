"""Contrastive learning without captions: an image against a prompt that holds it as a word (Pic2Word)."""

from typing import cast

from torch import Tensor, nn

from vlmtrain.models.capabilities import Composes
from vlmtrain.objectives.base import Context, Loss
from vlmtrain.objectives.contrastive import Contrastive
from vlmtrain.objectives.similarity import TEXT


class ComposedContrastive(Contrastive):
    """Contrastive between each image and its own prompt; the prompts of other images are the negatives.

    Saito et al. 2023 (arXiv:2302.03084), equation 2.  The form leaves a place for the image in every text.
    """

    needs = Composes

    def survey(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        self._compose(model, context)
        return super().survey(model, context)

    def forward(self, model: nn.Module, context: Context) -> Loss:
        self._compose(model, context)
        return super().forward(model, context)

    def _compose(self, model: nn.Module, context: Context) -> None:
        """From here on, the vectors of this micro-batch's texts are those of the prompts with their images."""
        if self.weight:
            composer = cast(Composes, model)
            context.once(TEXT, lambda: composer.embed_composed(context.features, context.batch.text))
