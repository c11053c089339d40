"""The choice of the matrix multiplication is measured, recorded and applied."""

import json
from collections.abc import Callable

import pytest
import torch

from vlmtrain.training import kernels
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


def clock(highest: list[float], medium: list[float]) -> Callable[[], float]:
    """Times of the block under each precision, in the order in which they are asked for."""
    times = {"highest": iter(highest), "medium": iter(medium)}
    return lambda: next(times[torch.get_float32_matmul_precision()])


@pytest.mark.parametrize(
    ("highest", "medium", "worst_error", "chosen"),
    [
        ([2.0] * 7, [1.0] * 7, 1.0, "medium"),
        ([1.0] * 7, [3.0] * 7, 1.0, "highest"),  # attention may take longer than the larger products save
        ([2.0] * 7, [1.0] * 7, -1.0, "highest"),  # bf16 behind an fp32 face is no choice however fast
        ([9.0, 9.0, 2.0, 9.0, 9.0, 9.0, 9.0], [9.0, 9.0, 9.0, 9.0, 9.0, 1.0, 9.0], 1.0, "medium"),
    ],
    ids=["faster", "slower", "inexact", "a busy machine: the best of seven counts"],
)
def test_the_probe_takes_what_is_exact_and_faster(
    highest: list[float], medium: list[float], worst_error: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_time_block", clock(highest, medium))
    monkeypatch.setattr(kernels, "WORST_ERROR", worst_error)
    decision = probe_kernels()
    assert decision["float32_matmul_precision"] == chosen
    assert decision["speedup"] == min(highest) / min(medium)


def test_what_is_timed_holds_attention_and_its_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[int, ...]] = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def spy(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        called.append(tuple(query.shape))
        return attend(query, key, value)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    assert kernels._time_block() > 0
    assert called == [(32, 4, 64, 32)]


def test_a_probe_that_fails_leaves_things_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_float32_matmul_precision()
    monkeypatch.setattr(kernels, "_time_block", clock([], []))
    with pytest.raises(StopIteration):
        probe_kernels()
    assert torch.get_float32_matmul_precision() == before


def test_draws_depend_on_the_place_only() -> None:
    seed_micro_batch(1, 2, 3)
    first = torch.rand(4)
    torch.rand(9)
    seed_micro_batch(1, 2, 3)
    assert torch.equal(torch.rand(4), first)
    places = [(1, 2, 3), (1, 3, 2), (2, 1, 3), (12, 3, 0), (1, 23, 0)]
    assert len({derive_seed(*place) for place in places}) == len(places)
