"""distributed=auto: the first engine that fits, for a reason, once."""

from pathlib import Path
from typing import Any

import pytest

from vlmtrain.config.check import check
from vlmtrain.config.compose import compose
from vlmtrain.config.stored import write_config
from vlmtrain.launch import fitting, settling
from vlmtrain.training.costs import MemoryCost

GB = 10**9
TAKES = {"ddp": 30, "fsdp2_whole": 25, "fsdp2_frozen_copied": 20, "fsdp2": 10, "fsdp2_offload": 4}


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Four processes, whose engines take as many GB as TAKES says."""

    def list_fits(config: dict[str, Any], engines: dict[str, dict[str, Any]]) -> list[fitting.Fit]:
        costs = {name: MemoryCost(TAKES[name] * GB, 0, 0, 0, offloaded=6 * GB * (TAKES[name] == 4)) for name in engines}
        return [fitting.Fit(name, engines[name], "language", cost) for name, cost in costs.items()]

    monkeypatch.setattr(fitting, "list_fits", list_fits)
    composed = compose(["experiment=prefix_lm", "distributed=auto", "distributed.num_processes=4"])
    check(composed)
    return composed.config


def with_memory(config: dict[str, Any], gigabytes: float) -> dict[str, Any]:
    launcher = {**config["launcher"], "kind": "slurm", "tasks_per_node": 4}
    return {**config, "launcher": launcher, "distributed": {**config["distributed"], "memory_gigabytes": gigabytes}}


@pytest.mark.parametrize(
    ("gigabytes", "name"), [(80, "ddp"), (24, "fsdp2_frozen_copied"), (16, "fsdp2"), (8, "fsdp2_offload")]
)
def test_the_first_that_fits_is_taken_and_says_what_would_not(
    config: dict[str, Any], gigabytes: int, name: str
) -> None:
    chosen = fitting.choose(with_memory(config, gigabytes))
    assert chosen["engine"] == config["distributed"]["first_that_fits"][name]
    assert chosen["reason"].startswith(f"{name} takes {TAKES[name]}")
    before = list(TAKES)[: list(TAKES).index(name)]
    assert all(f"{each} (" in chosen["reason"] for each in before)


def test_where_nothing_fits_the_error_has_the_numbers_and_ways_out(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"nothing fits: ddp \(30 GB\).*fsdp2_offload \(4.0 GB\).*num_processes"):
        fitting.choose(with_memory(config, 4))


def test_an_engine_that_is_left_out_is_not_taken(config: dict[str, Any]) -> None:
    config = with_memory(config, 80)
    config["distributed"]["first_that_fits"] = {**config["distributed"]["first_that_fits"], "ddp": None}
    assert fitting.choose(config)["reason"].startswith("fsdp2_whole takes")


def test_on_cpus_what_is_offloaded_lies_in_the_same_memory(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "memory_of_machine", lambda: 4 * 9 * GB)
    monkeypatch.setattr(fitting.torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    with pytest.raises(ValueError, match=r"nothing fits.*fsdp2_offload"):
        fitting.choose(config)


def test_a_queue_does_not_know_what_its_machines_have(config: dict[str, Any]) -> None:
    elsewhere = {**config, "launcher": {**config["launcher"], "kind": "slurm"}}
    with pytest.raises(ValueError, match=r"distributed.memory_gigabytes=80"):
        fitting.choose(elsewhere)


def test_a_resumed_run_keeps_its_engine_unless_asked_otherwise(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [{"engine": {"_target_": "a"}, "reason": "a fits"}, {"engine": {"_target_": "b"}, "reason": "b fits"}]
    monkeypatch.setattr(settling, "_ask", lambda config: answers.pop(0))
    first = settling.settle(config, tmp_path)
    assert first["distributed"]["engine"] == {"_target_": "a"}
    assert "distributed=auto: a fits" in capsys.readouterr().err
    write_config(first, tmp_path)
    assert settling.settle(config, tmp_path) == first
    others = {**config, "distributed": {**config["distributed"], "num_processes": 8}}
    assert settling.settle(others, tmp_path)["distributed"]["engine"] == {"_target_": "b"}
    named = {**config, "distributed": {**config["distributed"], "engine": {"_target_": "c"}}}
    assert settling.settle(named, tmp_path) is named


def test_a_refusal_of_the_process_that_was_asked_is_the_users_error(config: dict[str, Any], tmp_path: Path) -> None:
    """Through a real process, which builds the real models."""
    too_little = with_memory(config, 0.001)
    with pytest.raises(ValueError, match=r"nothing fits: ddp \(.*MB"):
        settling.settle(too_little, tmp_path)
