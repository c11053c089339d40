"""Which layers of an encoder are read."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Tap = int | list[int]  # -1 is the last layer with the final norm; several are put side by side along the width


@dataclass(frozen=True)
class Taps:
    """The layers that are read, each named by how many blocks have run before it is."""

    layers: tuple[int, ...]  # in the order asked for
    depth: int  # blocks of the whole encoder

    @property
    def num_blocks(self) -> int:
        """How many blocks must run; the rest is read by nobody."""
        return max(self.layers)

    @property
    def reads_end(self) -> bool:
        """Whether the last layer is among them, and with it the final norm."""
        return self.depth in self.layers

    def join(self, states: Mapping[int, Tensor]) -> Tensor:
        """Number of blocks run -> what then came out [N, P, W]; all that are read, side by side: [N, P, taps * W]."""
        return torch.cat([states[layer] for layer in self.layers], dim=-1)


def choose_taps(tap: Tap, depth: int) -> Taps:
    """Counted from the end like a Python index, so that a config means the same in encoders of any depth."""
    chosen = [tap] if isinstance(tap, int) else list(tap)
    if not chosen or len(set(chosen)) != len(chosen):
        raise ValueError(f"tap {tap}: name one layer, or several that differ, as [-2, -5].")
    return Taps(tuple(blocks_read(each, depth) for each in chosen), depth)


def blocks_read(tap: int, depth: int) -> int:
    """How many of `depth` blocks must run so that the output of block `tap` is known; -1 is the last."""
    if not -depth <= tap <= -1:
        raise ValueError(f"tap {tap}: choose a layer from {-depth} (the first) to -1 (the last, with the final norm).")
    return depth + 1 + tap
