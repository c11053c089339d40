"""The training loop.  One hook (after a step), any number of actions on it; no callbacks anywhere else."""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch.distributed

from vlmtrain.batch import Batch
from vlmtrain.training.checkpoint import Checkpoints
from vlmtrain.training.meter import Meter
from vlmtrain.training.parity import Divergence, check_parity
from vlmtrain.training.signals import Signals
from vlmtrain.training.state import Progress
from vlmtrain.training.stops import NonFiniteTraining, Preempted, RanksDiverged
from vlmtrain.training.update import Update, UpdateResult
from vlmtrain.training.watchdog import Watch

logger = logging.getLogger(__name__)

MAX_ROLLBACKS = 3


class StepSource(Protocol):
    """Where batches come from: a pure function of the step, so that its position is an integer."""

    def steps(self, start: int) -> Iterator[list[Batch]]:
        """From step `start` on, this rank's micro-batches of each step."""


class Action(Protocol):
    """Something done every so many steps, and after the last one; `every` = 0 means only after the last one."""

    @property
    def every(self) -> int: ...

    def __call__(self, trainer: "Trainer") -> None: ...


class Trainer:
    """Trains one stage up to `max_steps`, from wherever `resume` put it."""

    def __init__(
        self,
        update: Update,
        source: StepSource,
        checkpoints: Checkpoints,
        max_steps: int,
        logs: Path,
        actions: Sequence[Action] = (),
        max_skipped_steps: int = 3,
        watch: Watch | None = None,
    ) -> None:
        self.watch = watch or Watch()
        self.update = update
        self.source = source
        self.checkpoints = checkpoints
        self.max_steps = max_steps
        self.logs = logs
        self.actions = actions
        self.max_skipped_steps = max_skipped_steps
        self.accelerator = update.accelerator
        self.model = update.training_step.model
        self.progress = Progress()
        self.meter = Meter()
        self.micro_batches: list[Batch] = []  # of the step just taken
        self.data_seconds = 0.0  # that this rank has waited for batches
        self._saved_step = 0
        self._rollbacks = 0
        self._has_told_of_cuts = False

    def resume(self) -> bool:
        """Go back to the newest valid checkpoint; False where there is none and training starts at step 0."""
        self.settle()
        progress = self.checkpoints.restore_newest()
        self.progress = progress or Progress()
        self.meter.continue_interval(self.progress.open_interval, self.accelerator)
        self.update.loss_scale.restore(self.progress.loss_scale)
        self._saved_step = self.progress.step
        return progress is not None

    def train(self, signals: Signals) -> None:
        """Train to the last step.  Raises a TrainingStopped where it ends before."""
        try:
            while self.progress.step < self.max_steps:
                try:
                    self._train_on(signals)
                except Divergence as divergence:
                    self._roll_back(divergence)
            self.settle()
        finally:
            self.checkpoints.leave()

    def save(self) -> None:
        """Publish a checkpoint of this step, or begin to, unless there is one; what ranks disagree about never is."""
        if self._saved_step == self.progress.step:
            return
        self.settle()
        with self.watch.during("save"):
            check_parity(self.accelerator, self.update.engine.replicas(self.model))
            self.progress.open_interval = self.meter.open_interval(self.accelerator)
            self.progress.loss_scale = self.update.loss_scale.state()
            if self.checkpoints.save(self.progress):
                self._saved_step = self.progress.step

    def settle(self) -> None:
        """Wait for the checkpoint that is being written in a thread, if one is."""
        writing = self.checkpoints.writing
        if writing is None:
            return
        with self.watch.during("writing"):
            if not self.checkpoints.settle():
                self._saved_step = 0
            self.watch.learn("writing", writing.seconds)

    def _train_on(self, signals: Signals) -> None:
        batches = self.source.steps(self.progress.step)
        while self.progress.step < self.max_steps:
            started = time.perf_counter()
            self.watch.enter("batch", self.progress.step)
            self.micro_batches = self._next(batches)
            waited = time.perf_counter() - started
            self.data_seconds += waited
            self.watch.enter("step", self.progress.step, self._sample_ids())
            result = self.update(self.micro_batches, self.progress.step, signals.requested is not None)
            self._count(result, waited)
            self._run_due_actions()
            if result.should_stop and self.progress.step < self.max_steps:
                self.settle()  # what the last action began; should it fail, it is tried again
                self.save()
                self.settle()
                raise Preempted(f"stopped by a signal after step {self.progress.step}; the same command resumes there")

    def _next(self, batches: Iterator[list[Batch]]) -> list[Batch]:
        micro_batches = next(batches, None)
        if micro_batches is None:
            raise ValueError(f"the data ended before step {self.progress.step} of {self.max_steps}; lower max_steps")
        return micro_batches

    def _sample_ids(self) -> list[str]:
        return [name for batch in self.micro_batches for name in batch.sample_ids]

    def _count(self, result: UpdateResult, waited: float) -> None:
        samples = sum(len(batch) for batch in self.micro_batches) * self.accelerator.num_processes
        self.meter.add(result, samples, waited, self._count_truncated())
        if result.is_applied:
            self.progress.skipped_in_a_row = 0
        elif not result.has_scale_fallen:
            self._skip(result)
        self.progress.step += 1
        self.progress.samples += samples

    def _count_truncated(self) -> int:
        """Texts of this rank that lost words to the limit of their layout; the first ones are worth a warning."""
        truncated = sum(batch.text.truncated for batch in self.micro_batches)
        if truncated and not self._has_told_of_cuts:
            self._has_told_of_cuts = True
            logger.warning(
                "step %d: %d of %d texts are longer than max_tokens and were cut; truncated_texts in metrics.jsonl "
                "counts them",
                *(self.progress.step, truncated, sum(len(batch) for batch in self.micro_batches)),
            )
        return truncated

    def _skip(self, result: UpdateResult) -> None:
        """Leave a trace of a step that was not applied; stop after too many in a row."""
        self.progress.skipped_in_a_row += 1
        step, skipped = self.progress.step, self.progress.skipped_in_a_row
        norm, loss = float(result.gradient_norm), float(result.loss())
        logger.warning("step %d skipped: loss share %s, gradient norm %s", step, loss, norm)
        own: dict[str, object] = {"sample_ids": self._sample_ids(), "loss_share": str(loss)}
        told = _from_all_ranks(own, self.accelerator.num_processes)
        if self.accelerator.is_main_process:
            self.logs.mkdir(parents=True, exist_ok=True)
            with (self.logs / "skipped_steps.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, "gradient_norm": str(norm), "ranks": told}) + "\n")
        if skipped >= self.max_skipped_steps:
            raise NonFiniteTraining(
                f"loss or gradient was NaN or infinite in {skipped} steps in a row, the last one step {step} "
                f"(samples in {self.logs / 'skipped_steps.jsonl'}); lower optimizer.lr or use trainer.precision=fp32 "
                "(bf16 in place of fp16, which ends at 65504)"
            )

    def _run_due_actions(self) -> None:
        started = time.perf_counter()
        is_last = self.progress.step == self.max_steps
        for action in self.actions:
            if is_last or (action.every and self.progress.step % action.every == 0):
                action(self)
        self.meter.pause(time.perf_counter() - started)

    def _roll_back(self, divergence: Divergence) -> None:
        self._rollbacks += 1
        if self._rollbacks > MAX_ROLLBACKS or not self.resume():
            raise RanksDiverged(f"{divergence}; no checkpoint to go back to, or too often in this run") from divergence
        logger.warning("%s; back to step %d", divergence, self.progress.step)


def _from_all_ranks(told: dict[str, object], num_processes: int) -> list[dict[str, object]]:
    if num_processes == 1:
        return [told]
    everywhere: list[dict[str, object]] = [{} for _ in range(num_processes)]
    torch.distributed.all_gather_object(everywhere, told)
    return everywhere
