"""The learned temperature of contrastive similarities, between bounds (ALBEF, Li et al. 2021; BLIP; BLIP-2)."""

import math

import torch
from torch import Tensor, nn

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.001, 0.5


def log_temperature(start: float) -> nn.Parameter:
    """The parameter that learns.  ValueError where it would start outside its bounds."""
    if not LOWEST_TEMPERATURE <= start <= HIGHEST_TEMPERATURE:
        raise ValueError(
            f"temperature {start} lies outside {LOWEST_TEMPERATURE} to {HIGHEST_TEMPERATURE}; 0.07 is usual"
        )
    return nn.Parameter(torch.tensor(math.log(start)))


def bounded_scale(raw: Tensor) -> Tensor:
    """1 / temperature.  The gradient passes the bounds, so that a temperature at a bound can come back."""
    bounded = raw.clamp(math.log(LOWEST_TEMPERATURE), math.log(HIGHEST_TEMPERATURE))
    return (-(raw + (bounded - raw).detach())).exp()
