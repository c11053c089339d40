"""What one rank writes of a tensor, where every rank writes its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Part:
    """A block of a tensor, or a piece of its numbers in a row; those of all ranks together are the tensor, once.

    Args:
        shape: of the whole.
        offsets: where `values` begin in it, one for each axis; or a single one, where `values` are a piece of it laid
            out flat.
        values: None where this rank writes nothing of it.
    """

    shape: tuple[int, ...]
    offsets: tuple[int, ...]
    values: Tensor | None


def whole_part(value: Tensor, is_mine: bool) -> Part:
    """Of a tensor that every rank holds a copy of."""
    return Part(tuple(value.shape), (0,) * value.ndim, value if is_mine else None)


def flat_part(shape: Sequence[int], start: int, values: Tensor) -> Part:
    """The piece `values` [n] of a tensor laid out flat; empty where nothing of it is here."""
    return Part(tuple(shape), (start,), values if values.numel() else None)
