"""Trains experiments with their controls and puts their figures into docs/results.md.

    python scripts/results.py blip2_opt llava     # each, and its control; what is finished is not trained again
    python scripts/results.py                     # only writes the table anew, from docs/results.json

The control is the same run with `shuffle_images=true`: it trains on other samples' images and is evaluated on the right
ones, so that its figure is what text alone gives.  docs/results.json keeps what the table is made of.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from vlmtrain.report.highlights import highlight
from vlmtrain.report.summary_json import read_summary

ROOT = Path(__file__).resolve().parents[1]
KEPT, TABLE = ROOT / "docs" / "results.json", ROOT / "docs" / "results.md"
HEAD = """# Results

Experiments at `scale=tiny` on two CPU cores. The control is the same run trained on other samples' images
(`shuffle_images=true`) and evaluated on the right ones: what text alone gives. Seconds are those of training, all
stages; [results.json](results.json) has the commands and revisions. Figures are of one seed.
`python scripts/results.py NAME` trains both, unless runs/results/NAME holds them, and writes this page.

| experiment | trainable | steps | seconds | held-out figure | value | control |
| --- | --- | --- | --- | --- | --- | --- |
"""


def main() -> None:
    kept: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for name in sys.argv[1:]:
        run = _train(name, "run", [])
        kept[name] = _entry(run, _train(name, "control", ["shuffle_images=true"]))
        KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    TABLE.write_text(render(kept))


def render(kept: dict[str, Any]) -> str:
    """The page."""
    lines = []
    for name, entry in sorted(kept.items()):
        begin = [name, f"{entry['trainable_share']:.1%}", str(entry["steps"]), f"{entry['seconds']:.0f}"]
        for label, figure in entry["figures"].items():
            lines.append(" | ".join([*begin, label, figure["value"], figure["control"]]))
            begin = [""] * len(begin)
    return HEAD + "".join(f"| {line} |\n" for line in lines)


def _train(name: str, kind: str, overrides: list[str]) -> dict[str, Any]:
    folder = ROOT / "runs" / "results" / name / kind
    command = [sys.executable, "-m", "vlmtrain.main", f"+experiment={name}", f"run_dir={folder}", *overrides]
    if not (folder / "summary.json").is_file():
        subprocess.run(command, check=True, cwd=ROOT)
    return read_summary(folder / "summary.json")


def _entry(run: dict[str, Any], control: dict[str, Any]) -> dict[str, Any]:
    of_control = _figures(control)
    return {
        "commands": [run["command"], control["command"]],
        "git_revision": run["git_revision"],
        "trainable_share": run["trainable_parameters"] / run["total_parameters"],
        "steps": sum(stage["steps"] for stage in run["stages"]),
        "seconds": sum(stage["seconds"] for stage in run["stages"]),
        "figures": {
            label: {"value": value, "control": of_control.get(label, "")} for label, value in _figures(run).items()
        },
    }


def _figures(summary: dict[str, Any]) -> dict[str, str]:
    """Label -> value of the last stage's highlights."""
    stage = summary["stages"][-1]["name"]
    metrics = {
        name.removeprefix(f"{stage}/"): value for name, value in summary["metrics"].items() if name.startswith(stage)
    }
    return {each.label: each.value for each in highlight({stage: metrics})}


if __name__ == "__main__":
    main()
