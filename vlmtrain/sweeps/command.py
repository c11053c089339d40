"""`vlmtrain sweep` and `vlmtrain compare`."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from vlmtrain.config.overrides import Typed, typed_command
from vlmtrain.config.sweep import Sweep
from vlmtrain.launch.local import world_size
from vlmtrain.launch.run_folder import say
from vlmtrain.launch.status import UNCUT
from vlmtrain.launch.sweep_folder import DONE, PRUNED, SWEEP_FILE, SweepFolder, is_sweep
from vlmtrain.report.comparison import Comparison
from vlmtrain.report.comparison_page import render_comparison
from vlmtrain.report.comparison_table import describe_order, draw_comparison
from vlmtrain.sweeps.asked import Asked, compose_trial, read_typed, write_asked
from vlmtrain.sweeps.comparing import compare_runs, find_runs
from vlmtrain.sweeps.equal_arithmetic import settle_steps
from vlmtrain.sweeps.leaderboard import NAME, write_leaderboard
from vlmtrain.sweeps.plans import make_plan
from vlmtrain.sweeps.wandb_sweep import write_wandb


def sweep(typed: Typed) -> int:
    """Trains every trial that is not over, here or as a job array; gives the exit code."""
    if "fresh" in typed.switches:
        raise ValueError("--fresh means nothing to a sweep: give another folder with run_dir=, or move a trial's away")
    if world_size() > 1:
        raise ValueError("a sweep starts its trials itself: leave torchrun out, and type distributed.num_processes=N")
    at_once = _read_at_once(typed)
    asked = read_typed(typed)
    if "wandb-yaml" in typed.switches:
        sys.stdout.write(write_wandb(asked))
        return 0
    settled = _settle(asked)
    trials = make_plan(settled).num_trials
    folder = write_asked(asked, settled, trials)
    say(f"sweep {asked.name}: {trials} trials in {asked.folder}")
    launcher = importlib.import_module(f"vlmtrain.sweeps.{_kind(asked)}")
    code: int = launcher.launch(asked, settled, folder, at_once)
    comparison = write_leaderboard(folder)
    if comparison is not None:
        _show(comparison)
        over = sum(trial.state in (DONE, PRUNED) for trial in folder.trials())
        say(f"{over} of {trials} trials are over; {asked.folder / NAME}.html, .md and .json")
    return code


def compare(typed: Typed) -> int:
    """Shows what differs between the runs, and with --html FILE writes it as a page with curves.

    A folder with `=` in its name reads like an override, and is a run all the same.
    """
    words = [*typed.words, *typed.overrides]
    asked: dict[str, Any] = {}
    if len(words) == 1 and is_sweep(Path(words[0]).expanduser()):  # it says itself what is best
        asked = SweepFolder(Path(words[0]).expanduser()).read()["sweep"]
    by = typed.options.get("by", asked.get("metric"))
    comparison = compare_runs(find_runs(words), by, asked.get("direction") if by == asked.get("metric") else None)
    _show(comparison)
    if "html" in typed.options:
        file = Path(typed.options["html"]).expanduser()
        file.write_text(render_comparison(comparison, "vlmtrain compare", typed_command()), encoding="utf-8")
        say(f"written: {file}")
    return 0


def _settle(asked: Asked) -> Sweep:
    """Equal arithmetic where the sweep wants it; counted once, and kept in the folder."""
    file = asked.folder / SWEEP_FILE
    earlier: dict[str, Any] | None = json.loads(file.read_text(encoding="utf-8"))["sweep"] if file.is_file() else None

    def count(config: dict[str, Any]) -> dict[str, int]:
        counted: dict[str, int] = importlib.import_module("vlmtrain.launch.arithmetic").count_arithmetic(config)
        told = ", ".join(f"{stage} {arithmetic:.3g}" for stage, arithmetic in counted.items())
        say(f"arithmetic of a step, counted on a batch: {told}")
        return counted

    return settle_steps(asked.sweep, earlier, lambda overrides: compose_trial(overrides, asked.config_dirs), count)


def _kind(asked: Asked) -> str:
    """Where its trials run: that is the same for all."""
    kind: str = compose_trial(asked.example, asked.config_dirs)["launcher"]["kind"]
    return kind


def _read_at_once(typed: Typed) -> int | None:
    text = typed.options.get("at-once")
    if text is None:
        return None
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"--at-once {text}: how many trials at a time? Give a whole number from 1.")
    return int(text)


def _show(comparison: Comparison) -> None:
    console = Console(width=None if sys.stdout.isatty() else UNCUT, highlight=False)
    console.print(draw_comparison(comparison))
    console.print(describe_order(comparison), style="dim")
