"""Objectives routed by source: each on its own samples as if there were no others, however the batch is cut."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from test_momentum_contrastive import QUEUE, WIDTH, Towers, adam, batch_of
from torch import Tensor

from vlmtrain.batch import Batch, VisualBatch, VisualFeatures
from vlmtrain.objectives.base import Context, Objective
from vlmtrain.objectives.contrastive import Contrastive
from vlmtrain.objectives.from_origins import FromOrigins, require_origins
from vlmtrain.objectives.language_modeling import LanguageModeling
from vlmtrain.objectives.masked_language_modeling import MaskedLanguageModeling
from vlmtrain.objectives.matching import ImageTextMatching
from vlmtrain.objectives.mixture import Mixture
from vlmtrain.objectives.momentum_contrastive import MomentumContrastive
from vlmtrain.objectives.momentum_masked_language_modeling import MomentumMaskedLanguageModeling
from vlmtrain.objectives.negative_draws import Evenly
from vlmtrain.objectives.scheduled import Scheduled
from vlmtrain.selection import select_samples
from vlmtrain.training.accelerator import build_accelerator
from vlmtrain.training.ema import ExponentialMovingAverage
from vlmtrain.training.schedule import Schedule
from vlmtrain.training.step import TrainingStep
from vlmtrain.training.update import Update

ORIGINS = ["web", "web", "books", "books", "web", "books", "web", "books"]  # cut by 2 some micro-batches lack one
STAGE_ONE = {
    "contrastive": Contrastive,
    "matching": ImageTextMatching,
    "evenly": lambda: ImageTextMatching(negatives=Evenly()),
    "captioning": LanguageModeling,
}


def marked(batch: Batch) -> Batch:
    return replace(batch, origins=ORIGINS, sample_ids=[str(number) for number in range(len(ORIGINS))])


def of(batch: Batch, origin: str) -> Batch:
    return select_samples(batch, [sample for sample, its in enumerate(batch.origins) if its == origin])


@pytest.mark.parametrize("size", [8, 4, 2, 1])
@pytest.mark.parametrize("name", STAGE_ONE)
def test_it_is_the_objective_on_a_batch_of_its_own_samples(make_model, batch_of, step_of, name, size):
    model, batch = make_model(frozen_encoder=False), marked(batch_of(8))
    routed = step_of(model, FromOrigins(STAGE_ONE[name](), ["web"]), batch, size)
    alone = step_of(model, STAGE_ONE[name](), of(batch, "web"))
    assert routed.totals.keys() == alone.totals.keys()
    for term, total in alone.totals.items():
        torch.testing.assert_close(routed.totals[term], total)
    assert routed.metrics == alone.metrics
    for parameter, gradient in alone.gradients.items():
        torch.testing.assert_close(routed.gradients[parameter], gradient, msg=parameter)
    extra = routed.gradients.keys() - alone.gradients.keys()
    assert not any(routed.gradients[parameter].any() for parameter in extra)


@pytest.mark.parametrize("size", [8, 2])
def test_objectives_of_one_kind_for_two_sources_do_not_meet(make_model, batch_of, step_of, size):
    model, batch = make_model(), marked(batch_of(8))
    mixed = Mixture({name: FromOrigins(Contrastive(), [name]) for name in ("web", "books")})
    assert mixed.origins() == {"web", "books"}
    found = step_of(model, mixed, batch, size)
    for origin in ("web", "books"):
        alone = step_of(model, Contrastive(), of(batch, origin))
        torch.testing.assert_close(found.totals[origin], alone.totals["contrastive"])


def test_dropout_draws_the_same_in_survey_and_step(make_model, batch_of, step_of):
    """A forward that drew other numbers than its survey would have another gradient than the whole batch has."""
    model, batch = make_model(dropout=0.5), marked(batch_of(8))
    objective = FromOrigins(Contrastive(), ["web"])
    part = Context(model.encode(batch.visual), batch)
    torch.manual_seed(3)
    said = {name: value for name, value in objective.survey(model, part).items() if "embeddings" in name}
    torch.manual_seed(3)
    again = objective.survey(model, Context(model.encode(batch.visual), batch))
    assert said and all(torch.equal(value, again[name]) for name, value in said.items())
    for value in said.values():
        norms = value.flatten(1).norm(dim=1)
        assert [bool(norm) for norm in norms] == [origin == "web" for origin in ORIGINS]


def test_hidden_words_of_one_source(make_joint, batch_of, hide_words, step_of):
    model, batch = make_joint(), marked(hide_words(batch_of(8)))
    routed = step_of(model, FromOrigins(MaskedLanguageModeling(), ["books"]), batch, 2)
    alone = step_of(model, MaskedLanguageModeling(), of(batch, "books"))
    torch.testing.assert_close(routed.totals["masked_language_modeling"], alone.totals["masked_language_modeling"])


def test_a_source_that_a_step_lacks_counts_nothing(make_model, batch_of):
    model, batch = make_model(), replace(batch_of(4), origins=["web"] * 4)
    objective = Mixture({"books": FromOrigins(Contrastive(), ["books"]), "captioning": LanguageModeling()})
    assert objective.counts(batch)["books"] == 0
    loss = objective(model, Context(model.encode(batch.visual), batch))
    assert loss.totals["books"] == 0 and loss.totals["books"].requires_grad, "its layers have run"
    assert loss.metrics["books/image_to_text@1"] == (0, 0)


class Placed(Towers):
    """Towers that say whose features are whose."""

    def encode(self, visual: VisualBatch) -> VisualFeatures:
        return replace(
            super().encode(visual), tiles_per_item=visual.tiles_per_item, items_per_sample=visual.items_per_sample
        )


def update_of(objective: Objective) -> Update:
    torch.manual_seed(1)
    model = Placed()
    for name in ("images", "texts"):
        inner = getattr(objective, "objective", objective)
        setattr(inner, name, F.normalize(torch.randn(QUEUE, WIDTH, generator=torch.Generator().manual_seed(5)), dim=-1))
    average = ExponentialMovingAverage(model, 0.9)
    schedule = Schedule(0.01, max_steps=100, shape="constant")
    step = TrainingStep(model, objective)
    return Update(build_accelerator("fp32"), step, adam(model), schedule, gradient_clip_norm=None, average=average)


@pytest.mark.parametrize("cut", [1, 2, 4])
def test_queue_and_teacher_are_those_of_its_samples(cut: int) -> None:
    """Steps hold different numbers of them; the queue goes round more than once."""
    routed = update_of(FromOrigins(MomentumContrastive(WIDTH, QUEUE, 0.4, 3), ["web"]))
    alone = update_of(MomentumContrastive(WIDTH, QUEUE, 0.4, 3))
    counted = 0
    for step in range(9):
        origins = ["web" if (step + sample) % 4 < 1 + step % 3 else "books" for sample in range(4)]
        batch = replace(batch_of(step), origins=origins)
        size = 4 // cut
        parts = [select_samples(batch, range(start, start + size)) for start in range(0, 4, size)]
        wanted = alone([of(batch, "web")], step)
        found = routed(parts, step)
        assert found.loss().item() == pytest.approx(wanted.loss().item(), abs=1e-6)
        counted += origins.count("web")
    assert counted > QUEUE
    queues: list[dict[str, Tensor]] = [each.training_step.objective.state_dict() for each in (routed, alone)]
    for name, value in queues[1].items():
        torch.testing.assert_close(queues[0][f"objective.{name}"], value)


def test_what_is_around_it_or_inside_stays_what_it_is() -> None:
    ramp = FromOrigins(Scheduled(Contrastive(2.0), [[0, 0.0], [10, 1.0]]), ["web"])
    ramp.begin(5)
    assert ramp.weights() == {"contrastive": 1.0} and ramp.comes_first and not ramp.has_teacher
    assert Scheduled(ramp, [[0, 1.0]]).origins() == {"web"}
    taught = FromOrigins(MomentumMaskedLanguageModeling(), ["web"])
    assert taught.has_teacher
    off = FromOrigins(Contrastive(0.0), ["web"])
    assert off.weights() == {}


def test_names_that_the_data_does_not_have_are_told(make_model, batch_of) -> None:
    objective = Mixture({"one": FromOrigins(Contrastive(), ["web"]), "all": LanguageModeling()})
    require_origins(objective, ["web", "books"])
    require_origins(LanguageModeling(), [])
    with pytest.raises(ValueError, match="for samples from web, and the data has the parts wbe, books; name some"):
        require_origins(objective, ["wbe", "books"])
    with pytest.raises(ValueError, match=r"the data has no parts \(data=mixed has\)"):
        require_origins(objective, [])
    model, batch = make_model(), batch_of(4)
    with pytest.raises(ValueError, match="do not say where they come from"):
        objective(model, Context(model.encode(batch.visual), batch))
    for wrong in ("web", []):
        with pytest.raises(ValueError, match="give a list of names"):
            FromOrigins(Contrastive(), wrong)
