import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vlmtrain.batch import TargetStates
from vlmtrain.nn.linear_cross_entropy import linear_cross_entropy, linear_cross_entropy_and_hits


def made(rows=11, width=6, vocabulary=9, bias=True):
    torch.manual_seed(0)
    states = torch.randn(rows, width, requires_grad=True)
    return states, torch.randint(vocabulary, (rows,)), nn.Linear(width, vocabulary, bias=bias)


@pytest.mark.parametrize("chunk_rows", [1, 4, 100])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_value_hits_and_gradients_equal_plain_cross_entropy(chunk_rows, label_smoothing, frozen, bias):
    states, targets, head = made(bias=bias)
    head.requires_grad_(not frozen)
    logits = head(states)
    wanted = F.cross_entropy(logits, targets, reduction="sum", label_smoothing=label_smoothing)
    inputs = [states, *(parameter for parameter in head.parameters() if parameter.requires_grad)]
    wanted_gradients = torch.autograd.grad(wanted * 3, inputs)
    total, hits = linear_cross_entropy_and_hits(TargetStates(states, targets, head), chunk_rows, label_smoothing)
    torch.testing.assert_close(total, wanted, atol=1e-5, rtol=1e-6)
    assert hits == (logits.argmax(-1) == targets).sum() and total.dtype == torch.float32
    for got, want in zip(torch.autograd.grad(total * 3, inputs), wanted_gradients, strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("chunk_rows", [1, 4, 100])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("frozen", [True, False])
def test_weights_multiply_each_row_and_its_gradient(chunk_rows, label_smoothing, frozen, autocast):
    states, targets, head = made()
    head.requires_grad_(not frozen)
    weights = torch.rand(len(targets)) + 0.01
    weights[3] = 0.0
    inputs = [states, *(parameter for parameter in head.parameters() if parameter.requires_grad)]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        losses = F.cross_entropy(head(states).float(), targets, reduction="none", label_smoothing=label_smoothing)
        wanted = (losses * weights).sum()
        found = TargetStates(states, targets, head)
        total, hits = linear_cross_entropy_and_hits(found, chunk_rows, label_smoothing, weights)
    torch.testing.assert_close(total, wanted, atol=1e-5, rtol=1e-6)
    assert hits == linear_cross_entropy_and_hits(TargetStates(states, targets, head))[1] or autocast
    tolerance = 2e-2 if autocast else 1e-5
    for got, want in zip(torch.autograd.grad(total, inputs), torch.autograd.grad(wanted, inputs), strict=True):
        torch.testing.assert_close(got, want, atol=tolerance, rtol=0)
    with pytest.raises(ValueError, match="10 weights for 11 targets"):
        linear_cross_entropy_and_hits(found, weights=weights[:10])


def test_a_head_that_does_more_than_a_matmul_is_honoured():
    states, targets, head = made()

    def capped(x):
        return 5 * torch.tanh(head(x) / 5)

    wanted = F.cross_entropy(capped(states), targets, reduction="sum")
    torch.testing.assert_close(linear_cross_entropy(TargetStates(states, targets, capped), chunk_rows=4), wanted)


@pytest.mark.parametrize("frozen", [True, False])
def test_no_supervised_row_gives_a_zero_that_still_reaches_every_parameter(frozen):
    states, targets, head = made()
    head.requires_grad_(not frozen)
    total = linear_cross_entropy(TargetStates(states[:0], targets[:0], head))
    assert total == 0
    total.backward()
    assert (states.grad == 0).all()
    assert frozen or (head.weight.grad == 0).all()


def test_frozen_head_keeps_no_logits_for_backward():
    states, targets, head = made(rows=8, vocabulary=1000)
    head.requires_grad_(False)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        linear_cross_entropy(TargetStates(states, targets, head)).backward()
    assert sum(kept) < 1000


def test_without_gradient_and_in_bf16():
    states, targets, head = made()
    head.requires_grad_(False)
    wanted = F.cross_entropy(head(states), targets, reduction="sum")
    with torch.no_grad():
        torch.testing.assert_close(linear_cross_entropy(TargetStates(states, targets, head)), wanted)
    head.to(torch.bfloat16)
    low = states.detach().to(torch.bfloat16).requires_grad_()
    total = linear_cross_entropy(TargetStates(low, targets, head))
    total.backward()
    assert low.grad.dtype == torch.bfloat16 and abs(total - wanted) < 0.2
