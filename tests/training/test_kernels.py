"""The choice of the matrix multiplication is measured, recorded and applied."""

import json

import torch

from vlmtrain.training.kernels import WORST_ERROR, apply_kernels, probe_kernels
from vlmtrain.training.randomness import derive_seed, seed_micro_batch


def test_probe_decides_and_leaves_things_as_they_were() -> None:
    before = torch.get_float32_matmul_precision()
    decision = json.loads(json.dumps(probe_kernels()))
    assert torch.get_float32_matmul_precision() == before
    is_medium = decision["float32_matmul_precision"] == "medium"
    assert is_medium == (decision["relative_error"] <= WORST_ERROR and decision["speedup"] > 1)
    try:
        apply_kernels(decision)
        assert torch.get_float32_matmul_precision() == decision["float32_matmul_precision"]
    finally:
        torch.set_float32_matmul_precision(before)


def test_draws_depend_on_the_place_only() -> None:
    seed_micro_batch(1, 2, 3)
    first = torch.rand(4)
    torch.rand(9)
    seed_micro_batch(1, 2, 3)
    assert torch.equal(torch.rand(4), first)
    places = [(1, 2, 3), (1, 3, 2), (2, 1, 3), (12, 3, 0), (1, 23, 0)]
    assert len({derive_seed(*place) for place in places}) == len(places)
