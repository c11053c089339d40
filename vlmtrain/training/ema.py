"""An exponential moving average of the trained weights, kept by parameter name."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def copy_whole(parameter: Tensor, whole: Tensor, held: Tensor) -> None:
    """Where every process holds all of every parameter."""
    held.copy_(whole)


class ExponentialMovingAverage:
    """average <- decay * average + (1 - decay) * weight, after every applied step, in fp32."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"ema_decay is {decay}; give a number between 0 and 1, or null")
        self.decay = decay
        self._parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self._shapes = {name: value.shape for name, value in self._parameters.items()}
        self.follow(Tensor.detach)

    def follow(self, held: Callable[[Tensor], Tensor]) -> None:
        """Start from the present weights; of each parameter, average what `held` says that this rank holds of it."""
        self._weights = {name: held(value) for name, value in self._parameters.items()}
        self.averages = {name: value.float().clone() for name, value in self._weights.items()}

    def restore(self, tensors: dict[str, Tensor], put: Callable[[Tensor, Tensor, Tensor], None] = copy_whole) -> None:
        """Take up saved averages by name; what was not saved starts from the present weight.

        `put(parameter, whole, held)` writes what of `whole` this rank holds.
        """
        for name, value in self._parameters.items():
            saved = tensors.get(name)
            if saved is not None and saved.shape == self._shapes[name]:
                put(value, saved, self.averages[name])
            else:
                self.averages[name].copy_(self._weights[name])

    @torch.no_grad()
    def update(self) -> None:
        weights = [value.float() for value in self._weights.values()]
        torch._foreach_lerp_(list(self.averages.values()), weights, 1 - self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A block in which the model has the averaged weights."""
        kept = {name: value.clone() for name, value in self._weights.items()}
        self._load(self.averages)
        try:
            yield
        finally:
            self._load(kept)

    @torch.no_grad()
    def _load(self, tensors: dict[str, Tensor]) -> None:
        for name, value in self._weights.items():
            value.copy_(tensors[name])
