"""Measures how fast an experiment trains, started as a user starts it; see README.md beside this file."""

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from vlmtrain.report.summary_json import read_summary
from vlmtrain.tracking.jsonl import read_rows, write_atomically

logger = logging.getLogger("benchmarks.speed")

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = read_arguments()
    runs = [measure(arguments.experiment, arguments.steps, arguments.overrides) for _ in range(arguments.repeat)]
    report = {
        "experiment": arguments.experiment,
        "steps": arguments.steps,
        "overrides": arguments.overrides,
        "machine": {"system": platform.platform(), "processor": platform.processor(), "cores": os.cpu_count()},
        "versions": runs[0]["versions"],
        "git_revision": runs[0]["git_revision"],
        "wall_seconds": [run["wall_seconds"] for run in runs],
        "peak_memory_bytes": max(run["peak_memory_bytes"] for run in runs),
        "stages": summarize([run["stages"] for run in runs]),
    }
    for name, stage in report["stages"].items():
        logger.info(
            "%s: %.0f samples/s (%.0f to %.0f), %.1f %% waiting for data",
            name, stage["samples_per_second"], *stage["range"], 100 * stage["data_wait"],
        )  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{arguments.experiment}.json"
    write_atomically(file, json.dumps(report, indent=2) + "\n")
    logger.info("written to %s", file)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", default="blip2_opt")
    parser.add_argument("--steps", type=int, default=60, help="of every stage")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("overrides", nargs="*", help="more of the configuration, as on the command line")
    return parser.parse_args()


def measure(experiment: str, steps: int, overrides: list[str]) -> dict[str, Any]:
    """One run in a folder of its own, which is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="vlmtrain-speed-") as scratch:
        folder = Path(scratch) / "run"
        settings = [f"run_dir={folder}", f"trainer.max_steps={steps}", f"trainer.log_every={max(1, steps // 6)}"]
        command = [sys.executable, "-m", "vlmtrain.main", f"+experiment={experiment}", *settings, *overrides]
        started = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall_seconds = time.monotonic() - started
        summary = read_summary(folder / "summary.json")
        rows = [row for row in read_rows(folder / "metrics.jsonl") if row.kind == "train"]
    stages: dict[str, list[dict[str, float]]] = {}
    for row in rows:
        stages.setdefault(row.stage, []).append(dict(row.timing))
    return {
        "wall_seconds": round(wall_seconds, 2),
        "peak_memory_bytes": summary["peak_memory_bytes"],
        "versions": summary["versions"],
        "git_revision": summary["git_revision"],
        "stages": {name: timings[1:] or timings for name, timings in stages.items()},
    }


def summarize(runs: list[dict[str, list[dict[str, float]]]]) -> dict[str, dict[str, Any]]:
    """Median and range over all log intervals of all repeats, per stage."""
    summary = {}
    for name in runs[0]:
        timings = [timing for run in runs for timing in run[name]]
        speeds = [timing["samples_per_second"] for timing in timings]
        summary[name] = {
            "samples_per_second": median(speeds),
            "range": [min(speeds), max(speeds)],
            "data_wait": median(timing["data_wait"] for timing in timings),
        }
    return summary


if __name__ == "__main__":
    main()
