"""Do two runs come to the same end?  Weights, moments, samples, figures; not seconds."""

import json
from pathlib import Path
from typing import Any

import torch

from vlmtrain.training.saved import groups_of, read_group


def compare(reference: Path, folder: Path) -> list[str]:
    """What differs between two finished runs, seconds apart."""
    differences = []
    for stage in sorted(path.name for path in (reference / "checkpoints").iterdir()):
        wanted, got = (_last_tensors(run / "checkpoints" / stage) for run in (reference, folder))
        if wanted.keys() != got.keys():
            differences.append(f"{stage}: other tensors")
            continue
        differences += [f"{stage}: {name}" for name in wanted if not torch.equal(wanted[name], got[name])]
        if _samples(reference, stage) != _samples(folder, stage):
            differences.append(f"{stage}: sample log")
    if _figures(reference) != _figures(folder):
        differences.append("metrics.jsonl")
    return differences


def _last_tensors(checkpoints: Path) -> dict[str, torch.Tensor]:
    last = max(path for path in checkpoints.iterdir() if path.name.startswith("step-"))
    groups = {group: read_group(last, group) for group in groups_of(last)}
    return {f"{group}/{name}": value for group, tensors in groups.items() for name, value in tensors.items()}


def samples_by_step(run: Path, stage: str, batch_size: int) -> dict[int, list[str]]:
    """Step -> ids of the whole batch, sorted, also where the number of ranks changed on the way.

    A step that was taken again by fewer ranks leaves lines of the others behind; rank 0's share says how many counted.
    """
    by_rank = _samples(run, stage)
    steps = {}
    for step, own in by_rank[0].items():
        ranks = batch_size // sum(map(len, own))
        ids = [name for rank in range(ranks) for part in by_rank[rank][step] for name in part]
        steps[step] = sorted(ids)
    return steps


def _samples(run: Path, stage: str) -> list[dict[int, list[list[str]]]]:
    """For each rank, step -> ids; of a step that stands there twice the later line holds; torn lines do not count."""
    files = sorted((run / "logs" / stage).glob("samples-rank*.jsonl"), key=lambda file: (len(file.name), file.name))
    return [_lines_by_step(file) for file in files]


def _lines_by_step(file: Path) -> dict[int, list[list[str]]]:
    steps: dict[int, list[list[str]]] = {}
    for line in file.read_text().splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        steps[entry["step"]] = entry["micro_batches"]
    return steps


def closeness(reference: Path, folder: Path, stage: str) -> tuple[float, float]:
    """Largest differences of a loss in metrics.jsonl and of a weight in the last checkpoint."""
    losses = [{row[1]: row[3]["loss"] for row in _figures(run) if row[2] == "train"} for run in (reference, folder)]
    weights = [_last_tensors(run / "checkpoints" / stage) for run in (reference, folder)]
    trained = [name for name in weights[0] if not name.startswith("optimizer")]
    return (
        max(abs(losses[0][step] - losses[1][step]) for step in losses[0]),
        max(float((weights[0][name] - weights[1][name]).abs().max()) for name in trained),
    )


def _figures(run: Path) -> list[list[Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [[row["stage"], row["step"], row["kind"], row["metrics"]] for row in rows]
