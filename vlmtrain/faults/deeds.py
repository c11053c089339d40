"""What can go wrong.  Each function gets the trainer, the injection's value and what stands at the place."""

import os
import re
import signal
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vlmtrain.objectives.base import Loss
from vlmtrain.training.trainer import Trainer

MANTISSA_BIT = 12  # not the last one, which the next rounding may restore


def sleep(trainer: Trainer, seconds: float, what: Any) -> Any:
    """Too long, or just slow."""
    time.sleep(seconds)
    return what


def loop(trainer: Trainer, value: float, what: Any) -> Any:
    """For ever, in Python."""
    while True:
        value += 1


def hold_the_lock(trainer: Trainer, value: float, what: Any) -> Any:
    """For ever, without letting another thread of this process run."""
    re.match(r"(a?){40}a{40}", "a" * 40)
    return what


def stop(trainer: Trainer, value: float, what: Any) -> Any:
    """Like a debugger, or a scheduler that suspends."""
    os.kill(os.getpid(), signal.SIGSTOP)
    return what


def send(trainer: Trainer, number: float, what: Any) -> Any:
    """A signal to this process."""
    os.kill(os.getpid(), int(number))
    return what


def fail(trainer: Trainer, value: float, what: Any) -> Any:
    raise RuntimeError("made up by the fault harness")


def flip_a_bit(trainer: Trainer, number: float, what: Any) -> Any:
    """One bit of the mantissa of one weight, of the trained tensor of this number."""
    tensors = [each for each in trainer.model.parameters() if each.requires_grad]
    tensors[int(number) % len(tensors)].data.view(-1).view(torch.int32)[0] ^= 1 << MANTISSA_BIT
    return what


def spoil(trainer: Trainer, factor: float, what: Any) -> Any:
    """Multiplies a loss or a gradient: by NaN, by infinity, by much."""
    if isinstance(what, Tensor):
        return what * factor
    assert isinstance(what, Loss)
    return replace(what, totals={name: total * factor for name, total in what.totals.items()})
