"""Which fp32 matrix multiplication the CPU uses, decided by measuring once and kept for the whole run."""

import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 256
WORST_ERROR = 1e-5
REPEATS = 7


def probe_kernels() -> dict[str, Any]:
    """Decide whether "medium" precision (oneDNN) is exact here and faster.  Write it to the run folder; apply it.

    On many CPUs it computes in fp32 all the same, and large products 1.5 to 2 times faster; where it really falls back
    to bf16 the error against float64 says so.  Attention goes through it too, and with many small products it can be
    three times slower: what is timed is a linear layer with attention, forward and backward.  A resumed run applies
    the recorded decision instead of probing anew, so that it computes what the uninterrupted one would.
    `torch.set_float32_matmul_precision` is as it was on return.
    """
    before = torch.get_float32_matmul_precision()
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(SIDE, SIDE, generator=generator) for _ in range(2))
    exact = left.double() @ right.double()
    errors: dict[str, float] = {}
    seconds: dict[str, float] = {}
    try:
        for precision in ("highest", "medium"):
            torch.set_float32_matmul_precision(precision)
            product = left @ right
            errors[precision] = float((product.double() - exact).abs().max() / exact.abs().max())
        for _ in range(REPEATS):  # in turn, so that a busy machine is busy for both
            for precision in errors:
                torch.set_float32_matmul_precision(precision)
                seconds[precision] = min(seconds.get(precision, float("inf")), _time_block())
    finally:
        torch.set_float32_matmul_precision(before)
    is_better = errors["medium"] <= WORST_ERROR and seconds["medium"] < seconds["highest"]
    return {
        "float32_matmul_precision": "medium" if is_better else "highest",
        "relative_error": errors["medium"],
        "speedup": seconds["highest"] / seconds["medium"],
    }


def apply_kernels(decision: dict[str, Any]) -> None:
    torch.set_float32_matmul_precision(decision["float32_matmul_precision"])


def _time_block() -> float:
    """Seconds of one step through a linear layer and an attention of 32 samples, 64 tokens, 4 heads of 32."""
    tokens = torch.ones(32 * 64, 128, requires_grad=True)
    weight = torch.full((384, 128), 0.01, requires_grad=True)
    start = time.perf_counter()
    projected: Tensor = F.linear(tokens, weight).view(32, 64, 3, 4, 32)
    query, key, value = projected.permute(2, 0, 3, 1, 4)
    F.scaled_dot_product_attention(query, key, value).sum().backward()
    return time.perf_counter() - start
