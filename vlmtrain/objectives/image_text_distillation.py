"""Learning from a larger model which images and texts belong together (TinyCLIP, Wu et al. 2023, arXiv:2309.12314)."""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.models.capabilities import EmbedsBoth, HasTeacher
from vlmtrain.objectives.base import Context, Everyone, Loss
from vlmtrain.objectives.pair_softmax import Embedded, OwnPairs
from vlmtrain.objectives.similarity import embeddings, named_embeddings, similarity
from vlmtrain.objectives.single_term import SingleTerm

TEACHER_VISUAL, TEACHER_TEXT = "visual_embeddings_of_teacher", "text_embeddings_of_teacher"


class ImageTextDistillation(SingleTerm):
    """Each image should give to all texts of the global batch what the teacher's image gives, and each text to all
    images (section 3.1, affinity mimicking, equations 2 to 4).

    The teacher's space may have another width: only similarities are compared.  Beside `Contrastive` in a mixture it is
    TinyCLIP's loss.

    Args:
        weight: of the term; 0 removes it and its compute.
    """

    needs = HasTeacher
    term = "image_text_distillation"
    comes_first = True

    def survey(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        if not self.weight:
            return {}
        images, texts = self._taught(model, context)
        return named_embeddings(model, context) | {TEACHER_VISUAL: images, TEACHER_TEXT: texts}

    def compute(self, model: nn.Module, context: Context) -> Loss:
        images, texts = embeddings(model, context)
        scale, its_scale = cast(EmbedsBoth, model).similarity_scale(), cast(HasTeacher, model).teacher_scale()
        if context.everyone is not None:
            pairs = OwnPairs(images, texts, scale, context.everyone)
            return Loss({self.term: self._among_everyone(pairs, its_scale, context.everyone)})
        logits = scale * similarity(images, texts)
        answers = its_scale * similarity(*self._taught(model, context))
        of_images = F.cross_entropy(logits, answers.softmax(1), reduction="sum")
        of_texts = F.cross_entropy(logits.T, answers.T.softmax(1), reduction="sum")
        return Loss({self.term: (of_images + of_texts) / 2})

    def _among_everyone(self, pairs: OwnPairs, scale: Tensor, everyone: Everyone) -> Tensor:
        teacher = Embedded("teacher", everyone.embeddings[TEACHER_VISUAL], everyone.embeddings[TEACHER_TEXT], scale)
        rows = similarity(teacher.images[pairs.own], teacher.texts)
        columns = similarity(teacher.images, teacher.texts[pairs.own])
        total, _, _ = pairs.total(teacher.shares(everyone, rows, columns, pairs.own))
        return total

    def _taught(self, model: nn.Module, context: Context) -> tuple[Tensor, Tensor]:
        batch = context.batch
        return context.once(TEACHER_VISUAL, lambda: cast(HasTeacher, model).teach(batch.visual, batch.text))
