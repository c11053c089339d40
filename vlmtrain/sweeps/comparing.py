"""Run folders -> what differs between them, in configuration and in outcome; runs of several seeds are one entry."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmtrain.config.stored import CONFIG_FILE, flatten, read_config, tells_apart
from vlmtrain.config.sweep import HIGHEST, LOWEST
from vlmtrain.config.sweep_values import SEPARATOR
from vlmtrain.launch.run_folder import FINISHED_FILE, is_finished
from vlmtrain.launch.sweep_folder import is_sweep, read_trial, runs_of
from vlmtrain.report.comparison import Comparison, Curve, Entry, Spread
from vlmtrain.report.highlights import headline_names
from vlmtrain.report.summary_json import read_summary
from vlmtrain.sweeps.history import best_is
from vlmtrain.tracking.jsonl import read_numbers, read_rows
from vlmtrain.training.run_lock import who_holds

SEED, LOSS, ABSENT = "seed", "loss", "(absent)"


@dataclass(frozen=True)
class RunFacts:
    """What is read of one run."""

    name: str
    folder: Path
    config: Mapping[str, Any]  # flat; what tells runs apart, without the seed
    seed: int
    state: str
    reason: str
    metrics: Mapping[str, float]
    curves: Mapping[str, Curve]
    last_stage: str


def find_runs(words: list[str]) -> list[Path]:
    """The runs that are named: themselves, the trials of a sweep, or the runs in a folder."""
    found: list[Path] = []
    for word in words:
        folder = Path(word).expanduser()
        if (folder / CONFIG_FILE).is_file():
            found.append(folder.resolve())
        elif is_sweep(folder):
            found += [run.resolve() for run in runs_of(folder)]
        else:
            found += sorted(file.parent.resolve() for file in folder.glob(f"*/{CONFIG_FILE}"))
    runs = list(dict.fromkeys(found))
    if not runs:
        raise ValueError(f"there is no run in {', '.join(words) or 'nothing'}: vlmtrain compare RUN RUN, or a sweep")
    return runs


def compare_runs(folders: Sequence[Path], by: str | None = None, direction: str | None = None) -> Comparison:
    """Best first by the metric `by`; without one by the first headline figure of the last stage."""
    runs = [read_run(folder) for folder in folders]
    headline = headline_names([name for run in runs for name in run.metrics], runs[-1].last_stage)
    known = list(dict.fromkeys(name for run in runs for name in run.metrics))
    if by is not None and known and by not in known:
        raise ValueError(f"no run has {by} yet; there are {', '.join(known[:30])}.")
    by = by or (headline[0] if headline else None)
    best = best_is(by, direction) if by else HIGHEST
    keys = _differing_keys([run.config for run in runs])
    groups: dict[str, list[RunFacts]] = {}
    for run in runs:
        groups.setdefault(repr(sorted(run.config.items())), []).append(run)
    entries = [_entry(group, keys) for group in groups.values()]
    if by is not None:
        entries = _order(entries, by, best)
    return Comparison(entries, keys, list(dict.fromkeys([*([by] if by in known else []), *headline])), by, best)


def read_run(folder: Path) -> RunFacts:
    """A run as it stands, finished or not."""
    config = read_config(folder)
    stages = list(config["stages"])
    flat = {key: value for key, value in flatten(config).items() if tells_apart(key)}
    seed = flat.pop(SEED)
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in read_rows(folder / "metrics.jsonl"):
        names = row.metrics if row.kind == "evaluation" else [LOSS] if LOSS in row.metrics else []
        for name in names:
            curves.setdefault(f"{row.stage}/{name}", []).append((row.step, row.metrics[name]))
    metrics = {name: curve[-1][1] for name, curve in curves.items()}
    if is_finished(folder):
        metrics |= read_numbers(read_summary(folder / FINISHED_FILE)["metrics"])
    state, reason = _state(folder)
    return RunFacts(folder.name, folder, flat, seed, state, reason, metrics, curves, stages[-1])


def _state(folder: Path) -> tuple[str, str]:
    trial = read_trial(folder)
    if trial is not None:
        return trial.state, trial.reason
    return ("done" if is_finished(folder) else "running" if who_holds(folder) else "stopped"), ""


def _differing_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys with more than one value; of those that always differ alike (a stage's copy of a shared section), one."""
    keys = dict.fromkeys(key for config in configs for key in config)
    found: dict[str, str] = {}
    for key in sorted(keys, key=lambda key: (key.count("."), key)):
        values = [repr(config.get(key, ABSENT)) for config in configs]
        if len(set(values)) > 1:
            found.setdefault(repr(values), key)
    return list(found.values())


def _entry(group: list[RunFacts], keys: Sequence[str]) -> Entry:
    done = [run for run in group if run.state == "done"] or group
    names = list(dict.fromkeys(name for run in done for name in run.metrics))
    metrics = {name: Spread([run.metrics[name] for run in done if name in run.metrics]) for name in names}
    curves = {name: [run.curves[name] for run in group if name in run.curves] for run in group for name in run.curves}
    return Entry(
        name=_shared_name([run.name for run in group]),
        settings={key: group[0].config.get(key, ABSENT) for key in keys},
        states=[run.state for run in group],
        seeds=[run.seed for run in group],
        metrics=metrics,
        curves=curves,
        folders=[str(run.folder) for run in group],
        reason="; ".join(dict.fromkeys(run.reason for run in group if run.reason)),
    )


def _shared_name(names: list[str]) -> str:
    """What the names of a group have in common: `lr_0.001` of `lr_0.001__seed_0` and `lr_0.001__seed_1`."""
    parts = [name.split(SEPARATOR) for name in names]
    shared = [part for part in parts[0] if all(part in other for other in parts)]
    return SEPARATOR.join(shared) or f"{names[0]} and {len(names) - 1} more"


def _order(entries: list[Entry], by: str, best: str) -> list[Entry]:
    """Finished ones first, the best of them on top; what has no number is never best."""

    def place(entry: Entry) -> tuple[bool, bool, float]:
        value = entry.metrics[by].mean if by in entry.metrics else math.nan
        if math.isnan(value):
            return not entry.is_done, True, 0.0
        return not entry.is_done, False, value if best == LOWEST else -value

    return sorted(entries, key=place)
