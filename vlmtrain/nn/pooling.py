"""One vector of a row of states: a class token's, or the mean."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Pooling(nn.Module, ABC):
    """[B, T, W] -> [B, W]"""

    @abstractmethod
    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask` [B, T] is True where a position counts; None where all do."""


class ClassToken(Pooling):
    """The first position, as CLIP's image tower and BERT have it."""

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        return states[:, 0]


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
