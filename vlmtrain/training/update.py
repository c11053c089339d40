"""One optimizer step over a global batch, however it is cut into micro-batches and spread over ranks."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim import Optimizer

from vlmtrain.batch import Batch, VisualFeatures
from vlmtrain.objectives.base import Everyone, Lesson, Loss
from vlmtrain.training.ema import ExponentialMovingAverage
from vlmtrain.training.engines.base import Engine
from vlmtrain.training.engines.replicated import Replicated
from vlmtrain.training.gradient_shares import GradientShares
from vlmtrain.training.loss_scale import LossScale
from vlmtrain.training.optimizer import set_learning_rate
from vlmtrain.training.randomness import seed_micro_batch
from vlmtrain.training.schedule import Schedule
from vlmtrain.training.step import Survey, TrainingStep
from vlmtrain.training.survey import first_sample, gather_everyone
from vlmtrain.training.thawing import Thawing
from vlmtrain.training.trainability import set_trainability

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UpdateResult:
    """What one step did.  `shares` and `metrics` are this rank's; their sums over ranks are those of the step."""

    shares: dict[str, Tensor]  # term -> total / global count
    metrics: dict[str, tuple[Tensor | int, Tensor | int]]  # name -> (sum, count)
    weights: dict[str, float]  # term -> its weight in the loss
    gradient_norm: Tensor  # of the global gradient, before clipping
    learning_rate: float
    is_applied: bool  # False: loss or gradient was not finite on some rank, and the weights are as before
    should_stop: bool  # some rank was told to stop
    has_scale_fallen: bool = False  # not applied since the loss was scaled too high, which is no fault

    def loss(self) -> Tensor:
        """This rank's share of the loss."""
        return weighted_sum(self.shares, self.weights)


@dataclass(frozen=True)
class Update:
    """The step itself.  N processes, accumulation and one big batch give one loss and one gradient.

    Terms are sums; each is divided by its count over the *global* batch before backward, and the engine adds up the
    gradients of all ranks, whichever of them holds what.  Objectives that compare samples first survey the whole global
    batch without gradient and then see it in each micro-batch (gradient caching, arXiv 2101.06983).
    """

    accelerator: Accelerator
    training_step: TrainingStep
    optimizer: Optimizer
    schedule: Schedule
    seed: int = 0
    gradient_clip_norm: float | None = 1.0
    average: ExponentialMovingAverage | None = None
    thawing: Thawing | None = None  # None: what trains, trains from the first step
    engine: Engine = field(default_factory=Replicated)  # how weights, gradients and moments lie on the ranks
    loss_scale: LossScale = field(default_factory=LossScale)
    gradient_shares: GradientShares | None = None  # None: not measured
    _needs: dict[str, bool] = field(init=False, default_factory=dict)
    _phase: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        trained = {id(parameter) for group in self.optimizer.param_groups for parameter in group["params"]}
        forgotten = [
            name
            for name, parameter in self.training_step.named_parameters()
            if parameter.requires_grad and id(parameter) not in trained
        ]
        if forgotten:
            raise ValueError(f"trainable, but not in the optimizer: {', '.join(forgotten[:5])}")
        if self.training_step.objective.has_teacher and self.average is None:
            raise ValueError(
                "the objective learns from a momentum teacher, which is the average of the weights; set "
                "trainer.ema_decay (0.995 in ALBEF and BLIP)"
            )
        if self.gradient_shares is not None and not self.engine.lets_gradients_be_asked:
            raise ValueError(
                f"trainer.gradient_shares_every is {self.gradient_shares.every}, and under "
                f"{type(self.engine).__name__} every backward pass counts for the step, so no term can have one of "
                "its own; set it to 0, or use distributed=ddp or single"
            )
        if self.thawing is not None and self.thawing.starts():
            set_trainability(self.training_step.model, self.thawing.at(0))
        self.engine.start(self.accelerator, self.training_step, self.optimizer)
        if self.average is not None:
            self.average.follow(self.engine.held)

    def __call__(self, micro_batches: list[Batch], step: int, stop_requested: bool = False) -> UpdateResult:
        """Take optimizer step number `step` with this rank's micro-batches."""
        micro_batches = [batch.to(self.accelerator.device) for batch in micro_batches]
        self._thaw(step)
        self.training_step.objective.begin(step)
        learning_rate = self.schedule.learning_rate(step)
        set_learning_rate(self.optimizer, learning_rate)
        lessons = self._teach(micro_batches, step)
        everyone, features = self._survey(micro_batches, step, lessons)
        losses = self._backward(micro_batches, step, lessons, everyone, features)
        weights = self.training_step.objective.weights()
        shares = {term: torch.stack([loss.totals[term] for loss in losses]).sum() for term in weights}
        self.loss_scale.undo(self.engine)
        norm, loss = self.engine.gradient_norm(), weighted_sum(shares, weights)
        is_broken, overflows, should_stop = self._agree(~torch.isfinite(loss), ~torch.isfinite(norm), stop_requested)
        # the loss itself is not scaled
        has_scale_fallen = not is_broken and self.loss_scale.follow(is_finite=not overflows, step=step)
        is_applied = not (is_broken or overflows)
        if is_applied:
            self._apply(norm)
            if lessons:
                self._keep(lessons, everyone, step)
        else:
            self.engine.discard()
        metrics = _added([loss.metrics for loss in losses])
        return UpdateResult(shares, metrics, weights, norm, learning_rate, is_applied, should_stop, has_scale_fallen)

    def _thaw(self, step: int) -> None:
        """Free what trains from here on; freeze it again where training went back behind that step."""
        if self.thawing is None or self.thawing.phase(step) == self._phase:
            return
        rates = set_trainability(self.training_step.model, self.thawing.at(step))
        object.__setattr__(self, "_phase", self.thawing.phase(step))
        self._needs.clear()
        logger.info("from step %d on, %d tensors train", step, len(rates))
        self.engine.start(self.accelerator, self.training_step, self.optimizer)

    def _teach(self, micro_batches: list[Batch], step: int) -> list[Lesson]:
        """What the average of the weights says of each micro-batch; empty where the objective asks for no teacher."""
        if not self.training_step.objective.has_teacher:
            return []
        assert self.average is not None
        teach = self.training_step.teach
        with self.average.applied(), self.accelerator.autocast():
            return self.engine.inside(lambda: [teach(batch, step) for batch in micro_batches])

    def _keep(self, lessons: list[Lesson], everyone: Everyone | None, step: int) -> None:
        """Hand the objective what the teacher said of the global batch."""
        said = lessons[0].embeddings if everyone is None else everyone.embeddings
        self.training_step.objective.keep({name: said[name] for name in lessons[0].embeddings}, step)

    def _backward(
        self,
        micro_batches: list[Batch],
        step: int,
        lessons: list[Lesson],
        everyone: Everyone | None,
        features: Sequence[VisualFeatures | None],
    ) -> list[Loss]:
        """Forward and backward of every micro-batch; gives their losses, detached, totals divided by global counts."""
        counts = self._global_counts(micro_batches)
        weights = self.training_step.objective.weights()
        losses = []
        for index, batch in enumerate(micro_batches):
            view = None if everyone is None else replace(everyone, start=first_sample(self.accelerator, index, batch))
            self._seed(step, index)
            with self.engine.syncing(is_last=index == len(micro_batches) - 1):
                with self.accelerator.autocast():
                    loss = self.engine.forward(batch, view, features[index], lessons[index] if lessons else None)
                shares = {term: loss.totals[term] / counts[term] for term in weights}
                metrics = loss.metrics | (self._gradient_shares(shares, weights, step) if index == 0 else {})
                self.engine.backward(weighted_sum(shares, weights) * self.loss_scale.value)
            losses.append(Loss({term: share.detach() for term, share in shares.items()}, _detached(metrics)))
        return losses

    def _gradient_shares(
        self, shares: dict[str, Tensor], weights: dict[str, float], step: int
    ) -> dict[str, tuple[Tensor, int]]:
        if self.gradient_shares is None or not self.gradient_shares.is_due(step):
            return {}
        terms = {term: share * (weights[term] * self.loss_scale.value) for term, share in shares.items()}
        return self.gradient_shares.measure(terms, self.training_step)

    def _global_counts(self, micro_batches: list[Batch]) -> dict[str, Tensor]:
        objective = self.training_step.objective
        terms = sorted(objective.weights())
        counted = [objective.counts(batch) for batch in micro_batches]
        own = torch.tensor(
            [float(sum(counts[term] for counts in counted)) for term in terms], device=self.accelerator.device
        )
        everywhere = self.accelerator.reduce(own, reduction="sum")
        everywhere = everywhere.masked_fill(everywhere == 0, 1)  # weights may sum to less than 1
        return dict(zip(terms, everywhere.unbind(), strict=True))

    def _survey(
        self, micro_batches: list[Batch], step: int, lessons: list[Lesson]
    ) -> tuple[Everyone | None, Sequence[VisualFeatures | None]]:
        nothing = [None] * len(micro_batches)
        if self.accelerator.num_processes * len(micro_batches) == 1:
            return None, nothing
        if not self._needs:
            self._find_needs(micro_batches[0])
        if not self._needs["survey"] and not lessons:
            return None, nothing
        surveys: list[Survey] = []
        for index, batch in enumerate(micro_batches if self._needs["survey"] else []):
            self._seed(step, index)
            with torch.no_grad(), self.accelerator.autocast():
                surveys.append(self._ask(batch))
        said = [survey.embeddings for survey in surveys] or [{} for _ in micro_batches]
        if lessons:
            said = [own | lesson.embeddings for own, lesson in zip(said, lessons, strict=True)]
        everyone = gather_everyone(self.accelerator, said, [batch.text for batch in micro_batches])
        keeps = surveys and self._needs["features"]
        return everyone, [survey.features for survey in surveys] if keeps else nothing

    def _ask(self, batch: Batch) -> Survey:
        return self.engine.inside(lambda: self.training_step.survey(batch))

    def _find_needs(self, batch: Batch) -> None:
        """Once: does the objective survey anything, and are features free of gradient, so that they can be kept?"""
        self.training_step.eval()  # so that looking changes no running statistics
        encode = self.training_step.model.encode
        with self.accelerator.autocast():
            with torch.no_grad():
                self._needs["survey"] = bool(self._ask(batch).embeddings)
            self._needs["features"] = not self.engine.inside(lambda: encode(batch.visual).patches.requires_grad)
        self.training_step.train()  # frozen parts stay in eval mode

    def _apply(self, norm: Tensor) -> None:
        self.engine.apply(norm, self.gradient_clip_norm)
        if self.average is not None:
            self.average.update()

    def _agree(self, is_broken: Tensor, overflows: Tensor, stop_requested: bool) -> list[bool]:
        """The step's only wait for the device: is a loss or a gradient not finite, was a rank told to stop?"""
        flags = torch.stack([is_broken.float(), overflows.float(), is_broken.new_full((), stop_requested).float()])
        return [count > 0 for count in self.accelerator.reduce(flags, reduction="sum").tolist()]

    def _seed(self, step: int, index: int) -> None:
        seed_micro_batch(self.seed, step, index * self.accelerator.num_processes + self.accelerator.process_index)


def weighted_sum(values: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    return torch.stack([weight * values[term] for term, weight in weights.items()]).sum()


def _detached(metrics: dict[str, tuple[Tensor, Tensor | int]]) -> dict[str, tuple[Tensor, Tensor | int]]:
    return {
        name: (total.detach(), count.detach() if isinstance(count, Tensor) else count)
        for name, (total, count) in metrics.items()
    }


def _added(
    several: list[dict[str, tuple[Tensor, Tensor | int]]],
) -> dict[str, tuple[Tensor | int, Tensor | int]]:
    added: dict[str, tuple[Tensor | int, Tensor | int]] = {}
    for metrics in several:
        for name, (total, count) in metrics.items():
            before = added.get(name, (0, 0))
            added[name] = (before[0] + total, before[1] + count)
    return added
