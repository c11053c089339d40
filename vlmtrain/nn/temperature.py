"""The learned temperature of contrastive similarities, within bounds (CLIP; ALBEF, Li et al. 2021; BLIP; BLIP-2)."""

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


def set_back_scale(log_scale: nn.Parameter, highest: float) -> Tensor:
    """The scale; one that was learned beyond `highest` is set back first, as CLIP does after each step.

    Bounding only what is given would leave the parameter free to run away, or without gradient to come back.
    """
    with torch.no_grad():
        log_scale.clamp_(max=math.log(highest))
    scale = log_scale.exp()
    return scale - (scale.detach() - highest).clamp(min=0)  # exp(log(100)) is a little more than 100
