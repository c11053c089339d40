"""Parity with a reference module: copied weights, fp32, outputs and gradients to 1e-5."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

Named = Callable[[Callable[[nn.Parameter], Tensor]], dict[str, Tensor]]
TOLERANCE = 1e-5


def largest(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).detach().abs().max())


@pytest.fixture
def hold_parity() -> Callable[..., None]:
    """Gives random weights to ours, copies them to theirs, and compares outputs and every gradient.

    `named(of)` lists `of(parameter)` of all our parameters under their names: weights to copy, gradients to compare.
    """

    def hold(
        ours: nn.Module,
        theirs: nn.Module,
        named: Named,
        our_output: Callable[[Tensor], Tensor],
        patches: Tensor,
        their_output: Callable[[Tensor], Tensor],
    ) -> None:
        generator = torch.Generator().manual_seed(7)
        for parameter in ours.parameters():  # zeros and ones would hide a wrong bias or norm
            nn.init.normal_(parameter, std=0.3, generator=generator)
        theirs.load_state_dict(named(lambda parameter: parameter.detach().clone()), strict=True)
        our_patches, their_patches = (patches.clone().requires_grad_() for _ in range(2))
        found, expected = our_output(our_patches), their_output(their_patches)
        assert largest(found, expected) <= TOLERANCE
        direction = torch.randn(expected.shape, generator=generator) / expected.numel() ** 0.5
        (found * direction).sum().backward()
        (expected * direction).sum().backward()
        assert our_patches.grad is not None and their_patches.grad is not None
        differences = {"patches": largest(our_patches.grad, their_patches.grad)}
        for name, gradient in named(lambda parameter: parameter.grad).items():
            expected_gradient = theirs.get_parameter(name).grad
            assert expected_gradient is not None and expected_gradient.abs().max() > 1e-3, f"{name} proves nothing"
            differences[name] = largest(gradient, expected_gradient)
        assert max(differences.values()) <= TOLERANCE, differences

    return hold
