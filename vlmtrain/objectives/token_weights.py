"""How much each supervised token counts in a loss: by the length of its sample, and by the source it comes from."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from vlmtrain.batch import Batch


class TokenWeighting(ABC):
    """Weights the supervised tokens of a sample by their number.  Known from structure: no device is asked."""

    @abstractmethod
    def of_each(self, num_tokens: int) -> float:
        """What each token of a sample with `num_tokens` supervised ones, at least one, weighs."""


class EqualTokens(TokenWeighting):
    """Every token counts alike, hence long answers more than short ones."""

    def of_each(self, num_tokens: int) -> float:
        return 1.0


class InverseLength(TokenWeighting):
    """A token of a sample with n of them weighs n ** -power (InternVL 2.5, arXiv 2412.05271, section 3.2).

    Args:
        power: 0.5 is InternVL's square averaging; with 1 every sample counts alike, with 0 every token.
    """

    def __init__(self, power: float = 0.5) -> None:
        if not 0 <= power <= 1:
            raise ValueError(f"power is {power}; give 0 (tokens count alike) to 1 (samples count alike).")
        self.power = power

    def of_each(self, num_tokens: int) -> float:
        return float(num_tokens**-self.power)


def weights_of_samples(batch: Batch, weighting: TokenWeighting) -> list[float]:
    """What each supervised token of each sample weighs: by its length, times the weight of its source."""
    counts = batch.text.supervised_per_sample
    if sum(counts) != batch.text.supervised:
        raise ValueError(
            f"Tokens cannot be weighted by sample: of {batch.text.supervised} targets the layout says only whose "
            f"{sum(counts)} are.  Its TextBatch must list supervised_per_sample."
        )
    weights = batch.weights or [1.0] * len(counts)
    if len(weights) != len(counts):
        raise ValueError(f"The batch has weights of {len(weights)} samples and targets of {len(counts)}.")
    return [weight * weighting.of_each(count) if count else 0.0 for weight, count in zip(weights, counts, strict=True)]


def weights_of_targets(batch: Batch, weighting: TokenWeighting) -> Tensor:
    """[S], in the order of the targets, on their device."""
    each = torch.tensor(weights_of_samples(batch, weighting), dtype=torch.float32)
    spread = each.repeat_interleave(torch.tensor(batch.text.supervised_per_sample))
    return spread.to(batch.text.input_ids.device, non_blocking=True)


def total_weight(batch: Batch, weighting: TokenWeighting) -> float:
    """The sum of `weights_of_targets`, in plain Python."""
    pairs = zip(weights_of_samples(batch, weighting), batch.text.supervised_per_sample, strict=True)
    return sum(weight * count for weight, count in pairs)
