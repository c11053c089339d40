"""An exponential moving average of the trained weights, kept by parameter name."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    """average <- decay * average + (1 - decay) * weight, after every applied step, in fp32."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"ema_decay is {decay}; give a number between 0 and 1, or null")
        self.decay = decay
        self._parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.averages = {name: value.detach().float().clone() for name, value in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        averages = list(self.averages.values())
        weights = [value.detach().float() for value in self._parameters.values()]
        torch._foreach_lerp_(averages, weights, 1 - self.decay)

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take up saved averages by name; what was not saved starts from the present weight."""
        with torch.no_grad():
            for name, value in self._parameters.items():
                saved = tensors.get(name)
                source = saved if saved is not None and saved.shape == value.shape else value.detach()
                self.averages[name].copy_(source)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A block in which the model has the averaged weights."""
        kept = {name: value.detach().clone() for name, value in self._parameters.items()}
        self._load(self.averages)
        try:
            yield
        finally:
            self._load(kept)

    @torch.no_grad()
    def _load(self, tensors: dict[str, Tensor]) -> None:
        for name, value in self._parameters.items():
            value.copy_(tensors[name])
