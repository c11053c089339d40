"""One stage of a run: what its section of the configuration builds, and how it is trained and evaluated."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from vlmtrain.config.build import build
from vlmtrain.config.check import IMAGE_TRANSFORM
from vlmtrain.data.collate import Collator
from vlmtrain.data.forms.base import max_frames_of
from vlmtrain.data.keys import key_of
from vlmtrain.data.loading import EvaluationBatches, LoadingPlan, StepLoader, Transform
from vlmtrain.data.quarantine import Quarantine
from vlmtrain.evaluation.base import EvaluationResult, EvaluationTools, evaluate_all
from vlmtrain.journal import Journal
from vlmtrain.nn.file_weights import weights_left_in_files
from vlmtrain.nn.tile_sizes import Squares
from vlmtrain.objectives.from_origins import require_origins
from vlmtrain.training.accelerator import build_accelerator
from vlmtrain.training.actions.check_ranks import CheckRanks
from vlmtrain.training.actions.evaluate import Evaluate
from vlmtrain.training.actions.find_stragglers import FindStragglers
from vlmtrain.training.actions.log import Log
from vlmtrain.training.actions.sample_log import SampleLog
from vlmtrain.training.actions.save import Save
from vlmtrain.training.agreement import require_agreement
from vlmtrain.training.checkpoint import Checkpoints
from vlmtrain.training.ema import ExponentialMovingAverage
from vlmtrain.training.engines.base import Engine
from vlmtrain.training.engines.replicated import Replicated
from vlmtrain.training.files import PartFiles, WholeFiles
from vlmtrain.training.gradient_shares import GradientShares
from vlmtrain.training.hand_over import take_over
from vlmtrain.training.loss_scale import build_loss_scale
from vlmtrain.training.optimizer import AdamWChoices, build_optimizer
from vlmtrain.training.precision import resolve_precision, set_weight_precision
from vlmtrain.training.schedule import Schedule
from vlmtrain.training.signals import Signals
from vlmtrain.training.state import TrainingState
from vlmtrain.training.step import TrainingStep
from vlmtrain.training.thawing import thawing_of
from vlmtrain.training.trainability import enable_gradient_checkpointing, set_trainability
from vlmtrain.training.trainer import Action, Trainer
from vlmtrain.training.update import Update
from vlmtrain.training.watchdog import Watch

EVALUATION_BATCH = 100
DEFAULT_IMAGE_SIZE = 32  # of models that look at no image


@dataclass(frozen=True)
class RunContext:
    """What every stage of a run shares."""

    folder: Path
    seed: int
    data: dict[str, Any]  # stage -> its data; .train: Source, .evaluation: dict[str, Source]
    distributed: dict[str, Any]  # its section of the configuration
    facts: dict[str, Any]  # go into every manifest
    init_from: Path | None = None
    watch: Watch = field(default_factory=Watch)
    start: dict[str, str] = field(default_factory=dict)  # what all ranks must have in common


class Stage:
    """A stage, built and ready.  `config` is its section, complete and checked."""

    def __init__(self, name: str, config: dict[str, Any], run: RunContext) -> None:
        self.name = name
        self.config = config
        self.run = run
        self.data = run.data[name]
        settings = config["trainer"]
        self.accelerator: Accelerator = build_accelerator(settings["precision"], run.distributed["num_processes"])
        require_agreement(self.accelerator, run.start)
        self.max_steps: int = settings["max_steps"]
        # what trains no step has no optimizer, and nothing that processes could share
        self.engine: Engine = (build(run.distributed["engine"]) if self.max_steps else None) or Replicated()
        torch.manual_seed(key_of("weights", run.seed, name) % 2**31)
        with weights_left_in_files():
            self.model: Any = build(config["model"])  # a Trainable (models.capabilities)
        self.objective = build(config["objective"])
        require_origins(self.objective, getattr(self.data, "origins", []))
        self.thawing = thawing_of(config["trainable"], self.max_steps)
        self.multiples = set_trainability(self.model, self.thawing.at_the_end())  # Update freezes what starts later
        counts = [(parameter.numel(), parameter.requires_grad) for parameter in self.model.parameters()]
        self.total_parameters = sum(count for count, _ in counts)
        self.trainable_parameters = sum(count for count, trains in counts if trains)
        self.hand_overs = take_over(self.model, config["start_from"] or {}, name, run.folder, run.init_from)
        set_weight_precision(self.model, resolve_precision(settings["precision"]))
        if settings["gradient_checkpointing"]:
            enable_gradient_checkpointing(self.model)
        self.engine.receive(self.accelerator, self.model)
        if not self.max_steps:
            self.model.to(self.accelerator.device)
        self.form = build(config["form"])
        self.transform = self._build_transform()
        max_tiles = max(getattr(self.transform, "max_tiles", 1), max_frames_of(self.form))
        self.collator = Collator(self.model.layout(), self.model.placeholders_per_item, max_tiles)
        self.evaluations = build(config["evaluation"] or {})
        for evaluation in self.evaluations.values():
            evaluation.check(self.model, self.data.evaluation)
        self.quarantine = Quarantine(
            run.folder / "logs" / name,
            len(self.data.train),
            self.accelerator.process_index,
            self.accelerator.num_processes,
        )

    def train(self, journal: Journal, signals: Signals) -> Trainer:
        """Train to the last step, from the newest checkpoint if there is one."""
        settings = self.config["trainer"]
        trainer = Trainer(
            update=self._update(),
            source=self._loader(),
            checkpoints=self.checkpoints,
            max_steps=self.max_steps,
            logs=self.run.folder / "logs" / self.name,
            actions=self._actions(journal),
            max_skipped_steps=settings["max_skipped_steps"],
            watch=self.run.watch,
        )
        self.checkpoints.require_room()
        trainer.resume()
        journal.start_stage(self.name, trainer.progress.step, self.max_steps)
        trainer.train(signals)
        return trainer

    def count_quarantined(self) -> int:
        """Samples set aside, over all ranks; all ranks must call."""
        own = torch.tensor([self.quarantine.count], device=self.accelerator.device)
        return int(self.accelerator.reduce(own, reduction="sum").item())

    def evaluate(self) -> EvaluationResult:
        """All evaluations of the stage, one after the other.  All ranks call; what the first one gets counts.

        Where ranks hold parts of the weights, all evaluate the same; else the first does, and the others go on.
        """
        if self.accelerator.is_main_process or self.engine.needs_all_ranks:
            given = (self.evaluations, self.model, self.data.evaluation, self.evaluation_tools)
            return self.engine.inside(partial(evaluate_all, *given))
        return EvaluationResult({})

    @property
    def evaluation_tools(self) -> EvaluationTools:
        batches = EvaluationBatches(self.form, self.transform, self.collator, EVALUATION_BATCH)
        return EvaluationTools(
            self.accelerator.device, batches, self.model.layout(), self.accelerator.autocast, self.objective
        )

    def _update(self) -> Update:
        settings, choices = self.config["trainer"], self.config["optimizer"]
        step = TrainingStep(self.model, self.objective)
        if settings["compile"]:
            step.compile()
        self.engine.lay_out(self.accelerator, step)
        optimizer = build_optimizer(
            self.model,
            self.multiples,
            AdamWChoices(choices["weight_decay"], tuple(choices["betas"]), choices["eps"], choices["layer_decay"]),
        )
        decay = settings["ema_decay"]
        average = ExponentialMovingAverage(self.model, decay) if decay is not None else None
        self.checkpoints = Checkpoints(
            self.run.folder / "checkpoints" / self.name,
            TrainingState(self.model, optimizer, average, self.objective, self.engine),
            self.accelerator,
            {**self.run.facts, "data": self.data.train.fingerprint, "stage": self.name},
            settings["keep_checkpoints"],
            files=PartFiles() if settings["save_in_parts"] else WholeFiles(),
            is_asynchronous=settings["save_asynchronously"],
        )
        schedule = Schedule(choices["lr"], self.max_steps, choices["min_lr"], choices["warmup"], choices["schedule"])
        seed = key_of("training", self.run.seed, self.name)
        clip = settings["gradient_clip_norm"]
        scale = build_loss_scale(resolve_precision(settings["precision"]))
        every = settings.get("gradient_shares_every", 0)  # a run may be older than the key
        shares = GradientShares(every) if every else None
        return Update(
            self.accelerator, step, optimizer, schedule, seed, clip, average, self.thawing, self.engine, scale, shares
        )

    def _loader(self) -> StepLoader:
        settings = self.config["trainer"]
        plan = LoadingPlan(
            seed=key_of("data", self.run.seed, self.name),
            batch_size=settings["batch_size"],
            max_steps=self.max_steps,
            accumulate=settings["accumulate"],
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
            num_workers=settings["num_workers"],
            together=self.data.together,
        )
        return StepLoader(self.data.train, self.form, self.transform, self.collator, plan)

    def _build_transform(self) -> Transform:
        """One for training and evaluation: what is left to chance in training is left out without a key."""
        encoder = getattr(self.model, "encoder", None)
        sizes = encoder.tile_sizes() if encoder is not None else Squares(DEFAULT_IMAGE_SIZE)
        node = {"_target_": IMAGE_TRANSFORM, **(self.config.get("transform") or {}), "_partial_": True}
        transform: Transform = build(node)(tile_sizes=sizes)
        return transform

    def _actions(self, journal: Journal) -> list[Action]:
        settings = self.config["trainer"]
        actions: list[Action] = [
            SetAside(self.quarantine),
            Log(settings["log_every"], partial(journal.training, self.name)),
        ]
        if settings["log_samples"]:
            actions.insert(0, SampleLog())
        if self.accelerator.num_processes > 1:
            actions += [CheckRanks(), FindStragglers(settings["log_every"])]
        actions.append(Save(settings["save_every"]))
        if settings["evaluate_every"]:
            actions.append(Evaluate(settings["evaluate_every"], partial(self._evaluate_along, journal)))
        return actions

    def _evaluate_along(self, journal: Journal, step: int) -> None:
        """The last step has the final evaluation instead."""
        if step < self.max_steps:
            metrics = self.evaluate().metrics
            if self.accelerator.is_main_process:
                journal.evaluation(self.name, step, metrics)
        self.accelerator.wait_for_everyone()


@dataclass(frozen=True)
class SetAside:
    """Counts broken samples of every step, and stops when there are too many."""

    quarantine: Quarantine
    every: int = 1

    def __call__(self, trainer: Trainer) -> None:
        for batch in trainer.micro_batches:
            self.quarantine.add(batch)
