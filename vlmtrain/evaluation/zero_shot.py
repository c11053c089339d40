"""Classes told by their names alone."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmtrain.evaluation.base import EvaluationTools
from vlmtrain.evaluation.classification import ClassifiedImages, Classifier, Classify
from vlmtrain.layout import Layout, Part, Text, Visual
from vlmtrain.models.capabilities import EmbedsBoth
from vlmtrain.objectives.similarity import similarity


class ZeroShot(Classifier):
    """The cosine of the image with the mean of the vectors of its class's name in several sentences.

    CLIP (Radford et al. 2021, arXiv:2103.00020, sections 3.1.2 and 3.1.4).  Nothing is learned and no example is seen:
    classes are columns of a matrix that texts make.  Of several vectors of an image the best counts, as in retrieval.

    Args:
        templates: sentences with {} for the name; None: those of the data set.
    """

    def __init__(self, templates: Sequence[str] | None = None) -> None:
        wrong = [template for template in templates or [] if template.count("{}") != 1]
        if wrong or (templates is not None and not templates):
            raise ValueError(f"templates must be sentences with one {{}} each for the class; got {wrong or 'none'}.")
        self.templates = templates

    def prepare(self, model: EmbedsBoth, data: ClassifiedImages, tools: EvaluationTools) -> Classify:
        weights = class_weights(model, data.classes, self.templates or data.templates, tools.layout, tools.device)
        return lambda queries: zero_shot_logits(queries, weights)


def class_weights(
    model: EmbedsBoth, classes: Sequence[str], templates: Sequence[str], layout: Layout, device: torch.device
) -> Tensor:
    """[C, E] unit vectors.  One class after the other, so that none depends on which others there are."""
    return torch.stack([_class_weight(model, name, templates, layout, device) for name in classes])


def zero_shot_logits(queries: Tensor, weights: Tensor) -> Tensor:
    """[B, Q, E] vectors of images, [C, E] of classes -> [B, C] cosines."""
    return similarity(queries, weights)


def _class_weight(
    model: EmbedsBoth, name: str, templates: Sequence[str], layout: Layout, device: torch.device
) -> Tensor:
    """[E], the direction of the mean of the sentences' unit vectors."""
    rows: list[list[Part]] = [[Visual(), Text(template.replace("{}", name))] for template in templates]
    text = layout.write(rows, model.placeholders_per_item).to(device)
    return F.normalize(model.embed_text(text).float().mean(dim=0), dim=-1)
