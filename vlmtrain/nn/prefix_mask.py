"""Who sees whom in a row whose beginning is read both ways (T5, Raffel et al. 2020, section 3.2.1; SimVLM)."""

import torch
from torch import Tensor

from vlmtrain.batch import IGNORED_TARGET

# Finite in fp16 too, with a score added: autocast may lower a mask, and where all is -infinity, softmax is NaN.
CLOSED = torch.finfo(torch.float16).min / 2


def prefix_of(targets: Tensor) -> Tensor:
    """[B, T] -> [B, T] bool: up to and with the position of the first supervised target; all where there is none."""
    is_supervised = (targets != IGNORED_TARGET).long()
    return is_supervised.cumsum(dim=1) - is_supervised == 0


def prefix_mask(attention_mask: Tensor, in_prefix: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, T], [B, T] -> [B, 1, T, T] to be added to attention scores.  Padding sees only itself and is seen by none.

    Where samples share a row, `attention_mask` holds the number of each position's sample, 0 on padding, and no sample
    sees another.
    """
    length = attention_mask.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=attention_mask.device).tril()
    sees = causal | (in_prefix.unsqueeze(2) & in_prefix.unsqueeze(1))
    sees = sees & same_sample(attention_mask, attention_mask)
    return added_to_scores(sees | torch.eye(length, dtype=torch.bool, device=attention_mask.device), dtype)


def same_sample(readers: Tensor, read: Tensor) -> Tensor:
    """Numbers of samples, 0 on padding, [B, L] and [B, T] -> [B, L, T] bool: both belong to the same one."""
    return (readers.unsqueeze(2) == read.unsqueeze(1)) & read.bool().unsqueeze(1)


def added_to_scores(sees: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, L, T] bool -> [B, 1, L, T]: 0 where a position sees another, next to nothing elsewhere."""
    return torch.zeros_like(sees, dtype=dtype).masked_fill(~sees, CLOSED).unsqueeze(1)
