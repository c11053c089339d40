"""Which fp32 matrix multiplication the CPU uses, decided by measuring once and kept for the whole run."""

import time
from typing import Any

import torch

SIDE = 256
WORST_ERROR = 1e-5
REPEATS = 7


def probe_kernels() -> dict[str, Any]:
    """Decide whether "medium" precision (oneDNN) is exact here and faster.  Write it to the run folder; apply it.

    On many CPUs it computes in fp32 all the same, 1.5 to 2 times faster; where it really falls back to bf16 the error
    against float64 says so.  A resumed run applies the recorded decision instead of probing anew, so that it computes
    what the uninterrupted one would.  `torch.set_float32_matmul_precision` is as it was on return.
    """
    before = torch.get_float32_matmul_precision()
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(SIDE, SIDE, generator=generator) for _ in range(2))
    exact = left.double() @ right.double()
    errors, seconds = {}, {}
    try:
        for precision in ("highest", "medium"):
            torch.set_float32_matmul_precision(precision)
            product = left @ right
            errors[precision] = float((product.double() - exact).abs().max() / exact.abs().max())
            seconds[precision] = min(_time(left, right) for _ in range(REPEATS))
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


def _time(left: torch.Tensor, right: torch.Tensor) -> float:
    start = time.perf_counter()
    for _ in range(4):
        left @ right
    return time.perf_counter() - start
