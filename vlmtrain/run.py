"""A run: its stages in order, each from where it was left, and then the telling of what was learned."""

import json
import logging
import os
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from vlmtrain.config.build import build
from vlmtrain.config.stored import hash_config, read_config
from vlmtrain.evaluation.base import SampleOutcome
from vlmtrain.journal import Journal
from vlmtrain.report.end_report import EndReport, render_end
from vlmtrain.report.sample_page import PageHeading
from vlmtrain.report.samples import write_samples
from vlmtrain.report.summary_json import RunSummary, StageSummary, find_git_revision, find_versions, write_summary
from vlmtrain.stage import RunContext, Stage
from vlmtrain.tracking.jsonl import write_atomically, write_numbers
from vlmtrain.training.kernels import apply_kernels, probe_kernels
from vlmtrain.training.signals import Signals
from vlmtrain.training.trainer import Trainer

logger = logging.getLogger(__name__)

RESULTS = "results"  # <run>/results/<stage>.json: the stage is done, and this is what came of it
KERNELS = "kernels.json"


@dataclass(frozen=True)
class StageResult:
    """What is kept of a finished stage, so that a later start need not build it again."""

    name: str
    steps: int
    samples: int
    seconds: float
    trainable_parameters: int
    total_parameters: int
    metrics: dict[str, float]  # of its last training row
    evaluation: dict[str, float] = field(default_factory=dict)


def train(folder: Path) -> None:
    """Trains what `folder`/config.yaml says, from wherever an earlier process left it."""
    config = read_config(folder)
    started = time.monotonic()
    _prepare_process(config, folder)
    run = _open_run(config, folder)
    journal = Journal(config, folder, Console())
    journal.start()
    results: list[StageResult] = []
    samples: list[SampleOutcome] = []
    with Signals() as signals:
        for name, section in config["stages"].items():
            done = _read_result(folder, name)
            result, outcomes = (done, []) if done else _run_stage(Stage(name, section, run), journal, signals)
            results.append(result)
            samples = outcomes or samples
    if journal.is_main_process:
        _write_summary(config, folder, results)
        _tell(config, folder, results, samples, journal, time.monotonic() - started)
    journal.finish()


def _prepare_process(config: dict[str, Any], folder: Path) -> None:
    """Threads and matmul path.  A resumed run takes the path that was found at its first start."""
    threads = next(iter(config["stages"].values()))["trainer"]["threads"]
    if threads is not None:
        torch.set_num_threads(threads)
    file = folder / "logs" / KERNELS
    if not file.exists():
        if os.environ.get("RANK", "0") == "0":
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, json.dumps(probe_kernels(), indent=2))
        while not file.exists():
            time.sleep(0.05)
    apply_kernels(json.loads(file.read_text()))


def _open_run(config: dict[str, Any], folder: Path) -> RunContext:
    data = build(config["data"])
    facts = {"config": hash_config(config), "data": data.train.fingerprint, "experiment": config["experiment"]}
    distributed = {key: config["distributed"][key] for key in ("strategy", "num_processes")}
    init_from = Path(config["init_from"]) if config["init_from"] else None
    return RunContext(folder, config["seed"], data, distributed, facts, init_from)


def _run_stage(stage: Stage, journal: Journal, signals: Signals) -> tuple[StageResult, list[SampleOutcome]]:
    trainer = stage.train(journal, signals)
    metrics: dict[str, float] = {}
    samples: list[SampleOutcome] = []
    if stage.accelerator.is_main_process:
        journal.say(f"evaluating {stage.name}")
        evaluated = stage.evaluate()
        metrics, samples = evaluated.metrics, evaluated.samples
        journal.evaluation(stage.name, trainer.progress.step, metrics)
    result = _result_of(stage, trainer, journal, metrics)
    if stage.accelerator.is_main_process:
        if samples:
            heading = PageHeading(title=f"{stage.name}", subtitle="", metrics={stage.name: metrics})
            journal.images(
                stage.name, trainer.progress.step, write_samples(stage.run.folder / "samples", samples, heading)
            )
        _write_result(stage.run.folder, result)
    stage.accelerator.wait_for_everyone()
    return result, samples


def _result_of(stage: Stage, trainer: Trainer, journal: Journal, evaluation: dict[str, float]) -> StageResult:
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in stage.model.parameters()]
    return StageResult(
        name=stage.name,
        steps=trainer.progress.step,
        samples=trainer.progress.samples,
        seconds=journal.seconds(stage.name),
        trainable_parameters=sum(count for count, trains in counts if trains),
        total_parameters=sum(count for count, _ in counts),
        metrics=dict(journal.last_metrics(stage.name)),
        evaluation=evaluation,
    )


def _read_result(folder: Path, name: str) -> StageResult | None:
    file = folder / RESULTS / f"{name}.json"
    return StageResult(**json.loads(file.read_text())) if file.exists() else None


def _write_result(folder: Path, result: StageResult) -> None:
    (folder / RESULTS).mkdir(exist_ok=True)
    plain = asdict(result)
    plain["metrics"], plain["evaluation"] = write_numbers(result.metrics), write_numbers(result.evaluation)
    write_atomically(folder / RESULTS / f"{result.name}.json", json.dumps(plain, indent=2) + "\n")


def _write_summary(config: dict[str, Any], folder: Path, results: list[StageResult]) -> None:
    """The last file of a run: it says that the run is finished."""
    seconds, samples = sum(result.seconds for result in results), sum(result.samples for result in results)
    summary = RunSummary(
        experiment=str(config["experiment"]),
        scale=config["scale"],
        state="done",
        stages=[_stage_summary(result) for result in results],
        metrics=results[-1].evaluation,
        trainable_parameters=results[-1].trainable_parameters,
        total_parameters=results[-1].total_parameters,
        seconds=seconds,
        samples_per_second=samples / max(seconds, 1e-9),
        peak_memory_bytes=peak_memory(),
        command=" ".join(sys.argv),
        seed=config["seed"],
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        num_processes=config["distributed"]["num_processes"],
        versions=find_versions(),
        git_revision=find_git_revision(),
    )
    write_summary(folder / "summary.json", summary)


def _tell(
    config: dict[str, Any],
    folder: Path,
    results: list[StageResult],
    samples: list[SampleOutcome],
    journal: Journal,
    seconds: float,
) -> None:
    metrics: dict[str, Mapping[str, float]] = {result.name: result.evaluation for result in results}
    places = [("samples", str(folder / "samples" / "index.html")), ("figures", str(folder / "summary.json"))]
    journal.show(render_end(EndReport(str(config["experiment"]), seconds, metrics, samples, places)))


def _stage_summary(result: StageResult) -> StageSummary:
    return StageSummary(
        name=result.name,
        steps=result.steps,
        samples=result.samples,
        seconds=result.seconds,
        samples_per_second=result.samples / max(result.seconds, 1e-9),
        metrics={**result.metrics, **result.evaluation},
        skipped_steps=int(result.metrics.get("skipped_steps", 0)),
    )


def peak_memory() -> int:
    """Bytes: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
