"""Ranks of a benchmark, as processes of this machine, and what each has to tell at its end."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from vlmtrain.launch.processes import find_free_port


def start_ranks(
    command: list[str], world: int, folder: Path, environment: dict[str, str]
) -> list[subprocess.Popen[bytes]]:
    """A process for each rank, with its log in `folder`; one alone does not know that it is a rank."""
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // world))}  # as the launcher has it
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_port()), "WORLD_SIZE": str(world)}
    ranks = []
    for rank in range(world):
        _told(folder, rank).unlink(missing_ok=True)
        ranked = {**where, "RANK": str(rank), "LOCAL_RANK": str(rank)} if world > 1 else {}
        with _log(folder, rank).open("wb") as log:
            given = {**threads, **os.environ, **environment, **ranked}
            ranks.append(subprocess.Popen(command, env=given, stdout=log, stderr=log))
    return ranks


def hear_ranks(ranks: list[subprocess.Popen[bytes]], folder: Path) -> list[dict[str, Any]]:
    """What each told, when all have ended; RuntimeError with the end of the log of one that failed."""
    for rank, process in enumerate(ranks):
        if process.wait():
            raise RuntimeError(_log(folder, rank).read_text()[-3000:])
    return [json.loads(_told(folder, rank).read_text()) for rank in range(len(ranks))]


def tell(folder: Path, told: dict[str, Any]) -> None:
    """In a rank: leave in `folder` what the benchmark shall hear."""
    _told(folder, int(os.environ.get("RANK", "0"))).write_text(json.dumps(told))


def _told(folder: Path, rank: int) -> Path:
    return folder / f"told-{rank}.json"


def _log(folder: Path, rank: int) -> Path:
    return folder / f"log-{rank}.txt"
