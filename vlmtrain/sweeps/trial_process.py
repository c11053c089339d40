"""One trial as a process: started, watched, stopped when it is hopeless, and how it ended written down."""

import signal
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from vlmtrain.launch.failures import INTERRUPTED
from vlmtrain.launch.run_folder import is_finished
from vlmtrain.launch.sweep_folder import FAILED, PRUNED, SweepFolder, Trial, write_trial
from vlmtrain.sweeps.history import best_is, read_history
from vlmtrain.sweeps.plans import Pruner

LOG = "trial.log"  # what the trial prints, in its logs/
PREEMPTED = 143  # vlmtrain.training.stops.Preempted, which torch is not loaded for here
ORPHANED = 129  # vlmtrain.launch.rank: its sweep was gone
ASKED_TO_END = (PREEMPTED, INTERRUPTED, ORPHANED)
STOP = signal.SIGUSR1  # an orderly end; srun, which dies of SIGTERM, hands it on to its tasks
LONGEST_REASON = 300


class Judge:
    """Whether a trial of a sweep is hopeless by now; looks again only when the trial has evaluated."""

    def __init__(self, sweep: SweepFolder, metric: str, direction: str | None, pruner: Pruner) -> None:
        self._sweep, self._metric, self._pruner = sweep, metric, pruner
        self._best = best_is(metric, direction)
        self._seen: dict[int, int] = {}

    def is_hopeless(self, trial: Trial) -> bool:
        """Asks the pruner after every new evaluation."""
        history = read_history(self._sweep, self._metric)
        mine = next((record for record in history if record.number == trial.number), None)
        if mine is None or len(mine.curve) == self._seen.get(trial.number):
            return False
        self._seen[trial.number] = len(mine.curve)
        return self._pruner.is_hopeless(trial.number, history, self._best)


class TrialProcess:
    """A trial that runs now."""

    def __init__(
        self,
        trial: Trial,
        command: list[str],
        environment: Mapping[str, str],
        lifeline: int | None = None,
    ) -> None:
        self.trial = replace(trial, outcome="", reason="", attempts=trial.attempts + 1)
        self.was_asked_to_end = False
        self._is_hopeless = False
        self._metrics = trial.folder / "metrics.jsonl"
        self._seen_at = -1.0
        write_trial(self.trial)
        with (trial.folder / "logs" / LOG).open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=() if lifeline is None else (lifeline,),
                start_new_session=True,  # Ctrl-C reaches it once, through us
            )

    def ask_to_end(self) -> None:
        """It saves its state and ends."""
        self.was_asked_to_end = True
        if self._process.poll() is None:
            self._process.send_signal(STOP)

    def look(self, judge: Judge | None) -> bool:
        """Whether it has ended.  Asks the judge when its metrics have grown."""
        if self._process.poll() is not None:
            return True
        grown = self._metrics.stat().st_mtime if self._metrics.is_file() else -1.0
        if judge is not None and not self._is_hopeless and not self.was_asked_to_end and grown > self._seen_at:
            self._seen_at = grown
            if judge.is_hopeless(self.trial):
                self._is_hopeless = True
                self._process.send_signal(STOP)
        return False

    def finish(self) -> tuple[Trial, int]:
        """How it ended, written down, and its exit code."""
        code = self._process.wait()
        code = 128 - code if code < 0 else code
        return conclude(self.trial, code, self._is_hopeless, self.was_asked_to_end), code


def conclude(trial: Trial, code: int, was_hopeless: bool = False, was_asked: bool = False) -> Trial:
    """Writes down what an exit code means: done, pruned, failed with its reason, or (asked to end) nothing yet."""
    ended = trial
    if not is_finished(trial.folder):
        if was_hopeless and code in (PREEMPTED, 128 + STOP):  # the latter while it was still importing
            ended = replace(trial, outcome=PRUNED, reason="worse than the others at this step")
        elif not was_asked and code not in ASKED_TO_END:
            ended = replace(trial, outcome=FAILED, reason=_reason(trial.folder, code))
    write_trial(ended)
    return ended


def _reason(folder: Path, code: int) -> str:
    """What it said last, or which signal ended it."""
    if code > 128 and code - 128 in {number.value for number in signal.Signals}:
        name = signal.Signals(code - 128).name
        return f"killed by {name}" + ("; was it killed for memory?" if name == "SIGKILL" else "")
    for name in (LOG, "error.log"):
        file = folder / "logs" / name
        lines = file.read_text(encoding="utf-8", errors="replace").strip().splitlines() if file.is_file() else []
        told = [line.strip() for line in lines if line.strip() and "The whole story" not in line]
        if told:
            return f"{told[-1][:LONGEST_REASON]} (exit code {code})"
    return f"exit code {code}, and not a word in {folder / 'logs'}"
