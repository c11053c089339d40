"""SIGTERM and SIGUSR1: whichever rank they reach and whatever it is doing, all save and leave together."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vlmtrain.faults.bench import PATIENCE, STAGE, TOY, Bench, Run
from vlmtrain.faults.injection import Injection
from vlmtrain.faults.row import Case, Row

PREEMPTED = 143
SECONDS_TO_LEAVE = 10.0
STEP = 7
ACCUMULATED = ("trainer.accumulate=2",)
EVALUATED = (
    "trainer.evaluate_every=4",
    "stages.align.evaluation={loss: {_target_: vlmtrain.evaluation.held_out_loss.HeldOutLoss, split: test, limit: 4}}",
)
WITH_WORKERS = ("trainer.num_workers=1",)


@dataclass(frozen=True)
class Phase:
    """Where the signal finds the rank."""

    name: str
    place: str
    rank: int = 1
    step: int = STEP
    overrides: tuple[str, ...] = ()


PHASES = (
    Phase("waiting for the first batch", "batch", step=0),
    Phase("waiting for a batch", "batch"),
    Phase("forward", "forward"),
    Phase("second of two micro-batches", "second_forward", overrides=ACCUMULATED),
    Phase("backward", "backward"),
    Phase("optimizer", "optimizer"),
    Phase("evaluation", "evaluation", 0, 8, EVALUATED),
    Phase("save", "save", 0, 10),
    Phase("trackers", "log", 0, 8),
)


def one_rank(bench: Bench) -> list[Case]:
    """At random moments, to one of two ranks, in the full tier also to one of four."""

    def attempt(ranks: int, number: int) -> None:
        _, seconds = bench.reference(ranks)
        run = bench.start(bench.folder(), ranks)
        run.wait_for_step(0)
        time.sleep(bench.chance.uniform(0, seconds / 2))
        run.signal(number, bench.chance.randrange(ranks))
        leave(run)
        bench.finish_as_undisturbed(run.folder, ranks)

    numbers = [signal.SIGTERM, signal.SIGUSR1] * (bench.times(4, 20) // 2)
    worlds = (2, 4) if bench.is_full else (2,)
    return [
        Case(f"{number.name} to one of {ranks}", partial(attempt, ranks, number))
        for ranks in worlds
        for number in numbers
    ]


def every_phase(bench: Bench) -> list[Case]:
    """To one rank of two, from within each phase; and to a process that still imports, and to a data worker."""

    def within(phase: Phase) -> None:
        fault = Injection(phase.place, "send", phase.step, phase.step, phase.rank, float(signal.SIGUSR1))
        run = bench.start(bench.folder(), 2, phase.overrides, fault)
        run.wait_for_step(phase.step)
        leave(run)
        bench.finish_as_undisturbed(run.folder, 2, phase.overrides)

    def importing() -> None:
        folder = bench.folder()
        command = [sys.executable, "-m", "vlmtrain.main", *TOY, *bench.scenes()]
        process = subprocess.Popen(
            [*command, f"run_dir={folder}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(0.5)
        process.terminate()
        began = time.monotonic()
        code = process.wait(PATIENCE)
        assert code in (-signal.SIGTERM, PREEMPTED), f"exit code {code}"
        assert time.monotonic() - began < SECONDS_TO_LEAVE
        bench.finish_as_undisturbed(folder)

    def to_a_worker() -> None:
        run = bench.start(bench.folder(), 1, WITH_WORKERS)
        run.wait_for_step(1)
        for pid in workers_of(run):
            os.kill(pid, signal.SIGTERM)
        assert run.wait() == 0, "a signal to a data worker ended the run"
        bench.finish_as_undisturbed(run.folder, 1, WITH_WORKERS)

    inside = [Case(phase.name, partial(within, phase)) for phase in PHASES]
    return [*inside, Case("imports", importing), Case("a data worker", to_a_worker)]


def leave(run: Run) -> None:
    """All ranks end at one step with their state saved, soon; or the run was done before the signal came."""
    began = time.monotonic()
    code = run.wait()
    took = time.monotonic() - began
    assert code in (PREEMPTED, 0), f"exit code {code}: {run.said()[-400:]}"
    assert took < SECONDS_TO_LEAVE, f"it took {took:.1f} s to leave"
    assert not run.ranks(), "a rank is still there"
    if code == PREEMPTED:
        assert any((run.folder / "checkpoints" / STAGE).glob("step-*")), "nothing was saved"


def workers_of(run: Run) -> list[int]:
    """Process ids of the data workers below the ranks of a run."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, rest = status.read_text().rsplit(")", 1)
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(status.parent.name)] = (int(rest.split()[1]), head.partition("(")[2])
    found = []
    for pid, (parent, name) in parents.items():
        while parent in parents and parent not in run.ranks():
            parent = parents[parent][0]
        if parent in run.ranks() and name.startswith("pt_data_worker"):
            found.append(pid)
    return found


ROWS = (
    Row("F06", 4, "SIGTERM or SIGUSR1 to one rank", "all leave with 143, saved; resumes to the bit", one_rank),
    Row("F07", 3, "a signal in every phase", "saved or cleanly gone in 10 s; resumes to the bit", every_phase, False),
)
