"""Gradient checkpointing of blocks that somebody else wrote, whatever mode they are in."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


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
