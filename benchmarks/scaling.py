"""Weak scaling over processes and engines, measured here, and what a model of the step makes of it; see README.md.

    python benchmarks/scaling.py measure --experiment blip2_opt --engines ddp fsdp2 --processes 1 2 4 [OVERRIDES]
    python benchmarks/scaling.py paper    # blip2_opt at its published size on A100s, beside the published speed

`measure` trains every engine on every number of processes with equally many samples each, times a ring of the size
of the gradient and a few matrix products among as many processes (which share cores and caches), fits the model to one
process alone and holds it against the others.
"""

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import time
from statistics import median
from typing import Any

from speed import RESULTS, measure
from step_model import Machine, Work, predict

from vlmtrain.config.check import check
from vlmtrain.config.compose import compose
from vlmtrain.launch.arithmetic import count_arithmetic
from vlmtrain.shapes import build_on_meta
from vlmtrain.tracking.jsonl import write_atomically
from vlmtrain.training.costs import list_part_costs

logger = logging.getLogger("benchmarks.scaling")

FP32, BF16 = 4, 2
TOGETHER = """
import os, sys, time, torch, torch.distributed as dist
dist.init_process_group("gloo")
torch.set_num_threads(1)
for size in (int(sys.argv[1]), 4):
    value, times = torch.zeros(max(1, size // 4)), []
    for _ in range(12):
        dist.barrier()
        started = time.perf_counter()
        dist.all_reduce(value)
        times.append(time.perf_counter() - started)
    if dist.get_rank() == 0:
        print(sorted(times)[len(times) // 2])
x, times = torch.randn(1024, 128), []
for _ in range(100):
    dist.barrier()
    started = time.perf_counter()
    for _ in range(20):
        torch.nn.functional.gelu(x @ torch.ones(128, 512)) @ torch.ones(512, 128)
    dist.barrier()
    times.append(time.perf_counter() - started)
if dist.get_rank() == 0:
    print(sorted(times)[len(times) // 2])
dist.destroy_process_group()
"""
# One A100 as sold: 312 TFLOP/s in bf16, 600 GB/s of NVLink both ways, a 200 Gb/s adapter each (DGX A100).
PEAK, NVLINK, ADAPTER = 312e12, 300e9, 25e9
SHARES = (0.11, 0.2, 0.4)  # of the peak: what the published speed comes to, and what is reached today
PUBLISHED = {"representation": 50.6, "language": 29.3}  # samples a second and GPU on 16 A100, from the paper's days
PATCHES, QUERIES, WORDS = 257, 32, 32


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "paper"))
    parser.add_argument("--experiment", default="blip2_opt")
    parser.add_argument("--engines", nargs="+", default=["ddp"])
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--samples", type=int, default=16, help="of each process in a step")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--overrides", nargs="*", default=[], help="more of the configuration")
    arguments = parser.parse_args()
    report = paper() if arguments.what == "paper" else measure_all(arguments)
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-scaling-{arguments.what}.json"
    write_atomically(file, json.dumps(report, indent=2) + "\n")
    logger.info("written to %s", file)


def measure_all(arguments: argparse.Namespace) -> dict[str, Any]:
    """A row for each stage, engine and number of processes: measured and predicted seconds of a step."""
    config = _compose(arguments.experiment, [*arguments.overrides, f"trainer.batch_size={arguments.samples}"])
    arithmetic = count_arithmetic(config)
    works = {name: _work(stage, arguments.samples, arithmetic[name]) for name, stage in config["stages"].items()}
    alone = _run(arguments, "single", 1)
    size = max(work.gradient_bytes for work in works.values())
    together = {count: _together(size, count) for count in {1, *arguments.processes}}
    rows = []
    for engine in arguments.engines:
        for count in arguments.processes:
            measured = alone if count == 1 else _run(arguments, engine, count)
            for name, work in works.items():
                crowding = together[count]["arithmetic"] / together[1]["arithmetic"]
                machine = _this_machine(work, alone[name], crowding, together[count], count)
                told = predict(engine, work, machine, count)
                row = {"stage": name, "engine": engine, "processes": count, "measured": measured[name]}
                row |= {"predicted": told.seconds, "collectives": told.collectives / told.seconds}
                rows.append(row)
                logger.info(
                    "%s %s x%d: step %.3f s, predicted %.3f s, collectives %.0f %%",
                    *(name, engine, count, row["measured"], row["predicted"], 100 * row["collectives"]),
                )
    machine_facts = {"system": platform.platform(), "cores": os.cpu_count()}
    return {"command": sys.argv, "machine": machine_facts, "together": together, "rows": rows}


def paper() -> dict[str, Any]:
    """Samples a second and GPU of blip2_opt at its published size on 8 to 1024 A100s, by share of the peak."""
    config = _compose("blip2_opt", ["scale=paper"])
    rows = []
    for name, stage in config["stages"].items():
        work = published_work(name, stage, stage["trainer"]["batch_size"] // 16)
        for share in SHARES:
            machine = Machine(share * PEAK, NVLINK, ADAPTER, latency=10e-6, per_node=16)
            for count in (8, 16, 64, 256, 1024):
                speed = work.samples / predict("ddp", work, machine, count, overlap=2 / 3).seconds
                rows.append({"stage": name, "share_of_peak": share, "gpus": count, "samples_per_second_and_gpu": speed})
            told = ", ".join(f"{row['gpus']}: {row['samples_per_second_and_gpu']:.1f}" for row in rows[-5:])
            logger.info("%s at %.0f %% of the peak, samples/s and GPU: %s", name, 100 * share, told)
        logger.info("%s as published, on 16: %.1f", name, PUBLISHED[name])
    return {"published": PUBLISHED, "rows": rows}


def published_work(name: str, stage: dict[str, Any], samples: int) -> Work:
    """Arithmetic from parameters and positions: 2 operations a parameter forward, 4 more backward where it trains, 2
    where gradient only passes."""
    parts = {part.name: part for part in list_part_costs(build_on_meta(stage))}
    trained = sum(part.trainable for part in parts.values())
    weights = sum(part.parameters for part in parts.values())
    flops = 2.0 * parts["encoder"].parameters * PATCHES
    if name == "representation":
        positions = QUERIES + WORDS + 3 * (QUERIES + WORDS) + WORDS  # contrast, three judged pairs, captions
        flops += 6.0 * parts["qformer"].parameters * positions
    else:
        flops += 6.0 * parts["connector"].parameters * QUERIES
        flops += 4.0 * parts["language_model"].parameters * (QUERIES + WORDS)
    return Work(samples, flops, FP32 * trained, BF16 * weights)


def _compose(experiment: str, overrides: list[str]) -> dict[str, Any]:
    composed = compose([f"experiment={experiment}", *overrides])
    check(composed)
    return composed.config


def _work(stage: dict[str, Any], samples: int, flops: int) -> Work:
    parts = list_part_costs(build_on_meta(stage))
    trained = sum(part.trainable for part in parts)
    return Work(samples, flops / samples, FP32 * trained, FP32 * sum(part.parameters for part in parts))


def _run(arguments: argparse.Namespace, engine: str, count: int) -> dict[str, float]:
    """Stage -> seconds of a step."""
    batch = arguments.samples * count
    chosen = [f"distributed={engine}"] + ([f"distributed.num_processes={count}"] if count > 1 else [])
    threads = ["trainer.threads=1", f"trainer.batch_size={batch}"]
    stages = measure(arguments.experiment, arguments.steps, [*arguments.overrides, *chosen, *threads])["stages"]
    return {
        name: batch / median(timing["samples_per_second"] for timing in timings) for name, timings in stages.items()
    }


def _together(size: float, count: int) -> dict[str, float]:
    """What `count` processes get here: bytes a second and seconds a hop of a gloo ring, seconds of some arithmetic."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(count), "--no-python"]
    printed = subprocess.run(
        [*command, sys.executable, "-c", TOGETHER, str(int(size))],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ).stdout.split()
    whole, small, arithmetic = map(float, printed)
    if count == 1:
        return {"link": float("inf"), "latency": 0.0, "arithmetic": arithmetic}
    passes = 2  # an all-reduce is a reduction and a gathering
    return {
        "link": passes * (count - 1) / count * size / max(whole - small, 1e-9),
        "latency": small / passes / (count - 1),
        "arithmetic": arithmetic,
    }


def _this_machine(work: Work, seconds_alone: float, crowding: float, ring: dict[str, float], count: int) -> Machine:
    rate = work.samples * work.flops_per_sample / seconds_alone
    return Machine(rate, ring["link"], ring["link"], ring["latency"], per_node=count, crowding=crowding)


if __name__ == "__main__":
    main()
