"""Moving one set of vectors onto another at the least cost (IPOT, Xie et al. 2018, arXiv:1802.04307, algorithm 1)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_cost(x: Tensor, y: Tensor, pairs: Tensor) -> Tensor:
    """1 - cosine of every two vectors: [B, T, D], [B, P, D] -> [B, T, P] in fp32; 0 where `pairs` is False."""
    with torch.autocast(x.device.type, enabled=False):
        cosines = F.normalize(x.float(), dim=-1) @ F.normalize(y.float(), dim=-1).transpose(1, 2)
    return (1 - cosines).masked_fill(~pairs, 0.0)


@torch.no_grad()
def transport_plan(cost: Tensor, x_mask: Tensor, y_mask: Tensor, beta: float = 0.5, num_iterations: int = 50) -> Tensor:
    """How much of each x goes to each y, all x weighing alike and all y: [B, T, P] -> [B, T, P], sums to 1 per sample.

    Proximal point iterations with one Sinkhorn step in each, which come to the exact plan as their number grows,
    whatever `beta`.  Padding (False in the masks [B, T], [B, P]) gets nothing.
    """
    pairs = x_mask.unsqueeze(2) & y_mask.unsqueeze(1)
    num_x, num_y = x_mask.sum(1, keepdim=True), y_mask.sum(1, keepdim=True)  # [B, 1]
    kernel = torch.exp(-cost / beta).masked_fill(~pairs, 0.0)
    plan, of_y = pairs.to(cost.dtype), y_mask / num_y
    for _ in range(num_iterations):
        moved = kernel * plan
        of_x = _inverse(
            num_x * (moved * of_y.unsqueeze(1)).sum(2), x_mask
        )  # no matrix product: autocast would round it
        of_y = _inverse(num_y * (moved * of_x.unsqueeze(2)).sum(1), y_mask)
        plan = of_x.unsqueeze(2) * moved * of_y.unsqueeze(1)
    return plan


def transport_cost(
    x: Tensor, y: Tensor, x_mask: Tensor, y_mask: Tensor, beta: float = 0.5, num_iterations: int = 50
) -> Tensor:
    """Cost of moving each sample's x onto its y: [B].  The plan is taken as given: gradient flows through the costs."""
    cost = cosine_cost(x, y, x_mask.unsqueeze(2) & y_mask.unsqueeze(1))
    return (cost * transport_plan(cost, x_mask, y_mask, beta, num_iterations)).sum(dim=(1, 2))


def _inverse(values: Tensor, mask: Tensor) -> Tensor:
    """1 / values where `mask`, else 0."""
    return torch.where(mask, values, 1.0).reciprocal() * mask
