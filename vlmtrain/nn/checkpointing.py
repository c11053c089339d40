"""Gradient checkpointing: parts that can be told to, and blocks that somebody else wrote, whatever mode they are in."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Checkpointable:
    """A part that keeps only what goes from layer to layer for the backward pass, once it is told to; in any mode, also
    where it is frozen."""

    is_checkpointed: bool = False

    def enable_gradient_checkpointing(self) -> None:
        """From now on, compute what is inside the layers again in backward."""
        self.is_checkpointed = True


class RunsLayers(Checkpointable):
    """One that runs its layers, in whatever view, step by step."""

    def run(self, step: Callable[..., Any], *inputs: Any) -> Any:
        """One layer, recomputed in backward where checkpointing is on."""
        if self.is_checkpointed and torch.is_grad_enabled():
            return checkpoint(step, *inputs, use_reentrant=False)
        return step(*inputs)


@contextmanager
def checkpointed(blocks: Iterable[nn.Module], is_on: bool = True) -> Iterator[None]:
    """In this block, a forward pass of `blocks` keeps only their inputs and computes the rest again in backward.

    transformers has a switch of its own, but it works only in training mode, and a frozen part is in eval mode while
    the gradient passes through it.
    """
    chosen = list(blocks) if is_on and torch.is_grad_enabled() else []
    before = [vars(block).get("forward") for block in chosen]
    for block in chosen:
        block.__dict__["forward"] = partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block, forward in zip(chosen, before, strict=True):
            if forward is None:
                del block.__dict__["forward"]
            else:
                block.__dict__["forward"] = forward
