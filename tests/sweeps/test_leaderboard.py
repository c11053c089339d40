"""The leaderboard in a sweep's folder, and what a page and a table make of a comparison."""

import json
from collections.abc import Callable
from pathlib import Path

from vlmtrain.launch.sweep_folder import SweepFolder
from vlmtrain.sweeps.leaderboard import write_leaderboard

MakeRun = Callable[..., Path]


def make_sweep(tmp_path: Path, metric: str | None = "s/test/loss") -> SweepFolder:
    sweep = SweepFolder(tmp_path / "sweep")
    sweep.write({"name": "mine", "num_trials": 3, "config_dirs": [], "sweep": {"metric": metric, "direction": None}})
    return sweep


def test_it_holds_every_trial(tmp_path: Path, make_run: MakeRun, mark_trial: Callable[..., object]) -> None:
    sweep = make_sweep(tmp_path)
    for number, (loss, done) in enumerate([(2.0, True), (1.0, True), (3.0, False)]):
        mark_trial(make_run(f"sweep/lr_{number}", [4.0, loss], float(number + 1), done=done), number)
    mark_trial(tmp_path / "sweep/lr_2", 2, outcome="failed", reason="killed <by> SIGKILL")
    assert write_leaderboard(sweep) is not None
    board = json.loads((sweep.folder / "leaderboard.json").read_text())
    assert [entry["name"] for entry in board["entries"]] == ["lr_1", "lr_0", "lr_2"]
    assert board["entries"][0]["metrics"]["s/test/loss"] == {"mean": 1.0, "standard_deviation": None, "values": [1.0]}
    assert (board["by"], board["best"], board["differs"]) == ("s/test/loss", "lowest", ["optimizer.lr"])
    lines = (sweep.folder / "leaderboard.md").read_text().splitlines()
    assert lines[4] == "| run | state | s/test/loss | optimizer.lr |"
    assert lines[6] == "| lr_1 | done | 1 | 2 |" and "failed: killed <by> SIGKILL" in lines[8]
    page = (sweep.folder / "leaderboard.html").read_text()
    assert "killed &lt;by&gt; SIGKILL" in page and "<by>" not in page


def test_a_metric_that_nobody_has_yet_is_no_reason_to_fail(
    tmp_path: Path, make_run: MakeRun, mark_trial: Callable[..., object]
) -> None:
    sweep = make_sweep(tmp_path, "s/test/nothing")
    assert write_leaderboard(sweep) is None
    mark_trial(make_run("sweep/a", [1.0]), 0)
    comparison = write_leaderboard(sweep)
    assert comparison is not None and comparison.by == "s/test/loss"
