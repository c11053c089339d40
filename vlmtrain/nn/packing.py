"""Rows of different lengths without their padding: linear layers see real positions only."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedRows:
    """Where the real positions of padded rows [R, T] stand.  Made once per batch, used by every layer."""

    positions: Tensor  # [n] indices into the R * T flattened positions, ascending
    num_rows: int  # R
    length: int  # T

    @classmethod
    def of(cls, mask: Tensor) -> "PackedRows":
        """mask [R, T], True = real."""
        return cls(mask.flatten().nonzero().squeeze(1), *mask.shape)

    @classmethod
    def whole(cls, num_rows: int, length: int, device: torch.device) -> "PackedRows":
        """Rows [R, T] without any padding, known to be so: nothing is counted on the device."""
        return cls(torch.arange(num_rows * length, device=device), num_rows, length)

    def columns(self) -> Tensor:
        """[n] place of each real position in its row."""
        return self.positions % self.length

    def pack(self, padded: Tensor) -> Tensor:
        """[R, T, ...] -> [n, ...]"""
        return padded.flatten(0, 1).index_select(0, self.positions)

    def pad(self, packed: Tensor) -> Tensor:
        """[n, C] -> [R, T, C], zeros on padding."""
        empty = packed.new_zeros(self.num_rows * self.length, packed.shape[-1])
        return empty.index_copy(0, self.positions, packed).unflatten(0, (self.num_rows, self.length))

    def mask(self) -> Tensor:
        """[R, T] bool, True = real."""
        flat = torch.zeros(self.num_rows * self.length, dtype=torch.bool, device=self.positions.device)
        return flat.index_fill(0, self.positions, True).unflatten(0, (self.num_rows, self.length))
