"""A toy model, objective and data behind the real seams, and runs of it in processes of their own."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vlmtrain.batch import Batch, TextBatch, VisualBatch, VisualFeatures
from vlmtrain.layout import Layout
from vlmtrain.models.capabilities import Trainable
from vlmtrain.objectives.base import Context, Loss, Objective
from vlmtrain.objectives.contrastive import Contrastive
from vlmtrain.objectives.momentum_contrastive import MomentumContrastive
from vlmtrain.training.accelerator import build_accelerator
from vlmtrain.training.actions.check_ranks import CheckRanks
from vlmtrain.training.actions.log import Log
from vlmtrain.training.actions.sample_log import SampleLog
from vlmtrain.training.actions.save import Save
from vlmtrain.training.checkpoint import Checkpoints
from vlmtrain.training.ema import ExponentialMovingAverage
from vlmtrain.training.engines.base import Engine
from vlmtrain.training.engines.deepspeed import ZeroWhole
from vlmtrain.training.engines.fsdp2 import FSDP2
from vlmtrain.training.engines.replicated import Replicated
from vlmtrain.training.engines.zero3 import Zero3
from vlmtrain.training.files import PartFiles, WholeFiles
from vlmtrain.training.loss_scale import DynamicLossScale, build_loss_scale
from vlmtrain.training.optimizer import AdamWChoices, build_optimizer, optimizer_tensors
from vlmtrain.training.precision import resolve_precision, set_weight_precision
from vlmtrain.training.schedule import Schedule
from vlmtrain.training.signals import Signals
from vlmtrain.training.state import TrainingState
from vlmtrain.training.step import TrainingStep
from vlmtrain.training.stops import TrainingStopped
from vlmtrain.training.tensor_file import TensorFile
from vlmtrain.training.thawing import Thawing
from vlmtrain.training.trainability import set_trainability
from vlmtrain.training.trainer import Trainer
from vlmtrain.training.update import Update

VOCABULARY, WIDTH, SIDE = 17, 8, 4
ENGINES: dict[str, Callable[[], Engine]] = {
    "ddp": Replicated,
    "fsdp2": FSDP2,
    "fsdp2_frozen_whole": partial(FSDP2, shard_frozen=False, reshard_after_forward=False),
    "fsdp2_offload": partial(FSDP2, offload=True),
    "fsdp2_copies": partial(FSDP2, copies=2),
    "zero1": partial(ZeroWhole, stage=1),
    "zero2": partial(ZeroWhole, stage=2),
    "zero2_offload": partial(ZeroWhole, stage=2, offload=True),
    "zero3": Zero3,
}
FROZEN_ENCODER = {"encoder": None, "connector": 1.0, "head": 0.5, "scale": 1.0}


class ToyEncoder(nn.Module):
    source = "toy"

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(3 * SIDE * SIDE, WIDTH)
        self.norm = nn.BatchNorm1d(WIDTH)
        self.dropout = nn.Dropout(0.5)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.dropout(self.norm(self.project(pixels.flatten(1).float() / 255)))


class ToyModel(nn.Module):
    """Two embeddings, and a guess of each text token from the image and the token before."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder = ToyEncoder()
        self.connector = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.Dropout(dropout))
        self.head = nn.ModuleDict({"embed": nn.Embedding(VOCABULARY, WIDTH), "out": nn.Linear(WIDTH, VOCABULARY)})
        self.scale = nn.Parameter(torch.tensor(2.0))

    def encode(self, visual: VisualBatch) -> VisualFeatures:
        patches = self.encoder(visual.pixels).unsqueeze(1)  # [N, 1, W]
        return VisualFeatures(patches, visual.tiles_per_item, visual.items_per_sample)

    def wrapping_units(self) -> list[nn.Module]:
        return [self.connector]

    def layout(self) -> Layout:
        raise NotImplementedError

    def placeholders_per_item(self, tiles: int) -> int:
        return 0

    def embed_visual(self, visual: VisualFeatures) -> Tensor:
        return nn.functional.normalize(self.connector(visual.patches), dim=-1)  # [B, 1, E]

    def embed_text(self, text: TextBatch) -> Tensor:
        words = self.head["embed"](text.input_ids) * text.attention_mask.unsqueeze(-1)
        return nn.functional.normalize(words.sum(1), dim=-1)  # [B, E]

    def similarity_scale(self) -> Tensor:
        return self.scale

    def token_logits(self, visual: VisualFeatures, text: TextBatch) -> Tensor:
        words = self.head["embed"](text.input_ids)
        return self.scale * self.head["out"](words + self.connector(visual.patches))  # [B, T, vocabulary]


class Guessing(Objective):
    """Cross-entropy summed over supervised tokens: every sample has another number of them."""

    needs = Trainable

    def weights(self) -> dict[str, float]:
        return {"guessing": 0.7}

    def counts(self, batch: Batch) -> dict[str, int]:
        return {"guessing": batch.text.supervised}

    def forward(self, model: nn.Module, context: Context) -> Loss:
        text = context.batch.text
        logits = model.token_logits(context.features, text)  # type: ignore[operator]
        total = nn.functional.cross_entropy(logits.flatten(0, 1), text.targets.flatten(), reduction="sum")
        right = (logits.argmax(-1) == text.targets).sum()
        return Loss({"guessing": total}, {"accuracy": (right, text.supervised)})


class ToySteps:
    """A pure function of the step: the global batch, and the micro-batches of one rank in it."""

    def __init__(self, size: int, accumulate: int = 1, rank: int = 0, world: int = 1) -> None:
        self.size, self.accumulate, self.rank, self.world = size, accumulate, rank, world

    def steps(self, start: int) -> Iterator[list[Batch]]:
        step = start
        while True:
            yield [self.micro_batch(step, index * self.world + self.rank) for index in range(self.accumulate)]
            step += 1

    def micro_batch(self, step: int, number: int) -> Batch:
        each = self.size // (self.accumulate * self.world)
        return toy_batch([step * self.size + number * each + row for row in range(each)], step)


def toy_batch(samples: list[int], step: int) -> Batch:
    pixels, rows = [], []
    for sample in samples:
        generator = torch.Generator().manual_seed(sample)
        pixels.append(torch.randint(0, 256, (3, SIDE, SIDE), generator=generator, dtype=torch.uint8))
        rows.append(torch.randint(1, VOCABULARY, (1 + sample % 5,), generator=generator))
    input_ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    targets = (input_ids + 1).remainder(VOCABULARY).masked_fill(input_ids == 0, -100)
    text = TextBatch(
        input_ids, input_ids != 0, torch.zeros_like(input_ids, dtype=torch.bool), targets, 0, sum(map(len, rows))
    )
    visual = VisualBatch(torch.stack(pixels), [1] * len(samples), [1] * len(samples))
    return Batch(visual, text, step, [f"s{sample}" for sample in samples])


def build_trainer(folder: Path, max_steps: int = 12, **choices: object) -> Trainer:
    """A trainer of the toy; for `choices` see the calls of `choices.get`."""
    world = int(str(choices.get("world", 1)))
    precision = resolve_precision(choices.get("precision", "fp32"))  # type: ignore[arg-type]
    accelerator = build_accelerator(precision, world)
    torch.manual_seed(0)
    model = ToyModel(float(str(choices.get("dropout", 0.1))))
    rates = choices.get("rates", FROZEN_ENCODER)
    assert isinstance(rates, dict)
    thawing = Thawing(rates)
    multiples = set_trainability(model, thawing.at_the_end())
    set_weight_precision(model, precision)
    objective = choices.get("objective", Guessing())
    assert isinstance(objective, Objective)
    step = TrainingStep(model, objective)
    engine = ENGINES[str(choices.get("engine", "ddp"))]()
    engine.lay_out(accelerator, step)
    optimizer = build_optimizer(model, multiples, AdamWChoices())
    if choices.get("eval_norm"):
        model.encoder.eval()
        model.encoder.__dict__["train"] = lambda mode=True: model.encoder
    average = ExponentialMovingAverage(model, 0.9) if choices.get("ema") else None
    state = TrainingState(model, optimizer, average, objective, engine)
    lr = float(str(choices.get("lr", 0.01)))
    schedule = Schedule(lr=lr, max_steps=int(str(choices.get("schedule_steps", max_steps))), warmup=2)
    scale = DynamicLossScale(*choices["loss_scale"]) if "loss_scale" in choices else build_loss_scale(precision)  # type: ignore[misc]
    update = Update(accelerator, step, optimizer, schedule, 3, 1.0, average, thawing, engine, scale)
    size, accumulate = int(str(choices.get("size", 8))), int(str(choices.get("accumulate", 1)))
    source = ToySteps(size, accumulate, accelerator.process_index, world)
    checkpoints = Checkpoints(
        folder / "checkpoints" / "toy",
        state,
        accelerator,
        keep=int(str(choices.get("keep", 2))),
        files=PartFiles() if choices.get("in_parts") else WholeFiles(),
        is_asynchronous=bool(choices.get("asynchronously")),
    )

    def write(step: int, averages: dict[str, float]) -> None:
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **averages}) + "\n")

    check = [CheckRanks(int(str(choices["check_every"])))] if "check_every" in choices else []
    actions = [*check, SampleLog(), Log(1, write), Save(int(str(choices.get("save_every", 3))))]
    folder.mkdir(parents=True, exist_ok=True)
    return Trainer(update, source, checkpoints, max_steps, folder / "logs", actions)


def run(folder: Path, max_steps: int = 12, **choices: object) -> Trainer:
    trainer = build_trainer(folder, max_steps, **choices)
    with Signals() as signals:
        trainer.resume()
        trainer.train(signals)
    return trainer


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def last_per_step(lines: list[dict]) -> dict[int, dict]:
    return {line["step"]: line for line in lines}


class Broken(Guessing):
    """Guessing with a fault at chosen steps: on one rank the loss, or the gradient of one tensor, is NaN."""

    def __init__(self, steps: list[int], rank: int = 0, where: str = "loss") -> None:
        super().__init__()
        self.steps, self.rank, self.where = steps, rank, where

    def forward(self, model: nn.Module, context: Context) -> Loss:
        loss = super().forward(model, context)
        if context.batch.seed not in self.steps or int(os.environ.get("RANK", "0")) != self.rank:
            return loss
        total = loss.totals["guessing"]
        if self.where == "loss":
            return Loss({"guessing": total * float("nan")}, loss.metrics)
        surrogate = model.head["out"].weight.sum() * 0.0  # type: ignore[index, union-attr]  in no unit: whole for all
        surrogate.register_hook(lambda gradient: gradient * float("nan"))
        return Loss({"guessing": total + surrogate}, loss.metrics)


def momentum() -> MomentumContrastive:
    torch.manual_seed(5)  # the queue begins alike in every process
    return MomentumContrastive(WIDTH, queue_size=12, ramp_steps=2)


OBJECTIVES = {"guessing": Guessing, "contrastive": Contrastive, "momentum": momentum}


def child(folder: str, rank: int, world: int, port: int, job: dict) -> None:
    """One rank of a run, in a process of its own; ends with the exit code that a run would have."""
    torch.set_num_threads(1)
    if world > 1:
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), **where)
    pace, flip = job.pop("pace", 0.0), job.pop("flip", None)
    if "stall" in job:
        _at_file(*job.pop("stall"), partial(_stall, Path(folder)))
    if "full" in job:
        _at_file(*job.pop("full"), _refuse)
    job["objective"] = (
        Broken(**job.pop("broken")) if "broken" in job else OBJECTIVES[job.pop("objective", "guessing")]()
    )
    trainer = build_trainer(Path(folder), world=world, **job)
    gradients: list[dict[str, Tensor]] = []
    parameters = dict(trainer.model.named_parameters())
    if "engine" not in job:  # others hold no whole gradients
        trainer.update.optimizer.register_step_pre_hook(lambda *_: gradients.append(_gradients(parameters)))
    trainer.actions = [_Pace(pace), *([_Flip(flip)] if flip and rank == 1 else []), *trainer.actions]
    try:
        with Signals() as signals:
            trainer.resume()
            Path(folder, f"started-{rank}").touch()
            trainer.train(signals)
    except TrainingStopped as stopped:
        Path(folder, f"stopped-{rank}.txt").write_text(f"{trainer.progress.step} {stopped}")
        os._exit(stopped.exit_code)
    if rank == 0 and "engine" not in job:
        by_step = {f"{step}/{name}": value for step, each in enumerate(gradients) for name, value in each.items()}
        save_file(by_step, Path(folder, "gradients.safetensors"))
        save_file({name: value.detach() for name, value in parameters.items()}, Path(folder, "final.safetensors"))
        save_file(optimizer_tensors(trainer.update.optimizer), Path(folder, "moments.safetensors"))
    os._exit(0)


def _gradients(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.grad.clone() for name, value in parameters.items() if value.grad is not None}


def _at_file(step: str, file: str, strike: Callable[[], None]) -> None:
    """Something happens before this file of this checkpoint is written."""
    real = TensorFile.write

    def write(content: TensorFile, path: Path) -> None:
        if path.name == file and any(step in part for part in path.parts):
            strike()
        real(content, path)

    TensorFile.write = write  # type: ignore[method-assign]


def _stall(folder: Path) -> None:
    (folder / "stalled").touch()
    time.sleep(600)


def _refuse() -> None:
    raise OSError("No space left on device")


class _Pace:
    """Makes steps slow enough to be hit."""

    every = 1

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, trainer: Trainer) -> None:
        time.sleep(self.seconds)


class _Flip:
    """Flips one mantissa bit of one weight, once; not the last bit, which the next rounding may restore."""

    every = 1

    def __init__(self, step: int) -> None:
        self.step: int | None = step

    def __call__(self, trainer: Trainer) -> None:
        if trainer.progress.step == self.step:
            self.step = None
            trainer.model.connector[0].weight.data.view(torch.int32)[0, 0] ^= 1 << 12  # type: ignore[index, union-attr, operator]


def start(folder: Path, world: int = 1, **job: object) -> list[BaseProcess]:
    """Start the ranks of a run from a server that has torch imported already."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("started-*"):
        left.unlink()
    context = multiprocessing.get_context("forkserver")
    # The optimizer and DDP import dynamo when they are built: once in the server is enough.
    context.set_forkserver_preload(
        ["training_toy", "torch._dynamo", "torch.distributed.tensor", "torch._inductor.utils"]
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks: list[BaseProcess] = []
    for rank in range(world):
        ranks.append(context.Process(target=child, args=(str(folder), rank, world, port, dict(job)), daemon=True))
        ranks[-1].start()
    return ranks


def join(ranks: list[BaseProcess], timeout: float = 120.0) -> list[int | None]:
    """Exit codes; None for a rank that hangs."""
    for rank in ranks:
        rank.join(timeout)
    return [rank.exitcode for rank in ranks]


def wait_until_started(folder: Path, world: int, timeout: float = 120.0) -> None:
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if all((folder / f"started-{rank}").exists() for rank in range(world)):
            return
        time.sleep(0.01)
    raise TimeoutError(f"the run in {folder} did not start")
