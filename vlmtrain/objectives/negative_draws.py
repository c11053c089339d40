"""By what wrong partners are drawn: evenly, by how alike image and text are, by how alike two texts are."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from vlmtrain.batch import TextBatch
from vlmtrain.models.capabilities import EmbedsBoth, MatchesPairs
from vlmtrain.objectives.base import Context
from vlmtrain.objectives.negatives import Affinity, Negatives, draw_negatives, kinds_of
from vlmtrain.objectives.similarity import TEXT, VISUAL, embeddings, named_embeddings, similarity


class NegativeDraw(ABC):
    """Draws for every pair of the global batch a wrong text and a wrong image, alike on all ranks."""

    needs: type = MatchesPairs  # a Protocol of vlmtrain.models.capabilities: what the draw goes by

    def survey(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        """What must be known of the whole global batch; its texts come along with any survey."""
        return {"presence": torch.ones(len(context.batch), device=context.batch.text.input_ids.device)}

    def require(self, model: nn.Module) -> None:
        """ValueError where `model` cannot tell what the draw goes by."""
        if not isinstance(model, self.needs):
            raise ValueError(
                f"Negatives drawn {type(self).__name__} need a model that offers {self.needs.__name__}; "
                f"{type(model).__name__} does not. Give negatives the _target_ "
                "vlmtrain.objectives.negative_draws.Evenly or BySharedWords, or choose another model."
            )

    @abstractmethod
    def affinity(self, model: nn.Module, context: Context, text: TextBatch) -> Affinity:
        """What the draw goes by, for the G rows of `text` and their images; without gradient."""

    def draw(self, model: nn.Module, context: Context, text: TextBatch) -> Negatives:
        """For the G rows of `text`; once per step, whatever the number of micro-batches."""

        def compute() -> Tensor:
            drawn = draw_negatives(self.affinity(model, context, text), kinds_of(text), context.batch.seed)
            return torch.stack([drawn.texts, drawn.images])

        everyone = context.everyone
        return Negatives(*(compute() if everyone is None else everyone.once(f"negatives of {id(self)}", compute)))


@dataclass(frozen=True)
class _Even:
    size: int  # G

    def of_images(self, rows: slice) -> Tensor:
        return torch.zeros(len(range(self.size)[rows]), self.size)

    def of_texts(self, rows: slice) -> Tensor:
        return self.of_images(rows)


class Evenly(NegativeDraw):
    """Any other pair is as likely (ViLT, section 3.2; UNITER; VisualBERT)."""

    def affinity(self, model: nn.Module, context: Context, text: TextBatch) -> Affinity:
        return _Even(len(text.input_ids))


@dataclass(frozen=True)
class _Cosines:
    images: Tensor  # [G, Q, E]
    texts: Tensor  # [G, E]
    scale: Tensor

    def of_images(self, rows: slice) -> Tensor:
        return self.scale * similarity(self.images[rows], self.texts)

    def of_texts(self, rows: slice) -> Tensor:
        return self.scale * similarity(self.images, self.texts[rows]).T


class BySimilarity(NegativeDraw):
    """The likelier, the more the model's own embeddings take them for a pair (ALBEF, section 3.2; BLIP; BLIP-2)."""

    needs = EmbedsBoth

    def survey(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        return named_embeddings(model, context)

    def affinity(self, model: nn.Module, context: Context, text: TextBatch) -> Affinity:
        if context.everyone is not None:
            images, texts = context.everyone.embeddings[VISUAL], context.everyone.embeddings[TEXT]
        else:
            # With gradient, then cut: under no_grad, autocast would keep weights that later passes cannot train.
            images, texts = (each.detach() for each in embeddings(model, context))
        return _Cosines(images, texts, cast(EmbedsBoth, model).similarity_scale().detach())


@dataclass(frozen=True)
class _Alike:
    shares: Tensor  # [G, words] of the words in each text, of unit length
    sharpness: float

    def of_images(self, rows: slice) -> Tensor:
        return self.sharpness * self.shares[rows] @ self.shares.T

    def of_texts(self, rows: slice) -> Tensor:
        return self.of_images(rows)


class BySharedWords(NegativeDraw):
    """The likelier, the more words two texts share: hard negatives for a model that embeds nothing by itself.

    Args:
        sharpness: multiplies the cosine of the two texts' word counts; 0 draws evenly.
    """

    def __init__(self, sharpness: float = 20.0) -> None:
        if sharpness < 0:
            raise ValueError(f"sharpness is {sharpness}; give 0 (evenly) or more, as 20")
        self.sharpness = sharpness

    def affinity(self, model: nn.Module, context: Context, text: TextBatch) -> Affinity:
        mask = text.attention_mask.cpu()
        words, place = torch.unique(text.input_ids.cpu(), return_inverse=True)
        counts = torch.zeros(len(place), len(words)).scatter_add_(1, place, mask.float())
        return _Alike(nn.functional.normalize(counts, dim=-1), self.sharpness)
