"""Masked language modelling with a momentum teacher's answers in the targets (ALBEF, Li et al. 2021, section 3.3)."""

from typing import cast

from torch import Tensor, nn

from vlmtrain.batch import TargetStates
from vlmtrain.models.capabilities import PredictsTokens
from vlmtrain.nn.soft_cross_entropy import soft_linear_cross_entropy_and_hits
from vlmtrain.objectives.base import Context
from vlmtrain.objectives.distillation import Distillation
from vlmtrain.objectives.masked_language_modeling import MaskedLanguageModeling, masked_states

ANSWERS = "teacher_words"  # name in a lesson


class MomentumMaskedLanguageModeling(MaskedLanguageModeling):
    """The target of a hidden word is the word, mixed with what the teacher would put there: others may fit as well.

    The teacher is the moving average that `trainer.ema_decay` keeps, without dropout, and it reads the same words
    hidden.  Its logits of the hidden words are held from the start of a step on, for all micro-batches of this rank.

    Args:
        weight: of the term; 0 removes it and its compute.
        distillation: share of the teacher's answers in the targets; 0 turns them off, and the teacher with them.
        ramp_steps: over which that share grows from 0 (ALBEF: one epoch).
    """

    def __init__(self, weight: float = 1.0, distillation: float = 0.4, ramp_steps: int = 0) -> None:
        super().__init__(weight)
        self.distillation = Distillation(distillation, ramp_steps)

    @property
    def has_teacher(self) -> bool:  # type: ignore[override]
        return bool(self.weight and self.distillation.share)

    def answer(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        if not self.has_teacher:
            return {}
        states = masked_states(cast(PredictsTokens, model), context)
        return {ANSWERS: states.head(states.states)}

    def cross_entropy(self, context: Context, states: TargetStates, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        if not self.has_teacher:
            return super().cross_entropy(context, states, weights)
        if context.lesson is None:
            raise ValueError(
                "MomentumMaskedLanguageModeling compares with a teacher, which only training has; measure MaskedWords"
            )
        share = self.distillation.share_at(context.lesson.step)
        return soft_linear_cross_entropy_and_hits(states, context.lesson.answers[ANSWERS], share, weights)
