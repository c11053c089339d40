"""The seam between visual tokens and a language model."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager

from torch import Tensor, nn

from vlmtrain.batch import TextBatch, VisualTokens
from vlmtrain.language_models.base import LanguageModel


class Fusion(nn.Module, ABC):
    """Where visual tokens enter a language model.  Owns every parameter that the entrance needs."""

    def install(self, language_model: LanguageModel) -> None:
        """Called once, by the model that owns both.  Most fusions have nothing to install."""

    @abstractmethod
    def placeholders(self, visual_tokens: int) -> int:
        """How many text positions an item of `visual_tokens` visual tokens takes up."""

    @abstractmethod
    def entering(
        self, language_model: LanguageModel, text: TextBatch, visual: VisualTokens
    ) -> AbstractContextManager[Tensor]:
        """A block in which the language model, run on the embeddings [B, T, D] it gives, can see `visual`."""
