"""A sweep on this machine: its trials one after the other, or several at a time."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from vlmtrain.config.build import build
from vlmtrain.config.sweep import Sweep
from vlmtrain.launch.processes import catching_signals
from vlmtrain.launch.rank import LIFELINE_VARIABLE
from vlmtrain.launch.run_folder import say
from vlmtrain.launch.sweep_folder import DONE, FAILED, OVER, PRUNED, RUNNING, SweepFolder, Trial
from vlmtrain.sweeps.asked import Asked
from vlmtrain.sweeps.history import read_curve
from vlmtrain.sweeps.leaderboard import write_leaderboard
from vlmtrain.sweeps.plans import Plan, make_plan
from vlmtrain.sweeps.preparing import open_trial, prepare
from vlmtrain.sweeps.trial_process import PREEMPTED, Judge, TrialProcess
from vlmtrain.training.run_lock import RunLock

LOOK_SECONDS = 0.5


def launch(asked: Asked, sweep: Sweep, folder: SweepFolder, at_once: int | None) -> int:
    """Trains what is not over; gives 0 if all of it came to an end, 1 if some failed, 143 if it was asked to end."""
    with RunLock(folder.folder):
        runner = LocalSweep(asked, sweep, folder, at_once or 1)
        with runner.signals():
            return runner.run()


class LocalSweep:
    """The trials that run now, and those that wait."""

    def __init__(self, asked: Asked, sweep: Sweep, folder: SweepFolder, at_once: int) -> None:
        self._asked, self._sweep, self._folder, self._at_once = asked, sweep, folder, at_once
        self._plan: Plan = make_plan(sweep)
        self._judge = make_judge(sweep, folder)
        self._running: list[TrialProcess] = []
        self._is_stopping = False
        # its other end closes when this process ends, however it ends: then the trials end too
        self._lifeline, self._keep_open = os.pipe()

    def run(self) -> int:
        """Until every trial has been tried once."""
        waiting = list(range(self._plan.num_trials))
        failed = False
        while (waiting and not self._is_stopping) or self._running:
            while waiting and not self._is_stopping and len(self._running) < self._at_once:
                self._begin(waiting.pop(0))
            failed |= self._collect()
            time.sleep(LOOK_SECONDS if self._running else 0.0)
        return PREEMPTED if self._is_stopping else int(failed)

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Whoever asks the sweep to end asks its trials to save and end; the same command goes on."""

        def stop(number: int, frame: FrameType | None) -> None:
            self._is_stopping = True
            for process in self._running:
                if not process.was_asked_to_end:
                    process.ask_to_end()

        with catching_signals(stop):
            yield

    def _begin(self, number: int) -> None:
        trial = prepare(self._sweep, self._plan, self._folder, number)
        state = trial.state
        if state in OVER or state == RUNNING:
            say(f"{trial.name}: {'in use by another process, left alone' if state == RUNNING else state}")
            return
        open_trial(trial, self._asked.config_dirs)
        told = {FAILED: f"again, after: {trial.reason}"}.get(state, "resuming" if trial.attempts else "begins")
        say(f"{trial.name}: {told}")
        environment = {**os.environ, LIFELINE_VARIABLE: str(self._lifeline)}
        command = train_command(trial, self._asked.config_dirs)
        self._running.append(TrialProcess(trial, command, environment, self._lifeline))

    def _collect(self) -> bool:
        """Whether one of those that have ended failed."""
        failed = False
        for process in [process for process in self._running if process.look(self._judge)]:
            self._running.remove(process)
            trial, _ = process.finish()
            failed |= trial.outcome == FAILED
            say(f"{trial.name}: {_tell(trial, self._sweep.metric)}")
            write_leaderboard(self._folder)
        return failed


def watch(processes: list[TrialProcess], judge: Judge | None) -> None:
    """Until all of them have ended."""
    while not all([process.look(judge) for process in processes]):
        time.sleep(LOOK_SECONDS)


def train_command(trial: Trial, config_dirs: list[str]) -> list[str]:
    """What a person would type to train this trial alone."""
    chosen = [f"--config-dir={folder}" for folder in config_dirs]
    return [sys.executable, "-m", "vlmtrain.main", *chosen, *trial.overrides, f"run_dir={trial.folder}"]


def make_judge(sweep: Sweep, folder: SweepFolder) -> Judge | None:
    """Who says which trial is hopeless; None where all go to their end."""
    if sweep.prune is None or sweep.metric is None:
        return None
    return Judge(folder, sweep.metric, sweep.direction, build(sweep.prune))


def _tell(trial: Trial, metric: str | None) -> str:
    words = trial.state if trial.state in (DONE, PRUNED, FAILED) else "not finished; the same command goes on"
    curve = read_curve(Path(trial.folder), metric) if metric else {}
    if curve:
        words += f", {metric} {curve[max(curve)]:.4g} at step {max(curve)}"
    return words + (f": {trial.reason}" if trial.reason and trial.state != DONE else "")
