"""How much of the gradient each term of the loss brings, which the losses themselves do not tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class GradientShares:
    """The norm of a term's own gradient over the sum of those of all terms, 0 to 1, with the terms' weights.

    Measured in every `every`th step on the first micro-batch of each rank, at the price of one more backward pass for
    each term; the step itself is what it would be without.
    """

    every: int

    def is_due(self, step: int) -> bool:
        """Whether to measure in optimizer step number `step`."""
        return step % self.every == 0

    def measure(self, terms: Mapping[str, Tensor], module: nn.Module) -> dict[str, tuple[Tensor, int]]:
        """Metrics `gradient_share/<term>`; `terms` are scalars with a graph, which stays."""
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        norms = {term: _norm(value, parameters) for term, value in terms.items()}
        together = torch.stack(list(norms.values())).sum().clamp(min=torch.finfo(torch.float32).tiny)
        return {f"gradient_share/{term}": (norm / together, 1) for term, norm in norms.items()}


def _norm(value: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    if not value.requires_grad:  # nothing in this micro-batch that the term counts
        return torch.zeros((), device=value.device)
    gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    return torch.nn.utils.get_total_norm([gradient for gradient in gradients if gradient is not None]).float()
