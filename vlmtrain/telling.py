"""What a run tells at its start and at its end, put together from its configuration and its results."""

import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vlmtrain.config.build import build
from vlmtrain.config.location import conf_folder
from vlmtrain.config.overrides import typed_command
from vlmtrain.report.end_report import EndReport
from vlmtrain.report.sample_page import PageHeading
from vlmtrain.report.start_summary import DataLine, PartLine, StageLine, StartSummary
from vlmtrain.report.summary_json import RunSummary, StageSummary, find_git_revision, find_versions
from vlmtrain.results import StageResult
from vlmtrain.shapes import build_on_meta, estimate_stage
from vlmtrain.training.costs import list_part_costs
from vlmtrain.training.hand_over import EVERYTHING
from vlmtrain.training.precision import resolve_precision
from vlmtrain.training.sharing import Sharing

CAPTIONING = "vlmtrain.data.forms.captioning.Captioning"
OTHER_SCALES = {
    "tiny": "scale=small, scale=paper: they need data=pairs data.path=FOLDER",
    "small": "scale=tiny, scale=paper",
    "paper": "scale=tiny, scale=small",
}


def describe_start(config: dict[str, Any], folder: Path, data: dict[str, Any], done: list[str]) -> StartSummary:
    """What will be trained, from what, on what; models are only shapes here."""
    parts: dict[str, PartLine] = {}
    stages: list[StageLine] = []
    memory, processes = 0, config["distributed"]["num_processes"]
    engine = build(config["distributed"]["engine"])
    sharing = Sharing() if engine is None else engine.sharing(processes)
    for name, section in config["stages"].items():
        model = build_on_meta(section)
        costs = list_part_costs(model)
        memory = max(memory, estimate_stage(model, section, processes, sharing).total)
        for cost in costs:
            earlier = parts.get(cost.name)
            if earlier is None or earlier.trainable < cost.trainable:
                parts[cost.name] = PartLine(cost.name, cost.source, cost.parameters, cost.trainable, cost.precision)
        stages.append(_stage_line(name, section, costs, name in done))
    return StartSummary(
        experiment=str(config["experiment"]),
        scale=config["scale"],
        other_scales=OTHER_SCALES.get(config["scale"], "scale=tiny"),
        parts=list(parts.values()),
        stages=stages,
        data=_data_lines(data),
        device=name_device(),
        precision=resolve_precision(config["trainer"]["precision"]),
        run_folder=str(folder),
        memory_bytes=memory,
        seed=config["seed"],
    )


def describe_end(
    config: dict[str, Any], folder: Path, results: list[StageResult], shown: list[Path], seconds: float
) -> EndReport:
    """What was learned, where to look, what to type next."""
    name = config["experiment"]
    places = [("samples", str(path)) for path in shown]
    places += [("figures", str(folder / "summary.json")), ("every step", str(folder / "metrics.jsonl"))]
    longest = max(result.steps for result in results)
    commands = [("train longer", f"vlmtrain experiment={name} trainer.max_steps={2 * longest}")] if longest else []
    if all(section["form"]["_target_"] == CAPTIONING for section in config["stages"].values()):
        commands.append(("your own images", f"vlmtrain experiment={name} data=pairs data.path=FOLDER"))
    if (conf_folder() / "scale" / str(name) / "paper.yaml").is_file():
        commands.append(("the published size", f"vlmtrain plan experiment={name} scale=paper"))
    outcomes = [outcome for result in results for outcome in result.outcomes]
    return EndReport(str(name), seconds, metrics_by_stage(results), outcomes, places, commands)


def head_page(config: dict[str, Any], folder: Path, results: list[StageResult]) -> PageHeading:
    """What stands above the samples."""
    return PageHeading(
        title=f"vlmtrain · {config['experiment']}",
        subtitle=f"scale {config['scale']}, {sum(result.seconds for result in results):.0f} s of training",
        command=typed_command(),
        metrics=metrics_by_stage(results),
        footer=str(folder),
    )


def summarize(config: dict[str, Any], results: list[StageResult]) -> RunSummary:
    """What summary.json holds."""
    seconds, samples = sum(result.seconds for result in results), sum(result.samples for result in results)
    return RunSummary(
        experiment=str(config["experiment"]),
        scale=config["scale"],
        state="done",
        stages=[_stage_summary(result) for result in results],
        metrics={f"{result.name}/{key}": value for result in results for key, value in result.evaluation.items()},
        trainable_parameters=results[-1].trainable_parameters,
        total_parameters=results[-1].total_parameters,
        seconds=seconds,
        samples_per_second=samples / max(seconds, 1e-9),
        peak_memory_bytes=peak_memory(),
        command=typed_command(),
        seed=config["seed"],
        device=name_device(),
        num_processes=config["distributed"]["num_processes"],
        engine=name_engine(config["distributed"]),
        engine_reason=config["distributed"].get("reason"),
        versions=find_versions(),
        git_revision=find_git_revision(),
    )


def metrics_by_stage(results: list[StageResult]) -> dict[str, Mapping[str, float]]:
    return {result.name: result.evaluation for result in results}


def name_device() -> str:
    """`cpu, 2 threads` or the name of the GPU."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"cpu, {torch.get_num_threads()} threads"


def name_engine(distributed: dict[str, Any]) -> str | None:
    """The class of the engine; its options stand in config.yaml."""
    engine = distributed.get("engine")
    return None if engine is None else str(engine["_target_"]).rsplit(".", 1)[1]


def peak_memory() -> int:
    """Bytes: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _data_lines(data: dict[str, Any]) -> list[DataLine]:
    """The parts of every stage's data, each once."""
    lines: dict[str, DataLine] = {}
    for held in data.values():
        for part, source in {"train": held.train, **held.evaluation}.items():
            lines.setdefault(f"{part} {source.name}", DataLine(part, len(source), source.name))
    return list(lines.values())


def _stage_line(name: str, section: dict[str, Any], costs: list[Any], is_done: bool) -> StageLine:
    objective = section["objective"]
    origins = [
        f"{'all' if origin['part'] == EVERYTHING else origin['part']} of {origin['stage']}"
        for origin in (section["start_from"] or {}).values()
    ]
    return StageLine(
        name=name,
        objectives=list(objective.get("objectives") or [objective["_target_"].rsplit(".", 1)[1]]),
        trained_parts=[
            f"{part} (from step {rate['from_step']})" if isinstance(rate, dict) else part
            for part, rate in section["trainable"].items()
            if rate is not None
        ],
        steps=section["trainer"]["max_steps"],
        batch_size=section["trainer"]["batch_size"],
        trainable=sum(cost.trainable for cost in costs),
        parameters=sum(cost.parameters for cost in costs),
        start_from=", ".join(origins),
        state="done" if is_done else "",
    )


def _stage_summary(result: StageResult) -> StageSummary:
    return StageSummary(
        name=result.name,
        steps=result.steps,
        samples=result.samples,
        seconds=result.seconds,
        samples_per_second=result.samples / max(result.seconds, 1e-9),
        metrics={**result.metrics, **result.evaluation},
        skipped_steps=result.skipped_steps,
        truncated_texts=result.truncated_texts,
        quarantined=result.quarantined,
    )
