"""What a run would take, told without loading a weight."""

import pytest
import torch
from torch import nn

from vlmtrain.main import main
from vlmtrain.training.costs import estimate_memory, list_part_costs


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(10, 10)
        self.connector = nn.Linear(10, 4)
        self.scale = nn.Parameter(torch.zeros(1))
        self.tied = self.connector
        self.encoder.requires_grad_(False)


def test_parts_are_counted_once_and_frozen_ones_told() -> None:
    parts = {part.name: part for part in list_part_costs(Toy(), "bf16")}
    assert [(part.parameters, part.trainable, part.precision) for part in parts.values()] == [
        (110, 0, "bf16"),
        (44, 44, "fp32"),
        (1, 1, "fp32"),
    ]
    assert list(parts) == ["encoder", "connector", "heads"]


def test_memory_is_weights_gradients_and_moments_of_what_trains() -> None:
    memory = estimate_memory(Toy(), "bf16", micro_batch=8)
    assert (memory.weights, memory.gradients, memory.optimizer) == (110 * 2 + 45 * 4, 45 * 4, 45 * 8)
    assert 0 < memory.activations < 10_000


def test_a_larger_micro_batch_takes_more_and_checkpointing_less() -> None:
    small, large = (estimate_memory(Toy(), "fp32", size).activations for size in (8, 16))
    assert large == 2 * small
    assert estimate_memory(Toy(), "fp32", 16, is_checkpointing=True).activations < large


@pytest.mark.slow
def test_the_published_blip2_has_the_published_size(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["plan", "experiment=blip2_opt", "scale=paper", "data=pairs", "data.path=nowhere"])
    told = capsys.readouterr()
    assert code == 0, told.err
    assert "187 M trainable" in told.out  # published as 188M
    assert "2.65 B" in told.out and "986 M" in told.out
    assert "250,000 steps of 1,680 samples" in told.out and "80,000 steps of 1,920 samples" in told.out
