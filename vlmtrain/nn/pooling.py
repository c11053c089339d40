"""One vector of a row of states: a class token's, that of the last position, or the mean."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Pooling(nn.Module, ABC):
    """[B, T, W] -> [B, W]"""

    needs_class_token: bool = False

    def __init__(self, width: int | None = None, num_states: int | None = None) -> None:
        """W and T, for those that have weights; whoever puts a model together fills them in."""
        super().__init__()

    @abstractmethod
    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask` [B, T] is True where a position counts; None where all do."""


class ClassToken(Pooling):
    """The first position, as CLIP's image tower and BERT have it."""

    needs_class_token = True

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        return states[:, 0]


class LastPosition(Pooling):
    """The last position that counts: the end token, the one that sees all of a causal row (CLIP, section 2.4)."""

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            return states[:, -1]
        positions = torch.arange(mask.shape[1], device=mask.device)
        last = torch.where(mask, positions, -1).amax(dim=1).clamp(min=0)
        return states[torch.arange(len(states), device=states.device), last]


class Mean(Pooling):
    """Every position counts the same (Zhai et al. 2022, "Scaling vision transformers", section 3.2).

    The loss reaches each patch and each word directly: small towers from random weights begin to learn at once, where
    a class token first has to find out what to look at.
    """

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            return states.mean(dim=1)
        counted = mask.unsqueeze(-1).to(states.dtype)
        return (states * counted).sum(dim=1) / counted.sum(dim=1)
