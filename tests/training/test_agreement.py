"""Ranks that did not start with the same stop, and say what it was."""

import multiprocessing
import os
import socket
from pathlib import Path

import pytest

from vlmtrain.training.agreement import describe_differences, facts_of_this_process


def test_facts_hold_configuration_code_and_libraries() -> None:
    facts = facts_of_this_process({"seed": 3, "trainer.max_steps": 9})
    assert facts["config trainer.max_steps"] == "9" and facts["config seed"] == "3"
    assert len(facts["code training/agreement.py"]) == 12
    assert facts["version of torch"].startswith("2.") and facts["version of deepspeed"]


def test_differences_name_what_is_where() -> None:
    told = describe_differences({"config seed": "1", "only here": "a"}, {"config seed": "2"})
    assert told == ["config seed is 2, and 1 on rank 0", "only here is absent, and a on rank 0"]
    assert describe_differences({"a": "1"}, {"a": "1"}) == []


def rank(number: int, port: int, folder: str) -> None:
    from vlmtrain.training.accelerator import build_accelerator
    from vlmtrain.training.agreement import require_agreement

    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ.update(RANK=str(number), LOCAL_RANK=str(number), **where)
    accelerator = build_accelerator("fp32", 2)
    require_agreement(accelerator, {"config seed": "1"})
    with pytest.raises(ValueError, match=r"rank 1: code run.py is 1, and 0 on rank 0.*same code"):
        require_agreement(accelerator, {"config seed": "1", "code run.py": str(number)})
    Path(folder, f"done{number}").touch()


def test_all_ranks_stop_and_say_what_differs(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=rank, args=(number, port, str(tmp_path))) for number in range(2)]
    for each in ranks:
        each.start()
    for each in ranks:
        each.join(180)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["done0", "done1"]
