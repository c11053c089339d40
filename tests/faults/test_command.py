"""`vlmtrain faults`: options, verdicts, score, table; two rows for real, and the smoke tier by hand."""

import json
import os
import re
from pathlib import Path

import pytest

from vlmtrain.config.faults import ConfigError
from vlmtrain.faults.bench import Bench, Loud, Silent
from vlmtrain.faults.command import BEGIN, END, faults, find_rows, try_row, with_table
from vlmtrain.faults.injection import PERMISSION, VARIABLE, Injection, arm
from vlmtrain.faults.row import Case, Outcome, Row, score
from vlmtrain.main import main
from vlmtrain.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]


def test_rows_are_those_of_the_matrix_that_concern_processes() -> None:
    rows = find_rows()
    assert [row.id for row in rows] == [
        f"F{number:02d}" for number in (1, 2, *range(6, 11), 22, 24, 27, 28, *range(32, 38))
    ]
    assert len({row.cases for row in rows}) == len(rows) and all(row.weight for row in rows)


def made_of(*raised: Exception | None) -> Row:
    def attempt(error: Exception | None) -> None:
        if error is not None:
            raise error

    return Row("F99", 2, "", "", lambda bench: [Case(str(n), lambda e=e: attempt(e)) for n, e in enumerate(raised)])


@pytest.mark.parametrize(
    ("raised", "verdict", "points"),
    [
        ((None, None), "PASS", 1.0),
        ((None, Loud("told")), "LOUD", 0.5),
        ((None, AssertionError("no")), "FLAKY", 0.0),
        ((AssertionError("no"),), "FAIL", 0.0),
        ((Loud("told"), AssertionError("no")), "FAIL", 0.0),
        ((None, Silent("wrong"), Loud("told")), "SILENT", 0.0),
    ],
)
def test_a_row_is_as_good_as_its_worst_try(
    raised: tuple[Exception | None, ...], verdict: str, points: float, tmp_path: Path
) -> None:
    outcome = try_row(made_of(*raised), Bench(tmp_path, 0, False))
    assert (outcome.verdict, outcome.points, outcome.total) == (verdict, points, len(raised))
    assert outcome.line().startswith(f"F99 {verdict} {raised.count(None)}/{len(raised)} (")


def test_a_reference_that_fails_fails_the_row(tmp_path: Path) -> None:
    def cases(bench: Bench) -> list[Case]:
        raise RuntimeError("exit code 1")

    assert try_row(Row("F99", 1, "", "", cases), Bench(tmp_path, 0, False)).verdict == "FAIL"


def test_the_score_is_weighted_and_counts_what_went_wrong() -> None:
    heavy, light = Row("F01", 3, "", "", list), Row("F02", 1, "", "", list)
    outcomes = [Outcome(heavy, 2, 2, 30.0), Outcome(light, 1, 2, 30.0, loud=["x"])]
    assert score(outcomes) == "score 88/100 · silent 0 · loud 1 · flaky 0 · fail 0 · 1.0 min"


def test_the_table_goes_between_its_marks() -> None:
    assert with_table(f"a\n{BEGIN}old\n{END}b\n", "new\n") == f"a\n{BEGIN}new\n{END}b\n"
    with pytest.raises(ValueError, match="put them where the table belongs"):
        with_table("a\n", "new\n")
    assert BEGIN in (ROOT / "docs/faults.md").read_text()


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("only=F99", "there is no row F99"),
        ("teir=full", "teir.*tier"),
        ("tier=big", "smoke or full"),
        ("seed=x", "seed"),
    ],
)
def test_options_that_are_wrong_are_told(typed: str, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?s){told}"):
        faults([typed])


def test_nothing_is_injected_without_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    train = Trainer.train
    monkeypatch.setenv(VARIABLE, Injection("forward", "fail", 0, 0).environment()[VARIABLE])
    monkeypatch.delenv(PERMISSION, raising=False)
    arm()
    assert Trainer.train is train
    named = [path for path in (ROOT / "vlmtrain").rglob("*.py") if VARIABLE in path.read_text()]
    assert [path.name for path in named] == ["injection.py"]


def test_two_rows_for_real(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Moments that must follow names, and a run folder that two processes want; the quickest with processes."""
    out = tmp_path / "told.json"
    main(["faults", "--only", "F37,F10", "--json", str(out), f"--folder={tmp_path}"])
    said = capsys.readouterr().out
    told = {row["id"]: row for row in json.loads(out.read_text())["rows"]}
    assert told["F37"]["verdict"] == "PASS" and told["F37"]["total"] == 12
    assert not [reason for reason in told["F10"]["failed"] if "it took" not in reason]  # seconds are for quiet machines
    assert re.search(r"score \d+/100 · silent 0 · loud 0", said)


@pytest.mark.slow
def test_the_smoke_tier_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["faults", f"--folder={tmp_path}"]) == 0, capsys.readouterr().out
    assert os.listdir(tmp_path)
