"""IPOT against the algorithm written out, and against the exact plan."""

from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vlmtrain.nn.optimal_transport import cosine_cost, transport_cost, transport_plan


def written_out(cost: list[list[float]], beta: float, num_iterations: int) -> list[list[float]]:
    """Algorithm 1 of Xie et al. 2018 with uniform marginals, number by number."""
    num_x, num_y = len(cost), len(cost[0])
    sigma = [1 / num_y] * num_y
    plan = [[1.0] * num_y for _ in range(num_x)]
    kernel = [[2.718281828459045 ** (-each / beta) for each in row] for row in cost]
    for _ in range(num_iterations):
        moved = [[kernel[i][j] * plan[i][j] for j in range(num_y)] for i in range(num_x)]
        delta = [1 / (num_x * sum(moved[i][j] * sigma[j] for j in range(num_y))) for i in range(num_x)]
        sigma = [1 / (num_y * sum(moved[i][j] * delta[i] for i in range(num_x))) for j in range(num_y)]
        plan = [[delta[i] * moved[i][j] * sigma[j] for j in range(num_y)] for i in range(num_x)]
    return plan


def vectors(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def masks(lengths: list[int], width: int) -> Tensor:
    return torch.arange(width) < torch.tensor(lengths).unsqueeze(1)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 6)), min_size=1, max_size=3),
    st.integers(0, 2**31),
    st.sampled_from([0.5, 1.0]),
)
def test_it_is_the_algorithm_whatever_the_padding(sizes, seed, beta):
    x, y = vectors(len(sizes), 6, 4, seed=seed), vectors(len(sizes), 7, 4, seed=seed + 1)
    x_mask, y_mask = masks([size for size, _ in sizes], 6), masks([size for _, size in sizes], 7)
    cost = cosine_cost(x, y, x_mask.unsqueeze(2) & y_mask.unsqueeze(1))
    plan = transport_plan(cost, x_mask, y_mask, beta, num_iterations=12)
    for row, (num_x, num_y) in enumerate(sizes):
        own = 1 - F.cosine_similarity(x[row, :num_x, None], y[row, None, :num_y], dim=-1)
        torch.testing.assert_close(cost[row, :num_x, :num_y], own, atol=1e-5, rtol=0)
        wanted = torch.tensor(written_out(own.tolist(), beta, 12))
        torch.testing.assert_close(plan[row, :num_x, :num_y], wanted, atol=1e-5, rtol=0)
        torch.testing.assert_close(plan[row].sum(), torch.tensor(1.0))
    assert not plan.masked_fill(x_mask.unsqueeze(2) & y_mask.unsqueeze(1), 0).any(), "padding gets nothing"


def test_marginals_are_uniform_and_the_plan_becomes_the_exact_one():
    x, y = vectors(1, 5, 8), vectors(1, 5, 8, seed=1)
    real = masks([5], 5)
    cost = cosine_cost(x, y, real.unsqueeze(2) & real.unsqueeze(1))
    plan = transport_plan(cost, real, real, num_iterations=2000)[0]
    for marginal in (plan.sum(0), plan.sum(1)):
        torch.testing.assert_close(marginal, torch.full((5,), 0.2), atol=1e-4, rtol=0)
    # Of equally many, one to one is best.
    exact = min(cost[0][torch.arange(5), torch.tensor(order)].mean() for order in permutations(range(5)))
    torch.testing.assert_close((plan * cost[0]).sum(), exact, atol=1e-4, rtol=0)
    torch.testing.assert_close(transport_cost(x, y, real, real, num_iterations=2000)[0], exact, atol=1e-4, rtol=0)


def test_gradient_flows_through_the_costs_and_takes_the_plan_as_given():
    x, y = vectors(2, 3, 4).requires_grad_(), vectors(2, 5, 4, seed=1).requires_grad_()
    x_mask, y_mask = masks([3, 2], 3), masks([5, 3], 5)
    transport_cost(x, y, x_mask, y_mask).sum().backward()
    pairs = x_mask.unsqueeze(2) & y_mask.unsqueeze(1)
    plan = transport_plan(cosine_cost(x, y, pairs).detach(), x_mask, y_mask)
    again = x.detach().clone().requires_grad_()
    cosines = F.cosine_similarity(again.unsqueeze(2), y.detach().unsqueeze(1), dim=-1)
    (plan * (1 - cosines)).sum().backward()
    torch.testing.assert_close(x.grad, again.grad, atol=1e-6, rtol=0)
    assert not x.grad[1, 2].any() and not y.grad[1, 3:].any(), "padding has no gradient"
    assert plan.requires_grad is False


@pytest.mark.parametrize("same", [True, False])
def test_what_is_alike_costs_less(same: bool):
    x = vectors(1, 4, 16)
    y = x[:, torch.tensor([2, 0, 3, 1])] if same else vectors(1, 4, 16, seed=9)
    cost = transport_cost(x, y, masks([4], 4), masks([4], 4), num_iterations=400)
    assert (float(cost) < 0.01) == same


@pytest.mark.parametrize("low_format", [torch.bfloat16, torch.float16])
def test_under_autocast_it_computes_in_fp32(low_format):
    x, y = vectors(1, 4, 16), vectors(1, 6, 16, seed=1)
    with torch.autocast("cpu", low_format):
        found = transport_cost(x, y, masks([4], 4), masks([6], 6))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, transport_cost(x, y, masks([4], 4), masks([6], 6)))
