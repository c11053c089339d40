"""Cross-entropy against a target that is partly a class and partly what a teacher would answer (ALBEF, 3.3)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vlmtrain.batch import TargetStates


def soft_cross_entropy(logits: Tensor, pair: Tensor, answers: Tensor, share: float) -> Tensor:
    """[B] cross-entropy of `logits` [B, C] with 1 - share on `pair` [B] and `share` on the softmax of `answers`."""
    hard = F.cross_entropy(logits, pair, reduction="none")
    if share == 0:
        return hard
    soft = F.cross_entropy(logits, answers.detach().float().softmax(1), reduction="none")
    return (1 - share) * hard + share * soft


def soft_linear_cross_entropy_and_hits(
    target_states: TargetStates,
    answers: Tensor,
    share: float,
    weights: Tensor | None = None,
    chunk_rows: int = 4096,
) -> tuple[Tensor, Tensor]:
    """Sum of `soft_cross_entropy` over the S rows of states, and how many have their target as the likeliest token.

    Args:
        target_states: of the student.
        answers: [S, vocabulary], logits of the teacher.
        share: of the teacher in the targets.
        weights: [S], multiply the rows of the sum, not the hits; None: all 1.
        chunk_rows: rows whose logits are held at once; where there are several chunks, backward makes them again.
    """
    states, targets, head = target_states.states, target_states.targets, target_states.head
    if len(answers) != len(targets):
        raise ValueError(f"the teacher answers for {len(answers)} tokens, where {len(targets)} are hidden")
    rows = torch.ones_like(targets, dtype=torch.float32) if weights is None else weights
    starts = range(0, max(1, len(states)), chunk_rows)
    sums = []
    for start in starts:
        some = slice(start, start + chunk_rows)
        given = (head, states[some], targets[some], answers[some], share, rows[some])
        again = len(starts) > 1 and torch.is_grad_enabled()
        sums.append(checkpoint(_chunk_sum, *given, use_reentrant=False) if again else _chunk_sum(*given))
    totals, hits = zip(*sums, strict=True)
    return torch.stack(totals).sum(), torch.stack(hits).sum()


def _chunk_sum(
    head: Any, states: Tensor, targets: Tensor, answers: Tensor, share: float, weights: Tensor
) -> tuple[Tensor, Tensor]:
    logits = head(states).float()
    total = (weights * soft_cross_entropy(logits, targets, answers, share)).sum()  # no matrix product: autocast rounds
    return total, (logits.detach().argmax(-1) == targets).sum().float()
