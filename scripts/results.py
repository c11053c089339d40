"""Trains experiments with their controls, or the settings of a sweep, and puts their figures into docs/results.md.

    python scripts/results.py blip2_opt llava     # each, and its control; what is finished is not trained again
    python scripts/results.py --sweep connectors  # every setting of conf/sweep/connectors.yaml, one after the other
    python scripts/results.py --without-control git # only the run; its control stays to be done
    python scripts/results.py --control-of git    # only the control, beside the figures that docs/results.json has
    python scripts/results.py                     # only writes the tables anew, from what docs/*.json keep

The control is the same run with `shuffle_images=true`: it trains on other samples' images and is evaluated on the right
ones, so that its figure is what text alone gives.  The two json files keep what the tables are made of.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from vlmtrain.config.check import check
from vlmtrain.config.compose import compose
from vlmtrain.config.overrides import read_arguments
from vlmtrain.config.sweep import read_sweep
from vlmtrain.launch.arithmetic import count_arithmetic
from vlmtrain.report.highlights import Highlight, highlight
from vlmtrain.report.start_summary import format_count
from vlmtrain.report.summary_json import read_summary
from vlmtrain.sweeps.equal_arithmetic import equal_arithmetic

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "runs" / "results"
KEPT, KEPT_SWEEPS, TABLE = (ROOT / "docs" / name for name in ("results.json", "sweeps.json", "results.md"))
SPEEDS, DATE = ROOT / "benchmarks" / "results", "????-??-??_??-??-??"
HEAD = """# Results

Experiments at `scale=tiny` on two CPU cores. The control is the same run trained on other samples' images
(`shuffle_images=true`) and evaluated on the right ones: what text alone gives. Seconds are those of training, all
stages; [results.json](results.json) has the commands and revisions. Figures are of one seed. Runs with
`trainer.threads=1` shared the machine with others: their seconds are no measure of speed. "Alone" is what the steps of
today's configuration take where nothing else runs, told from some 20 of them (`python benchmarks/speed.py`).
`python scripts/results.py NAME` trains both, unless runs/results/NAME holds them, and writes this page.

| experiment | trainable | steps | seconds | alone | held-out figure | value | control | beside it, of the same run |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""
NOT_RUN = "not run"
SWEEP_HEAD = """
## {name}

One experiment in several settings, `conf/sweep/{name}.yaml`; [sweeps.json](sweeps.json) has the commands. Arithmetic is
what training takes in matrix products and convolutions, in floating-point operations counted on a batch.
`python scripts/results.py --sweep {name}` trains what runs/results/sweep_{name} does not hold yet.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT")
    parser.add_argument("--without-control", action="store_true", help="train no control; take one that is there")
    parser.add_argument("--control-of", action="append", default=[], metavar="EXPERIMENT")
    parser.add_argument("--sweep", action="append", default=[], metavar="SWEEP")
    arguments = parser.parse_args()
    kept, sweeps = _read(KEPT), _read(KEPT_SWEEPS)
    for name in arguments.experiments:
        chosen = [f"experiment={name}"]
        run, control = _train(RUNS / name / "run", chosen), None
        if not arguments.without_control or (RUNS / name / "control" / "summary.json").is_file():
            control = _train(RUNS / name / "control", [*chosen, "shuffle_images=true"])
        kept[name] = _with_control(run, control)
        _write(KEPT, kept)
    for name in arguments.control_of:
        if name not in kept:
            raise ValueError(
                f"{KEPT} has no figures of {name} to put a control beside: python scripts/results.py {name}"
            )
        _add_control(kept[name], _train(RUNS / name / "control", [f"experiment={name}", "shuffle_images=true"]))
        _write(KEPT, kept)
    for name in arguments.sweep:
        sweep, entries = read_sweep(name), sweeps.setdefault(name, {})
        for setting, (overrides, arithmetic) in equal_arithmetic(sweep, _compose, count_arithmetic).items():
            run = _train(RUNS / f"sweep_{name}" / setting, overrides)
            entries[setting] = {**_entry(run), "arithmetic": arithmetic, "figures": _figures(run)}
            _write(KEPT_SWEEPS, sweeps)
    TABLE.write_text(render(kept) + "".join(render_sweep(name, entries) for name, entries in sorted(sweeps.items())))


def render(kept: dict[str, Any]) -> str:
    """The page, and the table of experiments."""
    lines = []
    for name, entry in sorted(kept.items()):
        begin = [name, f"{entry['trainable_share']:.1%}", str(entry["steps"]), f"{entry['seconds']:.0f}"]
        begin.append(_seconds_alone(name))
        for label, figure in entry["figures"].items():
            lines.append(" | ".join([*begin, label, figure["value"], figure["control"], figure.get("note", "")]))
            begin = [""] * len(begin)
    return HEAD + "".join(f"| {line} |\n" for line in lines)


def render_sweep(name: str, entries: dict[str, Any]) -> str:
    """The table of a sweep, as far as it has been run: a row for each setting, a column for each figure."""
    labels = sorted({label for entry in entries.values() for label in entry["figures"]})
    rows = [["setting", "parameters", "trained", "steps", "arithmetic", "seconds", *labels]]
    rows.append(["---"] * len(rows[0]))
    for setting, entry in sorted(entries.items()):
        counts = [format_count(entry[key]) for key in ("parameters", "trainable_parameters")]
        amounts = [str(entry["steps"]), f"{entry['arithmetic']:.2e}", f"{entry['seconds']:.0f}"]
        rows.append([setting, *counts, *amounts, *(entry["figures"].get(label, "") for label in labels)])
    return SWEEP_HEAD.format(name=name) + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _seconds_alone(name: str) -> str:
    """Of training, all stages, by the newest measurement of speed; empty where there is none of today's stages."""
    trainers = {stage: config["trainer"] for stage, config in _compose([f"experiment={name}"])["stages"].items()}
    reports = [json.loads(file.read_text()) for file in sorted(SPEEDS.glob(f"{DATE}-{name}.json"))]
    as_it_is = [report for report in reports if not report["overrides"] and report["stages"].keys() == trainers.keys()]
    if not as_it_is:
        return ""
    speeds = as_it_is[-1]["stages"]
    seconds = [
        trainers[stage]["max_steps"] * trainers[stage]["batch_size"] / speed["samples_per_second"]
        for stage, speed in speeds.items()
    ]
    return f"{sum(seconds):.0f}"


def _compose(overrides: list[str]) -> dict[str, Any]:
    composed = compose(read_arguments(overrides, []).overrides)
    check(composed)
    return composed.config


def _train(folder: Path, overrides: list[str]) -> dict[str, Any]:
    first, *others = overrides
    command = [sys.executable, "-m", "vlmtrain.main", f"+{first}", f"run_dir={folder}", *others]
    if not (folder / "summary.json").is_file():
        subprocess.run(command, check=True, cwd=ROOT)
    return read_summary(folder / "summary.json")


def _with_control(run: dict[str, Any], control: dict[str, Any] | None) -> dict[str, Any]:
    of_control = {} if control is None else _figures(control)
    entry = _entry(run)
    return {
        "commands": [entry["command"]] + ([] if control is None else [control["command"]]),
        "git_revision": entry["git_revision"],
        "trainable_share": entry["trainable_parameters"] / entry["parameters"],
        "steps": entry["steps"],
        "seconds": entry["seconds"],
        "figures": {
            each.label: {"value": each.value, "control": of_control.get(each.label, NOT_RUN), "note": each.note}
            for each in _highlights(run)
        },
    }


def _add_control(entry: dict[str, Any], control: dict[str, Any]) -> None:
    of_control = _figures(control)
    entry["commands"] = [entry["commands"][0], control["command"]]
    entry["git_revision_of_control"] = control["git_revision"]
    for label, figure in entry["figures"].items():
        figure["control"] = of_control.get(label, NOT_RUN)


def _entry(run: dict[str, Any]) -> dict[str, Any]:
    """What is kept of any run."""
    return {
        "command": run["command"],
        "git_revision": run["git_revision"],
        "parameters": run["total_parameters"],
        "trainable_parameters": run["trainable_parameters"],
        "steps": sum(stage["steps"] for stage in run["stages"]),
        "seconds": sum(stage["seconds"] for stage in run["stages"]),
    }


def _figures(summary: dict[str, Any]) -> dict[str, str]:
    """Label -> value."""
    return {each.label: each.value for each in _highlights(summary)}


def _highlights(summary: dict[str, Any]) -> list[Highlight]:
    """Those of the last stage."""
    stage = summary["stages"][-1]["name"]
    metrics = {
        name.removeprefix(f"{stage}/"): value for name, value in summary["metrics"].items() if name.startswith(stage)
    }
    return highlight({stage: metrics})


def _read(file: Path) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return kept


def _write(file: Path, kept: dict[str, Any]) -> None:
    file.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n")


if __name__ == "__main__":
    main()
