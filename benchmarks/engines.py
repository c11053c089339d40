"""One stage under every engine: losses, what a rank holds in memory, seconds per step; see README.md beside it."""

import argparse
import gc
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from mapped_memory import LARGE_BLOCKS_MAPPED, mapped_at_most, mapped_now
from ranks import hear_ranks, start_ranks, tell

from vlmtrain.config.check import check
from vlmtrain.config.compose import compose
from vlmtrain.run import open_run
from vlmtrain.stage import Stage
from vlmtrain.training.signals import Signals

logger = logging.getLogger("benchmarks.engines")

ENGINES = ("single", "ddp", "deepspeed_zero1", "deepspeed_zero2", "deepspeed_zero3", "fsdp2")


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = read_arguments()
    if arguments.engine:
        measure(arguments)
        return
    logger.info(
        "%-16s %12s %12s %14s %14s  %s", "engine", "holds, MB", "peak, MB", "with saving", "seconds/step", "losses"
    )
    for engine in ENGINES:
        told = spread(engine, LARGE_BLOCKS_MAPPED)
        megabytes = [max(rank[key] for rank in told) / 1e6 for key in ("holds", "peak", "with_saving")]
        timed = spread(engine, {})[0]  # once more: to map every block takes time
        losses = " ".join(f"{loss:.5f}" for loss in timed["losses"])
        logger.info("%-16s %12.1f %12.1f %14.1f %14.3f  %s", engine, *megabytes, median(timed["seconds"][1:]), losses)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", default="blip2_opt")
    parser.add_argument("--stage", default="language", help="trained from its pretrained ends, without earlier stages")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--engine", help=argparse.SUPPRESS)  # what a child is told
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="more of the configuration, as on the command line")
    return parser.parse_args()


def spread(engine: str, environment: dict[str, str]) -> list[dict[str, Any]]:
    """What each rank of a run has to tell."""
    world = 1 if engine == "single" else read_arguments().processes
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, *sys.argv[1:], "--engine", engine, "--folder", folder]
        return hear_ranks(start_ranks(command, world, Path(folder), environment), Path(folder))


def measure(arguments: argparse.Namespace) -> None:
    """In a rank: trains, and writes down what it saw."""
    folder, rank = Path(arguments.folder), int(os.environ.get("RANK", "0"))
    world = os.environ.get("WORLD_SIZE", "1")
    steps = [f"trainer.max_steps={arguments.steps}", "trainer.log_every=1", "trainer.save_every=1000000"]
    chosen = [f"experiment={arguments.experiment}", f"distributed={arguments.engine}"]
    composed = compose([*chosen, f"distributed.num_processes={world}", *steps, *arguments.overrides])
    check(composed)
    section = composed.config["stages"][arguments.stage] | {"start_from": {}, "evaluation": {}}
    torch.set_num_threads(composed.config["trainer"]["threads"] or 1)
    before = 0 if torch.cuda.is_available() else mapped_now()
    stage = Stage(arguments.stage, section, open_run(composed.config, folder))
    journal = Losses()
    with Signals() as signals:
        trainer = stage.train(journal, signals)  # type: ignore[arg-type]
    trainer.micro_batches = []
    losses = journal.losses if rank == 0 else []
    told = {
        "losses": losses,
        "seconds": journal.seconds,
        "holds": bytes_held(),
        "peak": journal.peak - before,
        "with_saving": taken_at_most() - before,
    }
    tell(folder, told)
    os._exit(0)


class Losses:
    """In the place of a journal, to which the first rank alone reports."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.seconds: list[float] = []
        self.peak = 0
        self._since = time.perf_counter()

    def start_stage(self, name: str, first_step: int, max_steps: int) -> None:
        self._since = time.perf_counter()

    def training(self, name: str, step: int, averages: dict[str, float]) -> None:
        now = time.perf_counter()
        self.losses.append(averages["loss"])
        self.seconds.append(now - self._since)
        self.peak = taken_at_most()
        self._since = time.perf_counter()


def taken_at_most() -> int:
    """Bytes, of the device or, without one, of this process."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else mapped_at_most()


def bytes_held() -> int:
    """Of all tensors of this process that have memory: weights, moments and what engines keep, between two steps."""
    gc.collect()
    sizes = {}
    for thing in gc.get_objects():
        if isinstance(thing, torch.Tensor) and thing.device.type != "meta":
            local = thing.to_local() if hasattr(thing, "to_local") else thing
            sizes[local.untyped_storage().data_ptr()] = local.untyped_storage().nbytes()
    return sum(sizes.values())


if __name__ == "__main__":
    main()
