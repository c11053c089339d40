"""ALBEF's contrastive loss: against a written-out reference, cut in any way, stopped and resumed."""

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from vlmtrain.batch import Batch, TextBatch, VisualBatch, VisualFeatures
from vlmtrain.layout import Layout
from vlmtrain.objectives.base import Context, Lesson
from vlmtrain.objectives.mixture import Mixture
from vlmtrain.objectives.momentum_contrastive import TEACHER_TEXT, TEACHER_VISUAL, MomentumContrastive
from vlmtrain.training.accelerator import build_accelerator
from vlmtrain.training.checkpoint import Checkpoints
from vlmtrain.training.ema import ExponentialMovingAverage
from vlmtrain.training.optimizer import AdamWChoices, build_optimizer
from vlmtrain.training.schedule import Schedule
from vlmtrain.training.state import Progress, TrainingState
from vlmtrain.training.step import TrainingStep
from vlmtrain.training.update import Update

WIDTH, QUEUE, BATCH, MOMENTUM, ALPHA, RAMP, RATE = 6, 10, 4, 0.9, 0.4, 3, 0.01


class Towers(nn.Module):
    """Two linear towers with dropout and a temperature."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.image = nn.Linear(12, WIDTH)
        self.words = nn.Embedding(20, WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(0.07)))

    def encode(self, visual: VisualBatch) -> VisualFeatures:
        return VisualFeatures(visual.pixels.flatten(1).float().unsqueeze(1) / 255, [], [])

    def layout(self) -> Layout:
        raise NotImplementedError

    def placeholders_per_item(self, tiles: int) -> int:
        return 0

    def embed_visual(self, visual: VisualFeatures) -> Tensor:
        return F.normalize(self.dropout(self.image(visual.patches)), dim=-1)

    def embed_text(self, text: TextBatch) -> Tensor:
        return F.normalize(self.dropout(self.words(text.input_ids)).mean(1), dim=-1)

    def similarity_scale(self) -> Tensor:
        return (-self.log_temperature).exp()


def batch_of(step: int, start: int = 0, size: int = BATCH) -> Batch:
    generator = torch.Generator().manual_seed(step)
    pixels = torch.randint(0, 256, (BATCH, 3, 2, 2), dtype=torch.uint8, generator=generator)
    ids = torch.randint(0, 20, (BATCH, 3), generator=generator)
    rows = slice(start, start + size)
    every = torch.ones(size, 3, dtype=torch.bool)
    return Batch(VisualBatch(pixels[rows], [1] * size, [1] * size), TextBatch(ids[rows], every, ~every), seed=step)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return build_optimizer(model, {name: 1.0 for name, _ in model.named_parameters()}, AdamWChoices(weight_decay=0.0))


def make(dropout: float = 0.0, **choices: float) -> tuple[Update, TrainingState]:
    torch.manual_seed(0)
    model = Towers(dropout)
    objective = MomentumContrastive(WIDTH, QUEUE, ALPHA, RAMP, **choices)
    optimizer = adam(model)
    average = ExponentialMovingAverage(model, MOMENTUM)
    schedule = Schedule(RATE, max_steps=100, shape="constant")
    update = Update(
        build_accelerator("fp32"),
        TrainingStep(model, objective),
        optimizer,
        schedule,
        gradient_clip_norm=None,
        average=average,
    )
    return update, TrainingState(model, optimizer, average, objective)


def albef(model: Towers, images: Tensor, texts: Tensor, num_steps: int) -> list[float]:
    """The published algorithm written out (Li et al. 2021, algorithm of section 3 and equations 1, 6): a second model
    that follows, a pointer into queues of columns; trains `model` and gives its losses."""
    teacher = copy.deepcopy(model)
    image_queue, text_queue, pointer = images.T.clone(), texts.T.clone(), 0
    optimizer = adam(model)
    for group in optimizer.param_groups:
        group["lr"] = RATE
    losses = []
    for step in range(num_steps):
        batch = batch_of(step)
        alpha = ALPHA * min(1, step / RAMP)
        image, text = model.embed_visual(model.encode(batch.visual))[:, 0], model.embed_text(batch.text)
        temperature = model.log_temperature.exp()
        with torch.no_grad():
            for mean, value in zip(teacher.parameters(), model.parameters(), strict=True):
                mean.copy_(MOMENTUM * mean + (1 - MOMENTUM) * value)
            its_image = teacher.embed_visual(teacher.encode(batch.visual))[:, 0]
            its_text = teacher.embed_text(batch.text)
            all_images = torch.cat([its_image.T, image_queue], 1)
            all_texts = torch.cat([its_text.T, text_queue], 1)
            hard = torch.zeros(BATCH, BATCH + QUEUE)
            hard.fill_diagonal_(1)
            image_targets = alpha * F.softmax(its_image @ all_texts / temperature, 1) + (1 - alpha) * hard
            text_targets = alpha * F.softmax(its_text @ all_images / temperature, 1) + (1 - alpha) * hard
        of_images = -(F.log_softmax(image @ all_texts / temperature, 1) * image_targets).sum(1).mean()
        of_texts = -(F.log_softmax(text @ all_images / temperature, 1) * text_targets).sum(1).mean()
        loss = (of_images + of_texts) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for row in range(BATCH):
            image_queue[:, pointer], text_queue[:, pointer] = its_image[row], its_text[row]
            pointer = (pointer + 1) % QUEUE
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("cut", [1, 2, 4])
def test_eight_steps_equal_the_algorithm_of_albef_however_the_batch_is_cut(cut: int) -> None:
    """Soft targets ramp up, the queue wraps around twice, the teacher follows; a cut batch is one batch."""
    update, _ = make()
    objective, model = update.training_step.objective, update.training_step.model
    reference = copy.deepcopy(model)
    wanted = albef(reference, objective.images, objective.texts, num_steps=8)
    size = BATCH // cut
    for step, loss in enumerate(wanted):
        result = update([batch_of(step, start, size) for start in range(0, BATCH, size)], step)
        assert result.loss().item() == pytest.approx(loss, abs=1e-5)
    for (name, value), its in zip(model.named_parameters(), reference.parameters(), strict=True):
        assert (value - its).abs().max() < 1e-5, name


def test_without_distillation_it_is_plain_cross_entropy() -> None:
    torch.manual_seed(1)
    model, objective = Towers(), MomentumContrastive(WIDTH, QUEUE, distillation=0.0)
    batch = batch_of(0)
    with torch.no_grad():
        teacher = objective.teach(Towers(), Context(model.encode(batch.visual), batch))
    context = Context(model.encode(batch.visual), batch, lesson=Lesson(5, teacher))
    loss = objective(model, context).totals["contrastive"]
    image, text = model.embed_visual(context.features)[:, 0], model.embed_text(batch.text)
    scale, pair = model.similarity_scale(), torch.arange(BATCH)
    of_images = F.cross_entropy(scale * image @ torch.cat([teacher[TEACHER_TEXT], objective.texts]).T, pair)
    of_texts = F.cross_entropy(scale * text @ torch.cat([teacher[TEACHER_VISUAL], objective.images]).T, pair)
    torch.testing.assert_close(loss / BATCH, (of_images + of_texts) / 2)


def test_the_teacher_has_no_gradient_no_dropout_and_no_part_in_the_optimizer() -> None:
    update, _ = make(dropout=0.5)
    assert update.average is not None
    with update.average.applied():
        once = update.training_step.teach(batch_of(0), 0).embeddings
        again = update.training_step.teach(batch_of(0), 0).embeddings
    assert all(torch.equal(once[name], again[name]) and not once[name].requires_grad for name in once)
    assert update.training_step.training
    before = {name: value.clone() for name, value in update.training_step.model.named_parameters()}
    assert all(torch.equal(value, before[name]) for name, value in update.training_step.model.named_parameters())
    trained = {id(parameter) for group in update.optimizer.param_groups for parameter in group["params"]}
    assert trained.isdisjoint(map(id, update.average.averages.values()))


def test_a_resumed_run_has_the_same_teacher_queue_and_losses_to_the_last_bit(tmp_path: Path) -> None:
    straight, _ = make(dropout=0.3)
    losses = [straight([batch_of(step)], step).loss().item() for step in range(7)]
    first, state = make(dropout=0.3)
    for step in range(4):
        first([batch_of(step)], step)
    checkpoints = Checkpoints(tmp_path, state, first.accelerator)
    assert checkpoints.save(Progress(step=4))
    torch.manual_seed(99)
    second, state = make(dropout=0.3)
    for buffer in second.training_step.objective.buffers():
        buffer.zero_()
    progress = Checkpoints(tmp_path, state, second.accelerator).restore_newest()
    assert progress is not None and progress.step == 4
    assert [second([batch_of(step)], step).loss().item() for step in range(4, 7)] == losses[4:]
    ends = [dict(each.training_step.objective.named_buffers()) for each in (straight, second)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ("images", "texts", "position"))
    assert straight.average is not None and second.average is not None
    for name, value in straight.average.averages.items():
        assert torch.equal(value, second.average.averages[name])
    (saved,) = tmp_path.glob("step-*/objective.safetensors")
    assert load_file(saved)["images"].shape == (QUEUE, WIDTH)


def test_a_checkpoint_without_the_queue_is_refused(tmp_path: Path) -> None:
    update, state = make()
    update([batch_of(0)], 0)
    without = TrainingState(state.model, state.optimizer, state.average)
    assert Checkpoints(tmp_path, without, update.accelerator).save(Progress(step=1))
    with pytest.raises(ValueError, match="does not hold images, position, texts of the objective"):
        Checkpoints(tmp_path, state, update.accelerator).restore_newest()


def test_a_skipped_step_leaves_queue_and_teacher_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    update, state = make()
    kept = {name: value.clone() for name, value in state.objective.state_dict().items()}  # type: ignore[union-attr]
    monkeypatch.setattr(Towers, "similarity_scale", lambda self: self.log_temperature * float("nan"))
    assert not update([batch_of(0)], 0).is_applied
    assert all(torch.equal(value, kept[name]) for name, value in state.objective.state_dict().items())  # type: ignore[union-attr]


def test_in_a_mixture_it_comes_first_and_is_taught_once() -> None:
    mixture = Mixture({"contrastive": MomentumContrastive(WIDTH, QUEUE)})
    assert mixture.has_teacher and set(mixture.state_dict()) == {
        "objectives.contrastive.images",
        "objectives.contrastive.position",
        "objectives.contrastive.texts",
    }
    off = Mixture({"contrastive": MomentumContrastive(WIDTH, QUEUE, weight=0.0)})
    assert not off.has_teacher and off.teach(Towers(), Context(None, batch_of(0))) == {}  # type: ignore[arg-type]


def test_the_share_of_the_teacher_grows_over_its_ramp() -> None:
    distillation = MomentumContrastive(WIDTH, QUEUE, 0.4, ramp_steps=4).distillation
    shares = [distillation.share_at(step) for step in (0, 1, 2, 4, 9)]
    assert shares == pytest.approx([0, 0.1, 0.2, 0.4, 0.4])
    assert MomentumContrastive(WIDTH, QUEUE, 0.4).distillation.share_at(0) == 0.4


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(ValueError, match="share from 0 to 1"):
        MomentumContrastive(WIDTH, QUEUE, 1.5)
    batch, model = batch_of(0), Towers()
    context = Context(model.encode(batch.visual), batch)
    with pytest.raises(ValueError, match="only training has"):
        MomentumContrastive(WIDTH, QUEUE)(model, context)
    with pytest.raises(ValueError, match="queue of width 5"):
        MomentumContrastive(5, QUEUE).teach(model, context)
    small = MomentumContrastive(WIDTH, 3)
    with pytest.raises(ValueError, match="queue_size 3 is smaller than the 4 samples"):
        small.keep(small.teach(model, context), 0)
    update, _ = make()
    with pytest.raises(ValueError, match=r"set trainer\.ema_decay"):
        Update(update.accelerator, update.training_step, update.optimizer, update.schedule)
