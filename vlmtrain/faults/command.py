"""`vlmtrain faults`: does to small trainings what machines, people and data do to large ones, and keeps the score."""

import importlib
import json
import os
import pkgutil
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from vlmtrain.config.faults import ConfigError, Fault, offer
from vlmtrain.faults import families
from vlmtrain.faults.bench import Bench, Loud, Silent
from vlmtrain.faults.row import Case, Outcome, Row, score

OPTIONS = {
    "tier": "smoke (default): what every push can afford; full: more tries, and rows that take long",
    "only": "rows, such as F07 or F01,F02",
    "repeat": "how often random things are done",
    "seed": "of random moments",
    "json": "a file for all that was found",
    "write": "a document in which the table between its marks is replaced",
    "folder": "where runs go; default: a temporary one",
}
BEGIN, END = "<!-- faults: begin -->\n", "<!-- faults: end -->\n"


def faults(typed: list[str]) -> int:
    """Runs the rows that `typed` (option=value) asks for, a line for each; 0 where all pass."""
    options = _read(typed)
    rows = _choose(options)
    with tempfile.TemporaryDirectory(prefix="vlmtrain-faults-") as temporary:
        home = Path(options.get("folder", temporary)).resolve()
        home.mkdir(parents=True, exist_ok=True)
        repeat = int(options["repeat"]) if "repeat" in options else None
        bench = Bench(home, int(options.get("seed", "0")), options.get("tier") == "full", repeat)
        outcomes = []
        for row in rows:
            outcomes.append(try_row(row, bench))
            _say(outcomes[-1].line())
            for reason in [*outcomes[-1].silent, *outcomes[-1].loud, *outcomes[-1].failed][:5]:
                _say(f"    {reason}")
    _say(score(outcomes))
    if "json" in options:
        Path(options["json"]).write_text(json.dumps(_told(options, outcomes), indent=1) + "\n")
    if "write" in options:
        document = Path(options["write"])
        document.write_text(with_table(document.read_text(), _table(outcomes, options)))
    return 0 if all(outcome.verdict == "PASS" for outcome in outcomes) else 1


def find_rows() -> list[Row]:
    """Those of every module in families/, in the order of the matrix."""
    modules = [
        importlib.import_module(f"{families.__name__}.{each.name}") for each in pkgutil.iter_modules(families.__path__)
    ]
    return sorted((row for module in modules for row in module.ROWS), key=lambda row: row.id)


def try_row(row: Row, bench: Bench) -> Outcome:
    """Every case of a row, one after the other."""
    began = time.monotonic()
    outcome = Outcome(row)
    for case in _cases(row, bench, outcome):
        outcome.total += 1
        try:
            case.attempt()
            outcome.passed += 1
        except Loud as reason:
            outcome.loud.append(f"{case.name}: {reason}")
        except Silent as reason:
            outcome.silent.append(f"{case.name}: {reason}")
        except Exception as reason:
            outcome.failed.append(f"{case.name}: {type(reason).__name__}: {reason}")
    outcome.seconds = time.monotonic() - began
    return outcome


def with_table(document: str, table: str) -> str:
    """`document` with `table` between its marks.  ValueError where there are none."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(
            f"the document has no lines {BEGIN.strip()} and {END.strip()}: put them where the table belongs"
        )
    return f"{before}{BEGIN}{table}{END}{after}"


def _cases(row: Row, bench: Bench, outcome: Outcome) -> Iterator[Case]:
    try:
        yield from row.cases(bench)
    except Exception as reason:  # not even the run without a fault came to its end
        outcome.total += 1
        outcome.failed.append(f"preparing: {type(reason).__name__}: {reason}")


def _read(typed: list[str]) -> dict[str, str]:
    options = dict(each.partition("=")[::2] for each in typed)
    wrong = [Fault(name, "there is no such option", offer(name, OPTIONS)) for name in options if name not in OPTIONS]
    if options.get("tier", "smoke") not in ("smoke", "full"):
        wrong.append(Fault("tier", f"got {options['tier']!r}", "smoke or full"))
    wrong += [
        Fault(name, f"got {options[name]!r}", "a whole number")
        for name in ("seed", "repeat")
        if name in options and not options[name].isdigit()
    ]
    if wrong:
        raise ConfigError(wrong)
    return options


def _choose(options: dict[str, str]) -> list[Row]:
    rows = find_rows()
    if "only" in options:
        wanted = options["only"].upper().split(",")
        unknown = [Fault("only", f"there is no row {name}", offer(name, [row.id for row in rows], "Rows"))
                   for name in wanted if name not in {row.id for row in rows}]  # fmt: skip
        if unknown:
            raise ConfigError(unknown)
        return [row for row in rows if row.id in wanted]
    return [row for row in rows if row.in_smoke or options.get("tier") == "full"]


def _told(options: dict[str, str], outcomes: list[Outcome]) -> dict[str, object]:
    return {
        "options": options,
        "score": score(outcomes),
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
        "rows": [
            {"id": each.row.id, "weight": each.row.weight, "verdict": each.verdict, "passed": each.passed,
             "total": each.total, "seconds": round(each.seconds, 1), "silent": each.silent, "loud": each.loud,
             "failed": each.failed}
            for each in outcomes
        ],
    }  # fmt: skip


def _table(outcomes: list[Outcome], options: dict[str, str]) -> str:
    head = "| row | fault | what has to come of it | result |\n|---|---|---|---|\n"
    lines = [
        f"| {each.row.id} | {each.row.fault} | {each.row.promise} | {each.verdict} {each.passed}/{each.total} "
        f"({each.seconds:.0f} s) |\n"
        for each in outcomes
    ]
    tier = options.get("tier", "smoke")
    return f"{head}{''.join(lines)}\nTier {tier}, seed {options.get('seed', '0')}: {score(outcomes)}.\n"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
