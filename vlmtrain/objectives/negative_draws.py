"""By what wrong partners are drawn: evenly, by how alike image and text are, by how alike two texts are."""

from abc import ABC, abstractmethod
from typing import cast

import torch
from torch import Tensor, nn

from vlmtrain.batch import TextBatch
from vlmtrain.models.capabilities import EmbedsBoth, MatchesPairs
from vlmtrain.objectives.base import Context
from vlmtrain.objectives.negatives import Negatives, draw_negatives, same_text
from vlmtrain.objectives.similarity import embeddings, named_embeddings, similarity, similarity_of_everyone


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
    def logits(self, model: nn.Module, context: Context, text: TextBatch) -> Tensor:
        """What the draw goes by, for all images and all texts: [G, G] on the CPU, without gradient."""

    def draw(self, model: nn.Module, context: Context, text: TextBatch) -> Negatives:
        """For the G rows of `text`; once per step, whatever the number of micro-batches."""

        def compute() -> Tensor:
            drawn = draw_negatives(self.logits(model, context, text), same_text(text).cpu(), context.batch.seed)
            return torch.stack([drawn.texts, drawn.images])

        everyone = context.everyone
        return Negatives(*(compute() if everyone is None else everyone.once(f"negatives of {id(self)}", compute)))


class Evenly(NegativeDraw):
    """Any other pair is as likely (ViLT, section 3.2; UNITER; VisualBERT)."""

    def logits(self, model: nn.Module, context: Context, text: TextBatch) -> Tensor:
        return torch.zeros(len(text.input_ids), len(text.input_ids))


class BySimilarity(NegativeDraw):
    """The likelier, the more the model's own embeddings take them for a pair (ALBEF, section 3.2; BLIP; BLIP-2)."""

    needs = EmbedsBoth

    def survey(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        return named_embeddings(model, context)

    def logits(self, model: nn.Module, context: Context, text: TextBatch) -> Tensor:
        if context.everyone is not None:
            cosines = similarity_of_everyone(context.everyone)
        else:
            # With gradient, then cut: under no_grad, autocast would keep weights that later passes cannot train.
            cosines = similarity(*embeddings(model, context)).detach()
        return (cast(EmbedsBoth, model).similarity_scale().detach() * cosines).cpu()


class BySharedWords(NegativeDraw):
    """The likelier, the more words two texts share: hard negatives for a model that embeds nothing by itself.

    Args:
        sharpness: multiplies the cosine of the two texts' word counts; 0 draws evenly.
    """

    def __init__(self, sharpness: float = 20.0) -> None:
        if sharpness < 0:
            raise ValueError(f"sharpness is {sharpness}; give 0 (evenly) or more, as 20")
        self.sharpness = sharpness

    def logits(self, model: nn.Module, context: Context, text: TextBatch) -> Tensor:
        mask = text.attention_mask.cpu()
        words, place = torch.unique(text.input_ids.cpu(), return_inverse=True)
        counts = torch.zeros(len(place), len(words)).scatter_add_(1, place, mask.float())
        shares = nn.functional.normalize(counts, dim=-1)
        return self.sharpness * shares @ shares.T
