"""What a run would take, told without loading a weight."""

from collections.abc import Iterable

import pytest
import torch
from torch import nn

from vlmtrain.main import main
from vlmtrain.training.costs import estimate_memory, list_part_costs
from vlmtrain.training.engines.deepspeed import ZeroWhole
from vlmtrain.training.engines.fsdp2 import FSDP2
from vlmtrain.training.engines.replicated import Replicated
from vlmtrain.training.engines.zero3 import Zero3
from vlmtrain.training.precision import set_weight_precision


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(10, 10)
        self.connector = nn.Linear(10, 4)
        self.scale = nn.Parameter(torch.zeros(1))
        self.tied = self.connector
        self.encoder.requires_grad_(False)
        set_weight_precision(self, "bf16")


class Layered(nn.Module):
    """Three units of 100 numbers, one of them trained, and 200 outside of them, of which 20 train."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(10, 10, bias=False) for _ in range(3))
        self.outside = nn.Linear(18, 10, bias=False)
        self.head = nn.Linear(10, 2, bias=False)
        for part in (self.layers[0], self.layers[1], self.outside):
            part.requires_grad_(False).to(torch.bfloat16)

    def wrapping_units(self) -> Iterable[nn.Module]:
        return self.layers


FROZEN, TRAINED = 2 * (100 + 100 + 180), 4 * (100 + 20)


def test_parts_are_counted_once_and_frozen_ones_told() -> None:
    parts = {part.name: part for part in list_part_costs(Toy())}
    assert [(part.parameters, part.trainable, part.precision) for part in parts.values()] == [
        (110, 0, "bf16"),
        (44, 44, "fp32"),
        (1, 1, "fp32"),
    ]
    assert list(parts) == ["encoder", "connector", "heads"]


def test_a_frozen_base_in_bf16_is_counted_as_that_beside_its_adapters() -> None:
    toy = Toy()
    toy.encoder.adapter = nn.Linear(10, 1, bias=False)
    (encoder, *_) = list_part_costs(toy)
    assert (encoder.parameters, encoder.trainable, encoder.precision) == (120, 10, "bf16, fp32")
    assert estimate_memory(toy, "bf16", 1).weights == 110 * 2 + (10 + 45) * 4


def test_memory_is_weights_gradients_and_moments_of_what_trains() -> None:
    memory = estimate_memory(Toy(), "bf16", micro_batch=8)
    assert (memory.weights, memory.gradients, memory.optimizer) == (110 * 2 + 45 * 4, 45 * 4, 45 * 8)
    assert 0 < memory.activations < 10_000
    assert estimate_memory(Toy(), "bf16", 8, has_average=True).optimizer == 45 * 12


def test_fp16_is_counted_like_bf16() -> None:
    with torch.device("meta"):
        toy = Toy()
    toy.encoder.float()
    set_weight_precision(toy, "fp16")
    assert list_part_costs(toy)[0].precision == "fp16"
    assert estimate_memory(toy, "fp16", micro_batch=8) == estimate_memory(Toy(), "bf16", micro_batch=8)


@pytest.mark.parametrize(
    ("engine", "weights", "gradients", "moments", "gathered"),
    [
        (Replicated(), FROZEN + TRAINED, 2 * TRAINED, 2 * TRAINED, 0),  # DDP's buckets are a copy
        # ZeRO's buffer has the gradients of the largest unit, 400 bytes
        (ZeroWhole(1), FROZEN + TRAINED, TRAINED + 400, 3 * TRAINED // 4, 0),
        (ZeroWhole(2), FROZEN + TRAINED, TRAINED // 4 + 400, 3 * TRAINED // 4, 0),
        # outside of units 360 + 80 bytes and a gradient of 80; two units of 400 and 200, and a gradient of 400
        (Zero3(), (FROZEN + TRAINED) // 4, TRAINED // 4 + 400, 3 * TRAINED // 4, 440 + 80 + 600 + 400),
        (FSDP2(), (FROZEN + TRAINED) // 4, TRAINED // 4, TRAINED // 2, 440 + 80 + 600 + 400),
        (FSDP2(copies=2), (FROZEN + TRAINED) // 2, TRAINED // 2, TRAINED, 440 + 80 + 600 + 400),
        (FSDP2(shard_frozen=False), FROZEN + TRAINED // 4, TRAINED // 4, TRAINED // 2, 80 + 80 + 400 + 400),
        (FSDP2(reshard_after_forward=False), (FROZEN + TRAINED) // 4, TRAINED // 4, TRAINED // 2, 440 + 80 + 800 + 400),
    ],
)
def test_engines_share_what_they_say(engine, weights: int, gradients: int, moments: int, gathered: int) -> None:
    memory = estimate_memory(Layered(), "fp32", 1, sharing=engine.sharing(4))
    assert (memory.weights, memory.gradients, memory.optimizer) == (weights, gradients, moments)
    assert memory.gathered == gathered


def test_what_is_offloaded_is_told_apart() -> None:
    memory = estimate_memory(Layered(), "fp32", 1, sharing=FSDP2(offload=True).sharing(4))
    assert (memory.weights, memory.gradients, memory.optimizer) == (0, 0, 0)
    assert memory.offloaded == (FROZEN + TRAINED) // 4 + TRAINED // 4 + TRAINED // 2
    zero = estimate_memory(Layered(), "fp32", 1, sharing=ZeroWhole(2, offload=True).sharing(4))
    assert (zero.optimizer, zero.offloaded) == (0, 3 * TRAINED // 4)


def test_a_larger_micro_batch_takes_more_and_checkpointing_less() -> None:
    small, large = (estimate_memory(Toy(), "fp32", size).activations for size in (8, 16))
    assert large == 2 * small
    assert estimate_memory(Toy(), "fp32", 16, is_checkpointing=True).activations < large


@pytest.mark.slow
def test_the_published_blip2_has_the_published_size(capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["distributed=auto", "distributed.num_processes=16", "distributed.memory_gigabytes=40"]
    code = main(["plan", "experiment=blip2_opt", "scale=paper", "data=pairs", "data.path=nowhere", *overrides])
    told = capsys.readouterr()
    assert code == 0, told.err
    assert "187 M trainable" in told.out  # published as 188M
    assert "2.65 B" in told.out and "986 M" in told.out
    assert "250,000 steps of 1,680 samples" in told.out and "80,000 steps of 1,920 samples" in told.out
    assert "deepspeed_zero3" in told.out and "distributed=auto: ddp takes" in told.out
