"""Cross-entropy of states through a vocabulary head, with never more than a chunk of logits in memory."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vlmtrain.batch import TargetStates


def linear_cross_entropy(target_states: TargetStates, chunk_rows: int = 4096, label_smoothing: float = 0.0) -> Tensor:
    """Sum over S rows of -log p(target), scalar in fp32, with exact gradient.

    A frozen nn.Linear head gets its gradient to the states in the forward pass and keeps no logits at all.  Any other
    head keeps the logits of one chunk, and makes them again in backward where there are several chunks.
    """
    return linear_cross_entropy_and_hits(target_states, chunk_rows, label_smoothing)[0]


def linear_cross_entropy_and_hits(
    target_states: TargetStates,
    chunk_rows: int = 4096,
    label_smoothing: float = 0.0,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`linear_cross_entropy`, and how many rows have their target as the likeliest token (no gradient).

    `weights` [S] multiply the rows of the sum; the hits stay a plain count.
    """
    states, targets, head = target_states.states, target_states.targets, target_states.head
    if weights is not None and weights.shape != targets.shape:
        raise ValueError(
            f"{len(weights)} weights for {len(targets)} targets: the model gives other targets than asked."
        )
    if len(states) == 0:
        return head(states).float().sum() * 0.0, targets.new_zeros((), dtype=torch.float32)
    if isinstance(head, nn.Linear) and not any(parameter.requires_grad for parameter in head.parameters()):
        return FrozenHeadCrossEntropy.apply(
            states, targets, head.weight, head.bias, chunk_rows, label_smoothing, weights
        )
    rows = [None] * -(-len(states) // chunk_rows) if weights is None else weights.split(chunk_rows)
    chunks = list(zip(states.split(chunk_rows), targets.split(chunk_rows), rows, strict=True))
    sums = [
        checkpoint(_chunk_sum, head, *chunk, label_smoothing, use_reentrant=False)
        if len(chunks) > 1 and torch.is_grad_enabled()
        else _chunk_sum(head, *chunk, label_smoothing)
        for chunk in chunks
    ]
    totals, hits = zip(*sums, strict=True)
    return torch.stack(totals).sum(), torch.stack(hits).sum()


def _chunk_sum(
    head: Any, states: Tensor, targets: Tensor, weights: Tensor | None, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    logits = head(states).float()
    if weights is None:
        total = F.cross_entropy(logits, targets, reduction="sum", label_smoothing=label_smoothing)
    else:
        losses = F.cross_entropy(logits, targets, reduction="none", label_smoothing=label_smoothing)
        total = (weights * losses).sum()  # not a matrix product: autocast would round it
    return total, (logits.detach().argmax(-1) == targets).sum().float()


class FrozenHeadCrossEntropy(torch.autograd.Function):
    """Where the head learns nothing, softmax minus target is all that backward needs: it is multiplied through the
    head at once, [s, vocabulary] x [vocabulary, D], and only [S, D] is kept."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        targets: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        chunk_rows: int,
        smoothing: float,
        weights: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        total = torch.zeros((), device=states.device)
        hits = torch.zeros((), device=states.device)
        gradient = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        for start in range(0, len(states), chunk_rows):
            rows = slice(start, start + chunk_rows)
            logits = F.linear(states[rows], weight, bias).float()
            hits += (logits.argmax(-1) == targets[rows]).sum()
            log_shares = logits.log_softmax(-1)
            of_target = log_shares.gather(1, targets[rows, None])
            if weights is None:
                total -= (1 - smoothing) * of_target.sum() + smoothing * log_shares.mean(-1).sum()
            else:
                each = (1 - smoothing) * of_target.squeeze(1) + smoothing * log_shares.mean(-1)
                total -= (weights[rows] * each).sum()
            if gradient is not None:
                slope = log_shares.exp_().sub_(smoothing / weight.shape[0])
                slope.scatter_add_(1, targets[rows, None], torch.full_like(of_target, smoothing - 1))
                if weights is not None:
                    slope.mul_(weights[rows, None])
                gradient[rows] = (slope.to(weight.dtype) @ weight).to(states.dtype)
        ctx.gradient = gradient
        ctx.mark_non_differentiable(hits)
        return total, hits

    @staticmethod
    def backward(ctx: Any, of_total: Tensor, of_hits: Tensor) -> tuple[Tensor | None, ...]:
        return (of_total * ctx.gradient).to(ctx.gradient.dtype), None, None, None, None, None, None
