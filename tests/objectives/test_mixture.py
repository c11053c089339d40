"""One step is one step, however it is cut; and a term that is off is off."""

import pytest
import torch

from vlmtrain.objectives.contrastive import Contrastive
from vlmtrain.objectives.language_modeling import LanguageModeling
from vlmtrain.objectives.matching import ImageTextMatching
from vlmtrain.objectives.mixture import Mixture
from vlmtrain.objectives.negative_draws import BySharedWords, Evenly
from vlmtrain.objectives.replaced_pairs import ReplacedPairs


def stage_one(contrastive=1.0, matching=1.0, captioning=1.0, negatives=None, smoothing=0.1):
    return Mixture(
        {
            "captioning": LanguageModeling(captioning, smoothing),
            "matching": ImageTextMatching(matching, negatives),
            "contrastive": Contrastive(contrastive, smoothing),
        }
    )


def assert_same_step(got, wanted):
    assert got.totals.keys() == wanted.totals.keys() and got.gradients.keys() == wanted.gradients.keys()
    for term, total in wanted.totals.items():
        assert abs(got.totals[term] - total) < 1e-5 * max(1, abs(total)), term
    for name, gradient in wanted.gradients.items():
        assert (got.gradients[name] - gradient).abs().max() < 1e-5, name
    assert got.metrics.keys() == wanted.metrics.keys()
    for name, (total, count) in wanted.metrics.items():
        assert got.metrics[name][1] == count and abs(got.metrics[name][0] - total) < 1e-3, name


@pytest.mark.parametrize("negatives", [None, Evenly(), BySharedWords()])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 6])
def test_t14_micro_batches_equal_the_whole_batch(make_model, batch_of, step_of, size, negatives):
    model, batch = make_model(), batch_of(12)
    objective = stage_one(negatives=negatives)
    objective.require(model)
    assert_same_step(step_of(model, objective, batch, size), step_of(model, objective, batch))


def test_micro_batches_equal_the_whole_batch_when_the_encoder_learns_too(make_model, batch_of, step_of):
    model, batch = make_model(frozen_encoder=False), batch_of(12)
    wanted = step_of(model, stage_one(), batch)
    assert wanted.gradients["encoder.project.weight"].abs().sum() > 0
    assert_same_step(step_of(model, stage_one(), batch, 4), wanted)


def test_micro_batches_equal_the_whole_batch_with_repeated_captions(make_model, batch_of, step_of):
    model, batch = make_model(), batch_of(6, captions=["ab", "ab", "cde", "ab", "f", "cde"])
    assert_same_step(step_of(model, stage_one(), batch, 2), step_of(model, stage_one(), batch))


@pytest.mark.parametrize(
    "objective",
    [
        Contrastive(),
        ImageTextMatching(),
        ImageTextMatching(num_judged=2),
        ReplacedPairs(),
        ReplacedPairs(negatives=BySharedWords()),
        LanguageModeling(),
    ],
)
def test_each_objective_alone_is_invariant_too(make_model, batch_of, step_of, objective):
    model, batch = make_model(), batch_of(6)
    assert_same_step(step_of(model, objective, batch, 2), step_of(model, objective, batch))


def test_with_dropout_the_second_pass_embeds_what_the_survey_embedded(make_model, batch_of):
    from vlmtrain.objectives.base import Context

    model, batch = make_model(dropout=0.3).train(), batch_of(4)
    objective, found = stage_one(), []

    class Watching(Contrastive):
        def forward(self, model, context):
            found.append(self.survey(model, context))
            return super().forward(model, context)

    objective = Mixture({"captioning": LanguageModeling(), "matching": ImageTextMatching(), "watched": Watching()})
    features = model.encode(batch.visual)
    torch.manual_seed(5)
    with torch.no_grad():
        surveyed = objective.survey(model, Context(features, batch))
    torch.manual_seed(5)
    objective(model, Context(features, batch))
    assert all(torch.equal(surveyed[name], found[0][name]) for name in surveyed)


def test_t22_three_named_losses_sum_with_their_weights(make_model, batch_of, step_of):
    model, batch = make_model(), batch_of(5)
    weighted = stage_one(0.5, 2.0, 3.0)
    assert weighted.weights() == {"contrastive": 0.5, "matching": 2.0, "captioning": 3.0}
    assert weighted.counts(batch) == {"contrastive": 5, "matching": 5, "captioning": batch.text.supervised}
    whole = step_of(model, weighted, batch)
    assert whole.totals.keys() == {"contrastive", "matching", "captioning"}
    alone = {
        "contrastive": step_of(model, stage_one(0.5, 0, 0), batch),
        "matching": step_of(model, stage_one(0, 2.0, 0), batch),
        "captioning": step_of(model, stage_one(0, 0, 3.0), batch),
    }
    for term, step in alone.items():
        assert step.totals.keys() == {term}
        torch.testing.assert_close(step.totals[term], whole.totals[term])
    for name, gradient in whole.gradients.items():
        parts = [step.gradients[name] for step in alone.values() if name in step.gradients]
        torch.testing.assert_close(sum(parts), gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("off", "untouched", "never_called"),
    [
        ("contrastive", "text_projection.weight", None),
        ("matching", "match_head.weight", "match"),
        ("captioning", "text_head.bias", "target_states"),
    ],
)
def test_t22_weight_zero_removes_term_compute_and_gradient(
    make_model, batch_of, step_of, monkeypatch, off, untouched, never_called
):
    model, batch = make_model(), batch_of(4)
    if never_called:
        monkeypatch.setattr(model, never_called, None)
    for size in (None, 2):
        step = step_of(model, stage_one(**{off: 0.0}), batch, size)
        assert off not in step.totals and untouched not in step.gradients
        assert not any(name.startswith(off) for name in step.metrics)


def test_stage_one_learns_to_tell_eight_pairs_apart_and_to_write_their_texts(make_model, batch_of, step_of):
    model, batch = make_model(), batch_of(8)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    objective = stage_one(smoothing=0.0)
    for _ in range(150):
        step = step_of(model, objective, batch)
        optimizer.step()
    rates = {name: total / count for name, (total, count) in step.metrics.items()}
    assert rates["contrastive/image_to_text@1"] == rates["contrastive/text_to_image@1"] == 1.0
    assert rates["matching/accuracy"] > 0.95 and rates["captioning/token_accuracy"] > 0.95, rates


def test_a_mixture_of_nothing_and_a_wrong_model_are_refused(make_model):
    with pytest.raises(ValueError, match="at least one objective"):
        Mixture({})
    with pytest.raises(ValueError, match=r"needs a model with.*embed_text"):
        stage_one().require(torch.nn.Linear(1, 1))
