"""Stopping often, in awkward places, on other numbers of processes, and where somebody else is at work."""

import itertools
import os
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from vlmtrain.config.stored import write_config
from vlmtrain.faults.bench import BATCH, PATIENCE, STAGE, Bench, Silent, is_alive
from vlmtrain.faults.comparison import closeness, samples_by_step
from vlmtrain.faults.families.signals import PREEMPTED, leave, workers_of
from vlmtrain.faults.injection import Injection
from vlmtrain.faults.row import Case, Row
from vlmtrain.launch.slurm_script import write_script
from vlmtrain.training.heartbeat import read_beat

EPOCH = 8  # steps of the toy's 64 samples in batches of 8
STOPS = [*itertools.combinations((0, 1, 5, EPOCH - 1, EPOCH), 3), (EPOCH - 1, EPOCH, EPOCH + 1), (0, EPOCH, 2 * EPOCH)]
REQUEUES = 5
WITH_WORKERS = ("trainer.num_workers=1",)
WITHOUT_DROPOUT = ("model.language_model.architecture.attention_dropout=0.0", "trainer.log_every=1")
LOSS, WEIGHT = 1e-6, 1e-5
SECOND_SECONDS = 3.0


def in_one_epoch(bench: Bench) -> list[Case]:
    """Three stops each, at the first, the last and the first step after an epoch among them."""

    def attempt(steps: tuple[int, ...]) -> None:
        folder = bench.folder()
        for step in steps:
            fault = Injection("batch", "send", step, step, 0, float(signal.SIGTERM))
            run = bench.start(folder, 1, (), fault)
            assert (code := run.wait()) == PREEMPTED, f"exit code {code} at step {step}: {run.said()[-300:]}"
        bench.finish_as_undisturbed(folder)

    return [Case(f"stops in steps {steps}", partial(attempt, steps)) for steps in STOPS]


def other_worlds(bench: Bench) -> list[Case]:
    """2 -> 1 -> 4 -> 2 ranks, stopped or killed at random steps: the same samples in every step, the same losses."""

    def attempt() -> None:
        reference, _ = bench.reference(2, WITHOUT_DROPOUT)
        folder, step = bench.folder(), 0
        for ranks in (2, 1, 4):
            step += bench.chance.randint(1, 6)
            run = bench.start(folder, ranks, WITHOUT_DROPOUT)
            run.wait_for_step(step)
            if bench.chance.random() < 0.5:
                run.kill()
            else:
                run.signal(signal.SIGTERM, bench.chance.randrange(ranks))
                leave(run)
        bench.finish(folder, 2, WITHOUT_DROPOUT)
        if samples_by_step(folder, STAGE, BATCH) != samples_by_step(reference, STAGE, BATCH):
            raise Silent("other samples in some step")
        losses, weights = closeness(reference, folder, STAGE)
        assert losses <= LOSS, f"losses differ by {losses:.2g}"
        assert weights <= WEIGHT, f"weights differ by {weights:.2g}"

    return [Case(f"try {number}", attempt) for number in range(bench.times(2, 10))]


def a_second_process(bench: Bench) -> list[Case]:
    def refused() -> None:
        folder = bench.folder()
        first = bench.start(folder, 1, (), Injection("forward", "sleep", 0, 10**6, 0, 0.3))
        first.wait_for_step(2)
        second = bench.start(folder)
        code = second.wait()
        took = time.monotonic() - second.began
        said = second.said()
        assert code == 2 and f"in use by process {first.process.pid}" in said, f"{code}: {said[-300:]}"
        assert took < SECOND_SECONDS, f"it took {took:.1f} s"
        assert first.wait() == 0
        bench.finish_as_undisturbed(folder)

    def stale() -> None:
        folder = bench.folder()
        run = bench.start(folder)
        run.wait_for_step(2)
        run.kill()
        again = bench.start(folder)
        assert again.wait() == 0 and "taking over" in again.said(), again.said()[-300:]
        bench.finish_as_undisturbed(folder)

    return [Case("while the first trains", refused), Case("the lock of a dead one", stale)]


def killed_workers(bench: Bench) -> list[Case]:
    """A data worker is killed, several times in a run."""

    def attempt() -> None:
        run = bench.start(bench.folder(), 1, WITH_WORKERS, Injection("after", "sleep", 0, 10**6, 0, 0.2))
        for step in (2, 8, 14, 19):
            run.wait_for_step(step)
            run.wait_for(partial(workers_of, run))
            for pid in workers_of(run):
                os.kill(pid, signal.SIGKILL)
        assert (code := run.wait()) == 0, f"exit code {code}: {run.said()[-300:]}"
        assert "a data worker died" in run.said()
        bench.finish_as_undisturbed(run.folder, 1, WITH_WORKERS)

    return [Case(f"four kills, try {number}", attempt) for number in range(bench.times(1, 5))]


def time_limits(bench: Bench) -> list[Case]:
    """The batch script as SLURM runs it, with stand-ins for srun and scontrol, signalled before its time is up."""

    def attempt() -> None:
        folder = bench.folder()
        config = bench.configuration("launcher=slurm", f"run_dir={folder}", "distributed.num_processes=1")
        (folder / "logs").mkdir(parents=True)
        write_config(config, folder)
        script = write_script(config, folder, bench.home)
        environment = _stand_ins(bench.home / "bin")
        for restart in range(REQUEUES + 1):
            code = _one_job(script, folder, environment, restart, signal_at=3 * restart + 2)
            requeued = (bench.home / "bin" / "requeued").read_text().count("requeue")
            if restart < REQUEUES:
                assert code == PREEMPTED, f"exit code {code} of job {restart}"
                assert requeued == restart + 1, f"scontrol requeue was called {requeued} times in {restart + 1} jobs"
            else:
                assert code == 0 and requeued == REQUEUES, f"exit code {code}, {requeued} requeues at the end"
        bench.finish_as_undisturbed(folder)

    return [Case(f"{REQUEUES} requeues", attempt)]


def _stand_ins(folder: Path) -> dict[str, str]:
    """srun runs one task; scontrol names this host and notes what it was asked for."""
    folder.mkdir(exist_ok=True)
    (folder / "requeued").touch()
    task = "SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NTASKS=1 SLURM_NTASKS_PER_NODE=1"
    bodies = {
        "srun": f'while [ "${{1#--}}" != "$1" ]; do shift; done\nexec env {task} "$@"\n',
        "scontrol": f'[ "$1" = show ] && echo localhost || echo "$*" >> {shlex.quote(str(folder / "requeued"))}\n',
    }
    for name, body in bodies.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}")
        (folder / name).chmod(0o755)
    path = f"{folder}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    given = {"SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "localhost", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **given, "PATH": path, "ACCELERATE_USE_CPU": "true"}


def _one_job(script: str, folder: Path, environment: dict[str, str], restart: int, signal_at: int) -> int:
    """From the queue to its end; but for the last job it is told before the time limit, in the middle of a step."""
    beats = folder / "logs" / "ranks" / "rank0.json"
    beats.unlink(missing_ok=True)
    with (folder / "logs" / "job.log").open("ab") as log:
        job = subprocess.Popen(
            ["bash", "-c", script],
            env={**environment, "SLURM_RESTART_COUNT": str(restart)},
            stdout=log,
            stderr=log,
        )
        until = time.monotonic() + PATIENCE
        while restart < REQUEUES and job.poll() is None and time.monotonic() < until:
            beat = read_beat(beats)
            if beat is not None and beat.step >= signal_at and beat.phase != "init" and is_alive(beat.pid):
                os.kill(beat.pid, signal.SIGUSR1)
                break
            time.sleep(0.01)
        return job.wait(PATIENCE)


ROWS = (
    Row(
        "F08",
        3,
        "SLURM's time limit and requeue, five times",
        "one folder, one requeue a signal, to the bit",
        time_limits,
        False,
    ),
    Row(
        "F09",
        2,
        "three stops within an epoch and at its edges",
        "samples, weights, figures to the bit",
        in_one_epoch,
        False,
    ),
    Row(
        "F10",
        1,
        "two processes, one run folder",
        "the second is gone in 3 s, told who; the first unharmed; a dead one's lock is taken over",
        a_second_process,
    ),
    Row("F22", 2, "a data worker is killed", "noticed, started anew, the same samples", killed_workers, False),
    Row(
        "F24",
        3,
        "another number of ranks after each stop",
        "the same samples in each step; losses to 1e-6, weights to 1e-5",
        other_worlds,
        False,
    ),
)
