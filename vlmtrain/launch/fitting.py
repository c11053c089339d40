"""Which engines fit into the memory of a process, by what `vlmtrain plan` estimates."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vlmtrain.config.build import build
from vlmtrain.report.start_summary import format_bytes
from vlmtrain.shapes import build_on_meta, estimate_stage
from vlmtrain.training.costs import MemoryCost

SHARE = 0.9  # of a device that is planned with: allocators lose some, and activations are known roughly
OWN = {"cpu": 600_000_000, "gpu": 1_500_000_000}  # of a process without a model: libraries; context and links
CGROUP = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Room:
    """Bytes that a process may plan with, on its device and in the CPU's memory; on CPUs these are one."""

    device: int
    host: int
    is_one: bool
    words: str

    def holds(self, memory: MemoryCost) -> bool:
        if self.is_one:
            return memory.total + memory.offloaded <= self.device
        return memory.total <= self.device and memory.offloaded <= self.host


@dataclass(frozen=True)
class Fit:
    """What a process takes under an engine, in the stage that takes most."""

    name: str
    engine: dict[str, Any]
    stage: str
    memory: MemoryCost


def choose(config: dict[str, Any]) -> dict[str, Any]:
    """The engine of `distributed.first_that_fits` to take, and why; ValueError with numbers where none fits."""
    room = find_room(config)
    fits = list_fits(config, {name: node for name, node in config["distributed"]["first_that_fits"].items() if node})
    passed: list[str] = []
    for fit in fits:
        told = f"{fit.name} takes {format_bytes(fit.memory.total)} of a process (stage {fit.stage})"
        if room.holds(fit.memory):
            rest = f"; {', '.join(passed)} would not fit" if passed else ""
            return {"engine": fit.engine, "reason": f"{told}, which has {room.words}{rest}"}
        passed.append(f"{fit.name} ({format_bytes(fit.memory.total)})")
    raise ValueError(
        f"distributed=auto: a process has {room.words}, and nothing fits: {', '.join(passed) or 'no engine is named'}. "
        "Give more processes (distributed.num_processes), smaller bites (trainer.accumulate), "
        "trainer.gradient_checkpointing=true, frozen parts in bf16 (model.language_model.precision=bf16), or name an "
        "engine (distributed=fsdp2) if you know better."
    )


def list_fits(config: dict[str, Any], engines: dict[str, dict[str, Any]]) -> list[Fit]:
    """What each takes of a process, in the stage that takes most."""
    models = {name: build_on_meta(stage) for name, stage in config["stages"].items()}
    processes = config["distributed"]["num_processes"]
    fits = []
    for name, node in engines.items():
        sharing = build(node).sharing(processes)
        costs = {
            stage: estimate_stage(model, config["stages"][stage], processes, sharing) for stage, model in models.items()
        }
        largest = max(costs, key=lambda stage: costs[stage].total)
        fits.append(Fit(name, node, largest, costs[largest]))
    return fits


def find_room(config: dict[str, Any]) -> Room:
    """Of one process: its GPU, or its part of this machine's memory; or what distributed.memory_gigabytes says."""
    given, launcher = config["distributed"]["memory_gigabytes"], config["launcher"]
    is_elsewhere = launcher["kind"] != "local"
    if is_elsewhere and given is None:
        raise ValueError(
            f"distributed=auto with launcher={launcher['kind']}: this is not the machine that will train; say what a "
            "process has there, distributed.memory_gigabytes=80 for a GPU of 80 GB"
        )
    here = launcher["tasks_per_node"] if is_elsewhere else config["distributed"]["num_processes"]
    here = int(os.environ.get("LOCAL_WORLD_SIZE", here))
    on_gpu = is_elsewhere or torch.cuda.is_available()
    host = sys.maxsize if is_elsewhere else memory_of_machine() // here
    if given is not None:
        whole, words = int(given * 1e9), f"{given:g} GB (distributed.memory_gigabytes)"
    elif on_gpu:
        whole = torch.cuda.get_device_properties(0).total_memory
        words = f"a GPU of {format_bytes(whole)}"
    else:
        whole, words = host, f"{format_bytes(host)} (this machine's memory, divided by {here})"
    room = int(SHARE * whole) - OWN["gpu" if on_gpu else "cpu"]
    return Room(room, int(SHARE * host), not on_gpu, f"{format_bytes(max(0, room))} for it, of {words}")


def memory_of_machine() -> int:
    """Bytes, or what a container's limit leaves of them."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = CGROUP.read_text().strip() if CGROUP.is_file() else "max"
    return whole if limit == "max" else min(whole, int(limit))


def main() -> int:
    """A configuration on stdin, the choice or a refusal on stdout."""
    try:
        answer = choose(json.load(sys.stdin))
    except ValueError as error:
        answer = {"refusal": str(error)}
    sys.stdout.write(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
