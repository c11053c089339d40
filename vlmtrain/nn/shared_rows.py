"""Several samples in one row of a language model, none of which sees another (Krell et al. 2021, arXiv:2107.02027)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SharedRows:
    """Where the real positions of samples [B, T] stand in rows [R, C] that samples share."""

    source: Tensor  # [n] indices into the B * T flattened positions, sample by sample
    target: Tensor  # [n] indices into the R * C flattened ones
    samples: tuple[int, int]  # B, T
    rows: tuple[int, int]  # R, C
    owners: Tensor  # [R, C] number of the sample that a position belongs to, from 1 on; 0 on padding

    @classmethod
    def of(cls, mask: Tensor, rows: list[list[int]], length: int) -> "SharedRows":
        """mask [B, T], True = real; `rows` names the samples of each row, in their order; `length` is C."""
        source = mask.flatten().nonzero().squeeze(1)
        counts = mask.sum(dim=1)
        begins = [0] * len(mask)
        lengths = counts.tolist()
        for number, row in enumerate(rows):
            place = number * length
            for sample in row:
                begins[sample] = place
                place += lengths[sample]
        first = counts.cumsum(dim=0) - counts  # of each sample in `source`
        owner = torch.arange(len(mask), device=mask.device).repeat_interleave(counts)
        shift = torch.tensor(begins, device=mask.device) - first
        target = torch.arange(len(source), device=mask.device) + shift.index_select(0, owner)
        owners = torch.zeros(len(rows) * length, dtype=torch.long, device=mask.device)
        owners = owners.index_copy(0, target, owner + 1).unflatten(0, (len(rows), length))
        return cls(source, target, (mask.shape[0], mask.shape[1]), (len(rows), length), owners)

    def pack(self, values: Tensor) -> Tensor:
        """[B, T, ...] -> [R, C, ...], zeros on padding."""
        return _move(values, self.source, self.target, self.rows)

    def unpack(self, values: Tensor) -> Tensor:
        """[R, C, ...] -> [B, T, ...], zeros on padding."""
        return _move(values, self.target, self.source, self.samples)


def _move(values: Tensor, source: Tensor, target: Tensor, shape: tuple[int, int]) -> Tensor:
    flat = values.flatten(0, 1)
    empty = flat.new_zeros(shape[0] * shape[1], *flat.shape[1:])
    return empty.index_copy(0, target, flat.index_select(0, source)).unflatten(0, shape)


def share(lengths: Sequence[Sequence[int]], capacity: Sequence[int]) -> list[list[int]]:
    """Samples of these lengths -> rows of samples: the longest first, each into the first row that has room for it.

    A sample may have several lengths, one for each kind of row it stands in (an encoder's and a decoder's), and
    `capacity` one of each.  A sample longer than that has a row to itself.
    """
    rows: list[list[int]] = []
    room: list[list[int]] = []
    for sample in sorted(range(len(lengths)), key=lambda each: (-sum(lengths[each]), each)):
        needs = lengths[sample]
        found = next((row for row, free in enumerate(room) if all(map(int.__le__, needs, free))), len(rows))
        if found == len(rows):
            rows.append([])
            room.append(list(capacity))
        rows[found].append(sample)
        room[found] = [free - need for free, need in zip(room[found], needs, strict=True)]
    return rows
