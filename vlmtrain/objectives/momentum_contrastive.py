"""Contrast with a momentum teacher and a queue of its words (MoCo, He et al. 2020; ALBEF, Li et al. 2021, 3.2-3.3)."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.models.capabilities import EmbedsBoth
from vlmtrain.nn.soft_cross_entropy import soft_cross_entropy
from vlmtrain.objectives.base import Context, Loss
from vlmtrain.objectives.distillation import Distillation
from vlmtrain.objectives.similarity import embeddings
from vlmtrain.objectives.single_term import SingleTerm

TEACHER_VISUAL, TEACHER_TEXT = "teacher_visual_embeddings", "teacher_text_embeddings"  # names in a lesson


class MomentumContrastive(SingleTerm):
    """Each image should find its text among the teacher's texts of global batch and queue, and each text its image.

    The teacher is the moving average that `trainer.ema_decay` keeps, without dropout.  Nothing that is compared with
    has gradient, so that the loss of a sample is its own affair however the global batch is cut.  Targets are the
    pairs, mixed with what the teacher itself would answer: captions of others may be true of an image.

    A step replaces the rows that were replaced longest ago; one that was not applied replaces none.

    Args:
        width: E, of the shared space.
        queue_size: embeddings of earlier steps that are compared with, random ones at first; at least the global batch.
        distillation: share of the teacher's answers in the targets; 0 turns them off.
        ramp_steps: over which that share grows from 0 (ALBEF: one epoch, BLIP: two).
        weight: of the term; 0 removes it and its compute.
    """

    needs = EmbedsBoth
    term = "contrastive"
    comes_first = True  # other objectives find the embeddings made
    images: Tensor  # [queue_size, E]
    texts: Tensor
    position: Tensor  # row that is replaced next

    def __init__(
        self,
        width: int,
        queue_size: int = 65536,
        distillation: float = 0.4,
        ramp_steps: int = 0,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight)
        if queue_size < 1:
            raise ValueError(f"queue_size is {queue_size}; give 1 or more, at least the global batch")
        self.distillation = Distillation(distillation, ramp_steps)
        for name in ("images", "texts"):
            self.register_buffer(name, F.normalize(torch.randn(queue_size, width), dim=-1))
        self.register_buffer("position", torch.zeros(1, dtype=torch.long))

    @property
    def has_teacher(self) -> bool:  # type: ignore[override]
        return bool(self.weight)

    def teach(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        if not self.weight:
            return {}
        images, texts = embeddings(model, context)
        if images.shape[1:] != (1, self.images.shape[1]):
            raise ValueError(
                f"MomentumContrastive has a queue of width {self.images.shape[1]}, but the model gives images of "
                f"{images.shape[1]} vectors of width {images.shape[2]}; it takes one vector per image, and `width` is "
                "the model's embedding_width"
            )
        return {TEACHER_VISUAL: images.squeeze(1).float(), TEACHER_TEXT: texts.float()}

    def keep(self, taught: dict[str, Tensor], step: int) -> None:
        if not self.weight:
            return
        size, of_step = len(self.images), len(taught[TEACHER_TEXT])
        if of_step > size:
            raise ValueError(f"queue_size {size} is smaller than the {of_step} samples of a step; make it larger")
        rows = (torch.arange(of_step, device=self.images.device) + self.position) % size
        self.images.index_copy_(0, rows, taught[TEACHER_VISUAL])
        self.texts.index_copy_(0, rows, taught[TEACHER_TEXT])
        self.position.copy_((self.position + of_step) % size)

    def compute(self, model: nn.Module, context: Context) -> Loss:
        if context.lesson is None:
            raise ValueError("MomentumContrastive compares with a teacher, which only training has; measure retrieval")
        images, texts = embeddings(model, context)
        own = context.lesson.embeddings
        everyone = own if context.everyone is None else context.everyone.embeddings
        start = 0 if context.everyone is None else context.everyone.start
        share, scale = self.distillation.share_at(context.lesson.step), cast(EmbedsBoth, model).similarity_scale()
        total = scale.new_zeros(())
        metrics: dict[str, tuple[Tensor, Tensor | int]] = {}
        with torch.autocast(texts.device.type, enabled=False):  # fp32, whatever the precision
            for name, student, teacher, others in (
                ("image_to_text@1", images.squeeze(1), TEACHER_VISUAL, torch.cat([everyone[TEACHER_TEXT], self.texts])),
                ("text_to_image@1", texts, TEACHER_TEXT, torch.cat([everyone[TEACHER_VISUAL], self.images])),
            ):
                logits = scale.float() * student.float() @ others.T  # [B, G + queue_size]
                answers = scale.detach().float() * own[teacher] @ others.T
                pair = torch.arange(start, start + len(logits), device=logits.device)
                total = total + soft_cross_entropy(logits, pair, answers, share).sum() / 2
                in_batch = logits[:, : len(everyone[TEACHER_TEXT])]
                metrics[name] = ((in_batch.argmax(1) == pair).sum().float(), len(logits))
        return Loss({self.term: total}, metrics)
