"""Pre-norm cross-attention without biases, as decoders read images with."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from vlmtrain.nn.attention import attend, merge_heads, split_heads


class Remembered(NamedTuple):
    """What is read, projected and cut into heads: [B, key-value heads, M, d] each."""

    key: Tensor
    value: Tensor


class HeadNorm(nn.RMSNorm):
    """RMSNorm in the precision of its weight, also where autocast has lowered what it reads."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., d] -> [..., d]"""
        return super().forward(x.to(self.weight.dtype))


class CrossAttention(nn.Module):
    """Text positions read a memory.  One that may read nothing gets exact zeros: there is no bias to add to them.

    Args:
        width: D, of the text and of the memory.
        num_heads: of the queries.
        head_width: of each head; heads together need not be as wide as the text.
        num_key_value_heads: fewer than `num_heads` are shared by groups of them (GQA, arXiv:2305.13245).
        norm: makes the norm of the text from `width`; the memory is read as it is.
        head_norm: makes a norm of queries and one of keys from `head_width`: HeadNorm, or Identity for none.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        head_width: int,
        num_key_value_heads: int,
        norm: Callable[[int], nn.Module],
        head_norm: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        if num_heads % num_key_value_heads:
            raise ValueError(
                f"num_heads {num_heads} cannot share num_key_value_heads {num_key_value_heads} evenly; give a divisor."
            )
        self.num_heads, self.num_key_value_heads = num_heads, num_key_value_heads
        self.norm = norm(width)
        self.to_query = nn.Linear(width, num_heads * head_width, bias=False)
        self.to_key_value = nn.Linear(width, 2 * num_key_value_heads * head_width, bias=False)
        self.to_out = nn.Linear(num_heads * head_width, width, bias=False)
        self.query_norm = head_norm(head_width)
        self.key_norm = head_norm(head_width)

    def forward(
        self, x: Tensor, memory: Tensor, visible: Tensor, remembered: Remembered | None = None
    ) -> tuple[Tensor, Remembered]:
        """x [B, T, D] reads memory [B, M, D] where visible [B, T, M] -> [B, T, D].

        What was made of the memory comes back too.  Given as `remembered` in a later call, it is not made again.
        """
        query = self.query_norm(split_heads(self.to_query(self.norm(x)), self.num_heads))
        known = self._remember(memory) if remembered is None else remembered
        shared_by = self.num_heads // self.num_key_value_heads
        key, value = (heads.repeat_interleave(shared_by, dim=1) for heads in known)
        read = attend(query.to(value.dtype), key, value, mask=visible.unsqueeze(1))
        return self.to_out(merge_heads(read)), known

    def _remember(self, memory: Tensor) -> Remembered:
        key, value = self.to_key_value(memory).chunk(2, dim=-1)
        heads = self.num_key_value_heads
        return Remembered(self.key_norm(split_heads(key, heads)).to(value.dtype), split_heads(value, heads))
