"""A run: its stages in order, each from where it was left, and then the telling of what was learned."""

import json
import os
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from vlmtrain.config.build import build
from vlmtrain.config.embedded import resolve_source
from vlmtrain.config.stored import flatten, hash_config, read_config
from vlmtrain.data.local_copy import with_local_copies
from vlmtrain.data.order import sample_positions
from vlmtrain.data.shuffled_images import ShuffledImages
from vlmtrain.evaluation.base import EvaluationResult
from vlmtrain.journal import Journal
from vlmtrain.report.end_report import render_end
from vlmtrain.report.samples import write_samples
from vlmtrain.report.start_summary import render_start
from vlmtrain.report.summary_json import write_summary
from vlmtrain.results import StageResult, read_result, write_result
from vlmtrain.stage import RunContext, Stage
from vlmtrain.telling import describe_end, describe_start, head_page, summarize
from vlmtrain.tracking.jsonl import write_atomically
from vlmtrain.training.agreement import facts_of_this_process
from vlmtrain.training.collectives import count_collectives
from vlmtrain.training.kernels import apply_kernels, probe_kernels
from vlmtrain.training.signals import Signals
from vlmtrain.training.state import Progress
from vlmtrain.training.watchdog import Patience, Watch, Watchdog

KERNELS = "kernels.json"
SECONDS_FOR_A_FILE = 120.0  # until what one rank has written is seen by another


def train(folder: Path, last_stage: str | None = None) -> None:
    """Trains what `folder`/config.yaml says, from wherever an earlier process left it; no further than `last_stage`."""
    config = read_config(folder)
    _prepare_process(config, folder)
    with _watched(config["distributed"], folder) as watch:
        _train(config, folder, watch, last_stage)


def _train(config: dict[str, Any], folder: Path, watch: Watch, last_stage: str | None) -> None:
    started = time.monotonic()
    run = replace(open_run(config, folder), watch=watch, start=facts_of_this_process(flatten(config)))
    journal = Journal(config, folder, Console())
    done = {name: result for name in config["stages"] if (result := read_result(folder, name)) is not None}
    for name, result in done.items():
        result.check_data(folder, run.data[name].train.fingerprint)
    if journal.is_main_process:
        journal.show(render_start(describe_start(config, folder, run.data, list(done))))
    journal.start()
    with Signals() as signals:
        for name, section in config["stages"].items():
            if name not in done:
                watch.start_stage(name)
                done[name] = _run_stage(Stage(name, section, run), journal, signals)
            if name == last_stage:
                break
    watch.enter("end")
    if len(done) < len(config["stages"]):
        journal.say(f"stage {last_stage} is done; the next ones are jobs of their own")
    elif journal.is_main_process:
        _tell(config, folder, [done[name] for name in config["stages"]], journal, time.monotonic() - started)
    journal.finish()


def _watched(settings: dict[str, Any], folder: Path) -> AbstractContextManager[Watch]:
    """Who sees to it that this rank goes on."""
    if settings["hang_seconds"] is None:
        return nullcontext(Watch())
    patience = Patience(settings["hang_seconds"], settings["hang_factor"], settings["hang_limits"])
    rank, ranks = int(os.environ.get("RANK", "0")), settings["num_processes"]
    return Watchdog(folder / "logs" / "ranks", rank, ranks, patience, count_collectives, torch.get_num_threads())


def _prepare_process(config: dict[str, Any], folder: Path) -> None:
    """Threads and matmul path.  A resumed run takes the path that was found at its first start."""
    threads = config["trainer"]["threads"]
    if threads is not None:
        torch.set_num_threads(threads)
    file = folder / "logs" / KERNELS
    if not file.exists() and os.environ.get("RANK", "0") == "0":
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(probe_kernels(), indent=2))
    deadline = time.monotonic() + SECONDS_FOR_A_FILE
    while not file.exists():
        if time.monotonic() > deadline:
            raise ValueError(f"{file} has not come from rank 0: do all machines see this folder?")
        time.sleep(0.05)
    apply_kernels(json.loads(file.read_text()))


def open_run(config: dict[str, Any], folder: Path) -> RunContext:
    opened: dict[str, Any] = {}  # stages on the same data share one index
    data = {}
    for name, section in config["stages"].items():
        node = section["data"] or config["data"]
        written = json.dumps(node, sort_keys=True)
        if written not in opened:
            opened[written] = _open_data(node, config)
        data[name] = opened[written]
    for name, section in config["stages"].items():  # a batch larger than the data is told now, not stages later
        sample_positions(0, section["trainer"]["batch_size"], len(data[name].train), 0, data[name].together)
    facts = {"config": hash_config(config), "experiment": config["experiment"]}
    init_from = Path(resolve_source(config["init_from"])) if config["init_from"] else None
    return RunContext(folder, config["seed"], data, config["distributed"], facts, init_from)


def _open_data(node: dict[str, Any], config: dict[str, Any]) -> Any:
    launcher = config["launcher"]
    if launcher.get("local_cache") is not None:  # a run may be older than the key
        node = with_local_copies(node, Path(launcher["local_cache"]), launcher["cached"])
    data = build(node)
    if config["shuffle_images"]:
        data.train = ShuffledImages(data.train)
    return data


def _run_stage(stage: Stage, journal: Journal, signals: Signals) -> StageResult:
    progress = stage.train(journal, signals).progress if stage.max_steps else Progress()
    stage.run.watch.enter("evaluation", progress.step)
    journal.say(f"evaluating {stage.name}")
    evaluated = stage.evaluate()
    if stage.accelerator.is_main_process:
        journal.evaluation(stage.name, progress.step, evaluated.metrics)
    result = _result_of(stage, progress, journal, evaluated)
    if stage.accelerator.is_main_process:
        write_result(stage.run.folder, result)
    stage.accelerator.wait_for_everyone()
    return result


def _result_of(stage: Stage, progress: Progress, journal: Journal, evaluated: EvaluationResult) -> StageResult:
    return StageResult(
        name=stage.name,
        steps=progress.step,
        samples=progress.samples,
        seconds=journal.seconds(stage.name),
        trainable_parameters=stage.trainable_parameters,
        total_parameters=stage.total_parameters,
        metrics=dict(journal.last_metrics(stage.name)),
        evaluation=evaluated.metrics,
        skipped_steps=journal.skipped_steps(stage.name),
        truncated_texts=journal.truncated_texts(stage.name),
        quarantined=stage.count_quarantined(),
        data=stage.data.train.fingerprint,
        outcomes=evaluated.samples,
    )


def _tell(config: dict[str, Any], folder: Path, results: list[StageResult], journal: Journal, seconds: float) -> None:
    """Samples, the report on the screen, and summary.json, which says that the run is finished."""
    outcomes = [outcome for result in results for outcome in result.outcomes]
    shown: list[Path] = []
    if outcomes:
        shown = list(write_samples(folder / "samples", outcomes, head_page(config, folder, results)))
        journal.images(results[-1].name, results[-1].steps, shown)
    journal.show(render_end(describe_end(config, folder, results, shown, seconds)))
    write_summary(folder / "summary.json", summarize(config, results))
