"""ALBEF's hidden words: against the algorithm written out, cut in any way, and T57."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import IGNORED_TARGET, Batch, TargetStates
from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.models.cross_encoder import CrossEncoder
from vlmtrain.nn.pooling import Mean
from vlmtrain.nn.soft_cross_entropy import soft_linear_cross_entropy_and_hits
from vlmtrain.nn.split_text import SplitText
from vlmtrain.objectives.base import Context, Lesson, Objective
from vlmtrain.objectives.masked_language_modeling import MaskedLanguageModeling
from vlmtrain.objectives.matching import ImageTextMatching
from vlmtrain.objectives.mixture import Mixture
from vlmtrain.objectives.momentum_contrastive import MomentumContrastive
from vlmtrain.objectives.momentum_masked_language_modeling import ANSWERS, MomentumMaskedLanguageModeling
from vlmtrain.training.accelerator import build_accelerator
from vlmtrain.training.ema import ExponentialMovingAverage
from vlmtrain.training.schedule import Schedule
from vlmtrain.training.step import TrainingStep
from vlmtrain.training.update import Update

TERM = "masked_language_modeling"
MOMENTUM, ALPHA, RAMP, RATE, BATCH = 0.8, 0.4, 3, 0.01, 4


@pytest.fixture
def model(tokenizer_folder: str, make_model: Callable[..., nn.Module]) -> CrossEncoder:
    encoder = make_model(frozen_encoder=False).encoder
    assert isinstance(encoder, VisionEncoder)
    text = partial(SplitText, width=16, text_depth=1, fusion_depth=2, num_heads=2)
    built = CrossEncoder(encoder, text, tokenizer_folder, embedding_width=8, pooling=Mean)
    for parameter in built.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    return built


def update_of(model: nn.Module, objective: Objective) -> Update:
    """Plain gradient descent: a step is the gradient itself, where Adam would make much of what should be 0."""
    optimizer = torch.optim.SGD([{"params": list(model.parameters()), "multiple": 1.0}], lr=RATE)
    schedule = Schedule(RATE, max_steps=100, shape="constant")
    average = ExponentialMovingAverage(model, MOMENTUM)
    step = TrainingStep(model, objective)
    return Update(build_accelerator("fp32"), step, optimizer, schedule, gradient_clip_norm=None, average=average)


def all_logits(model: CrossEncoder, batch: Batch) -> Tensor:
    """Of every position, padding too [B, T, vocabulary]; every layer in full, nothing packed, nothing left out."""
    assert batch.text.masked is not None
    ids, text = batch.text.masked.input_ids, model.text
    visible = batch.text.masked.attention_mask[:, None, None, :]
    patches = model.encode(batch.visual).patches
    states = text.norm(text.words(ids) + text.positions(torch.arange(ids.shape[1])))
    for layer in text.stack():
        states = layer.self_attention(states, layer.self_attention.remember(states), visible)
        if layer.cross_attention is not None:
            states = layer.cross_attention(states, layer.cross_attention.remember(patches))
        states = layer.feed_forward(states)
    return text.logits(states)


def albef(model: CrossEncoder, batches: list[Batch]) -> list[float]:
    """Equation 7 of the paper over all positions, those that hide nothing ignored; trains `model`."""
    teacher, losses = copy.deepcopy(model), []
    for step, batch in enumerate(batches):
        alpha = ALPHA * min(1, step / RAMP)
        with torch.no_grad():
            for mean, value in zip(teacher.parameters(), model.parameters(), strict=True):
                mean.copy_(MOMENTUM * mean + (1 - MOMENTUM) * value)
            soft = all_logits(teacher, batch).softmax(-1)
        labels, logits = batch.text.masked.targets, all_logits(model, batch)
        hard = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED_TARGET)
        distilled = -(logits.log_softmax(-1) * soft).sum(-1)[labels != IGNORED_TARGET].mean()
        loss = (1 - alpha) * hard + alpha * distilled
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for value in model.parameters():
                if value.grad is not None:
                    value -= RATE * value.grad
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("size", [4, 2, 1])
def test_six_steps_equal_the_algorithm_of_albef_however_the_batch_is_cut(
    model: CrossEncoder, size: int, batch_of: Callable[..., Batch], hide_words: Callable[..., Batch], cut: Callable
) -> None:
    """The teacher follows, its share ramps up; rows hide one or two words, so that micro-batches weigh unevenly."""
    reference, update = copy.deepcopy(model), update_of(model, MomentumMaskedLanguageModeling(1.0, ALPHA, RAMP))
    batches = [hide_words(batch_of(BATCH, seed=step), seed=step) for step in range(6)]
    wanted = albef(reference, batches)
    for step, batch in enumerate(batches):
        assert update(cut(batch, size), step).loss().item() == pytest.approx(wanted[step], abs=1e-5)
    for (name, value), its in zip(model.named_parameters(), reference.parameters(), strict=True):
        assert (value - its).abs().max() < 1e-5, name


@pytest.mark.parametrize("size", [4, 1])
def test_t14_all_of_albef_cut_into_micro_batches_is_one_step(
    model: CrossEncoder, size: int, batch_of: Callable[..., Batch], hide_words: Callable[..., Batch], cut: Callable
) -> None:
    """Contrast, matching and hidden words together, with teacher and queue."""
    torch.manual_seed(1)
    objective = Mixture(
        {
            "matching": ImageTextMatching(),
            "words": MomentumMaskedLanguageModeling(0.5, ALPHA),
            "contrastive": MomentumContrastive(8, 16, ALPHA),
        }
    )
    update = update_of(copy.deepcopy(model), copy.deepcopy(objective))
    pieces = update_of(model, objective)
    for step in range(3):
        batch = hide_words(batch_of(8, seed=step))
        one, other = update([batch], step), pieces(cut(batch, size), step)
        for term in ("matching", "words", "contrastive"):
            assert abs(one.shares[term] - other.shares[term]) < 1e-5, term
        worst = [
            (value - its).abs().max()
            for value, its in zip(model.parameters(), update.training_step.model.parameters(), strict=True)
        ]
        assert max(worst) < 1e-5
    queues = [each.training_step.objective.objectives["contrastive"].texts for each in (update, pieces)]
    assert (queues[0] - queues[1]).abs().max() < 1e-5


def test_t57_positions_that_hide_nothing_have_no_gradient(
    model: CrossEncoder, batch_of: Callable[..., Batch], hide_words: Callable[..., Batch]
) -> None:
    """Nothing of what the last layer makes of them reaches the loss: its gradient is that of the hidden ones' logits,
    padded with zeros."""
    batch = hide_words(batch_of(3))
    objective, features = MomentumMaskedLanguageModeling(), model.encode(batch.visual)
    lesson = Lesson(5, {}, objective.answer(copy.deepcopy(model), Context(features, batch)))
    objective(model, Context(features, batch, lesson=lesson)).totals[TERM].backward()
    found = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    logits, labels = all_logits(model, batch), batch.text.masked.targets
    hidden = labels != IGNORED_TARGET
    answers = lesson.answers[ANSWERS].softmax(-1)
    loss = -0.6 * logits.log_softmax(-1)[hidden].gather(1, labels[hidden, None]).sum()
    loss = loss - 0.4 * (logits.log_softmax(-1)[hidden] * answers).sum()
    (slope,) = torch.autograd.grad(loss, logits, retain_graph=True)
    assert (slope[~hidden] == 0).all() and (slope[hidden].abs().sum(-1) > 0).all()
    logits.backward(slope.masked_fill(~hidden[..., None], 0.0))
    for name, value in model.named_parameters():
        if name in found:
            assert (found[name] - value.grad).abs().max() < 1e-5, name
    assert {"text.head.dense.weight", "text.head.bias", "encoder.project.weight"} <= found.keys()


def test_t57_the_image_takes_part(
    model: CrossEncoder, batch_of: Callable[..., Batch], hide_words: Callable[..., Batch]
) -> None:
    batch, objective = hide_words(batch_of(3)), MaskedLanguageModeling()
    other = replace(batch.visual, pixels=batch.visual.pixels.roll(1, 0))
    totals = [objective(model, Context(model.encode(visual), batch)).totals[TERM] for visual in (batch.visual, other)]
    assert abs(totals[0] - totals[1]) > 1e-3


def test_without_distillation_there_is_no_teacher_and_the_loss_is_the_plain_one(
    model: CrossEncoder, batch_of: Callable[..., Batch], hide_words: Callable[..., Batch]
) -> None:
    context = Context(model.encode((batch := hide_words(batch_of(3))).visual), batch)
    for objective in (MomentumMaskedLanguageModeling(distillation=0.0), MomentumMaskedLanguageModeling(weight=0.0)):
        assert not objective.has_teacher and objective.answer(model, context) == {}
    plain = MomentumMaskedLanguageModeling(distillation=0.0)(model, context).totals[TERM]
    assert torch.equal(plain, MaskedLanguageModeling()(model, context).totals[TERM])
    beginning = MomentumMaskedLanguageModeling(ramp_steps=10)
    lesson = Lesson(0, {}, beginning.answer(model, context))
    torch.testing.assert_close(beginning(model, replace(context, lesson=lesson)).totals[TERM], plain)


def test_weights_of_sources_and_rows_that_hide_nothing(
    model: CrossEncoder, batch_of: Callable[..., Batch], hide_words: Callable[..., Batch]
) -> None:
    batch, objective = hide_words(batch_of(3)), MomentumMaskedLanguageModeling()
    alone = []
    for row in range(3):
        one = batch.text.masked.targets.clone()
        one[[other for other in range(3) if other != row]] = IGNORED_TARGET
        alone.append(total_of(model, objective, with_targets(batch, one)))
    weighted = replace(batch, weights=[1.0, 0.5, 2.0])
    assert objective.counts(weighted) == {TERM: 1 + 2 * 0.5 + 2}
    torch.testing.assert_close(total_of(model, objective, weighted), alone[0] + alone[1] / 2 + alone[2] * 2)
    nothing = with_targets(batch, torch.full_like(batch.text.masked.targets, IGNORED_TARGET))
    model.zero_grad()
    total = total_of(model, objective, nothing)
    total.backward()
    assert total == 0
    unread = {name for name, value in model.named_parameters() if value.grad is None}
    assert unread == {
        "log_temperature",
        *(f"{head}.{kind}" for head in HEADS_OF_OTHERS for kind in ("weight", "bias")),
    }
    assert not any(value.grad.any() for name, value in model.named_parameters() if name not in unread)


HEADS_OF_OTHERS = ("visual_projection", "text_projection", "match_head")


def with_targets(batch: Batch, targets: Tensor) -> Batch:
    per_sample = (targets != IGNORED_TARGET).sum(1).tolist()
    masked = replace(batch.text.masked, targets=targets)
    masked = replace(masked, supervised=sum(per_sample), supervised_per_sample=per_sample)
    return replace(batch, text=replace(batch.text, masked=masked))


def total_of(model: CrossEncoder, objective: MomentumMaskedLanguageModeling, batch: Batch) -> Tensor:
    context = Context(model.encode(batch.visual), batch)
    with torch.no_grad():
        answers = objective.answer(model, Context(model.encode(batch.visual), batch))
    total = objective(model, replace(context, lesson=Lesson(5, {}, answers))).totals[TERM]
    assert isinstance(total, Tensor)
    return total


def test_chunks_of_logits_add_up() -> None:
    torch.manual_seed(0)
    head, weights = nn.Linear(4, 9), torch.rand(7)
    states, targets, answers = torch.randn(7, 4, requires_grad=True), torch.randint(0, 9, (7,)), torch.randn(7, 9)
    found = []
    for rows in (7, 3, 1):
        total, hits = soft_linear_cross_entropy_and_hits(
            TargetStates(states, targets, head), answers, 0.3, weights, rows
        )
        found.append((total, hits, *torch.autograd.grad(total, [states, *head.parameters()])))
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            torch.testing.assert_close(one, other)


def test_what_is_missing_is_named(
    model: CrossEncoder, batch_of: Callable[..., Batch], hide_words: Callable[..., Batch]
) -> None:
    batch = hide_words(batch_of(2))
    with pytest.raises(ValueError, match="measure MaskedWords"):
        MomentumMaskedLanguageModeling()(model, Context(model.encode(batch.visual), batch))
    with pytest.raises(ValueError, match="share from 0 to 1"):
        MomentumMaskedLanguageModeling(distillation=2)
    with pytest.raises(ValueError, match="ramp_steps is -1"):
        MomentumMaskedLanguageModeling(ramp_steps=-1)
    with pytest.raises(ValueError, match="answers for 2 tokens, where 3 are hidden"):
        states = TargetStates(torch.zeros(3, 4), torch.zeros(3, dtype=torch.long), nn.Linear(4, 5))
        soft_linear_cross_entropy_and_hits(states, torch.zeros(2, 5), 0.4)
    with pytest.raises(ValueError, match="these rows hide nothing"):
        model.hidden_states(model.encode(batch.visual), replace(batch.text, targets=None), torch.arange(2))
