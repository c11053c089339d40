"""Do two runs come to the same end?  Weights, moments, samples, figures; not seconds."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file


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
    return {
        f"{file.name}/{name}": value for file in last.glob("*.safetensors") for name, value in load_file(file).items()
    }


def _samples(run: Path, stage: str) -> dict[int, list[list[str]]]:
    """Step -> ids; of a step that stands there twice the later line holds, a torn line does not count."""
    steps: dict[int, list[list[str]]] = {}
    for file in sorted((run / "logs" / stage).glob("samples-rank*.jsonl")):
        for line in file.read_text().splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            steps[entry["step"]] = entry["micro_batches"]
    return steps


def _figures(run: Path) -> list[object]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [[row["stage"], row["step"], row["kind"], row["metrics"]] for row in rows]
