"""Slow ranks are found by their own work."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from vlmtrain.training.actions.find_stragglers import FindStragglers
from vlmtrain.training.stragglers import ForwardTime, find_stragglers


def test_slow_is_twice_the_median_of_the_others_and_worth_saying() -> None:
    assert find_stragglers([0.1, 0.1, 0.35, 0.12], 2.0) == [2]
    assert find_stragglers([0.1, 0.19], 2.0) == [] and find_stragglers([0.1, 0.31], 2.0) == [1]
    assert find_stragglers([0.001, 0.004], 2.0) == []  # milliseconds are noise
    assert find_stragglers([0.1, 9.0, 8.0, 0.1, 0.1], 2.0) == [1, 2]
    assert find_stragglers([0.5], 2.0) == []


def test_only_the_forward_pass_counts() -> None:
    layer = nn.Linear(2, 2)
    clock = ForwardTime(layer)
    layer(torch.ones(1, 2)).sum().backward()
    first = clock.read()
    assert first > 0 and clock.read() == 0


class Two:
    """An accelerator of two ranks, of which the second always takes 0.4 s a step."""

    num_processes, is_main_process, device = 2, True, torch.device("cpu")

    def gather(self, own: torch.Tensor) -> torch.Tensor:
        return torch.tensor([0.1, 0.4])


def test_the_slow_rank_is_named_once_and_in_two_looks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    look = FindStragglers(every=2)
    step = nn.Linear(1, 1)
    trainer: Any = SimpleNamespace(
        accelerator=Two(), update=SimpleNamespace(training_step=step), logs=tmp_path, data_seconds=0.0, progress=None
    )
    with caplog.at_level(logging.WARNING):
        for taken in (2, 4, 6, 8, 10):
            trainer.progress = SimpleNamespace(step=taken)
            look(trainer)
            assert ("rank 1 is slow: 0.400 s of its own work a step, the others 0.100" in caplog.text) == (taken >= 6)
    assert caplog.text.count("is slow") == 1
    assert '"slow": [1]' in (tmp_path / "stragglers.jsonl").read_text()
