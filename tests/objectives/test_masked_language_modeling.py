"""Hidden words on pairs: T57 of the statements, its half on masked language modelling."""

from dataclasses import replace

import pytest
import torch

from vlmtrain.batch import IGNORED_TARGET
from vlmtrain.objectives.base import Context
from vlmtrain.objectives.contrastive import Contrastive
from vlmtrain.objectives.masked_language_modeling import MaskedLanguageModeling
from vlmtrain.objectives.matching import ImageTextMatching
from vlmtrain.objectives.mixture import Mixture
from vlmtrain.objectives.negative_draws import BySharedWords, Evenly
from vlmtrain.objectives.replaced_pairs import ReplacedPairs
from vlmtrain.objectives.synthesized_texts import SynthesizedTexts
from vlmtrain.objectives.word_patch_alignment import WordPatchAlignment


def test_t57_only_hidden_positions_are_learned(make_joint, batch_of, hide_words):
    """The states that the head reads are those of the hidden positions of the text, and the gradient of all others of
    the last layer, image included, is zero."""
    model, batch = make_joint(), hide_words(batch_of(3))
    kept, run = {}, model.stream.run
    model.stream.run = lambda x, mask: kept.setdefault("last", run(x, mask))
    features = model.encode(batch.visual)
    loss = MaskedLanguageModeling()(model, Context(features, batch))
    (gradient,) = torch.autograd.grad(loss.totals["masked_language_modeling"], kept["last"])
    is_hidden = torch.zeros(gradient.shape[:2], dtype=torch.bool)
    is_hidden[:, : batch.text.input_ids.shape[1]] = batch.text.masked.targets != IGNORED_TARGET
    assert (gradient[~is_hidden] == 0).all()
    assert (gradient[is_hidden].abs().sum(-1) > 0).all()


def test_labels_stand_in_the_text_half_and_are_what_was_hidden(make_joint, batch_of, hide_words):
    """The loss written out: logits of all text positions against the whole text, where it is hidden."""
    model, batch = make_joint(), hide_words(batch_of(4))
    features, masked = model.encode(batch.visual), batch.text.masked
    loss = MaskedLanguageModeling()(model, Context(features, batch))
    states = model.read(features, masked, torch.arange(4)).text
    wanted = torch.zeros(())
    for row in range(4):
        for place in range(masked.input_ids.shape[1]):
            if masked.targets[row, place] != IGNORED_TARGET:
                true = batch.text.input_ids[row, place]
                assert true != masked.input_ids[row, place] == 4
                wanted = wanted - model.write_logits(states[row, place]).log_softmax(-1)[true]
    torch.testing.assert_close(loss.totals["masked_language_modeling"], wanted)
    assert (
        MaskedLanguageModeling().counts(batch)
        == {"masked_language_modeling": masked.supervised}
        == {"masked_language_modeling": 6}
    )
    assert loss.metrics["token_accuracy"][1] == 6


def test_t57_the_image_takes_part(make_joint, batch_of, hide_words):
    model, batch = make_joint(), hide_words(batch_of(3))
    features = model.encode(batch.visual)
    with_image = MaskedLanguageModeling()(model, Context(features, batch)).totals["masked_language_modeling"]
    other = replace(features, patches=features.patches.roll(1, 0))
    assert (
        abs(MaskedLanguageModeling()(model, Context(other, batch)).totals["masked_language_modeling"] - with_image)
        > 1e-3
    )


OBJECTIVES = [
    MaskedLanguageModeling(),
    ReplacedPairs(),
    ReplacedPairs(negatives=BySharedWords()),
    ImageTextMatching(negatives=Evenly()),
    ImageTextMatching(negatives=BySharedWords(), num_judged=2),
    WordPatchAlignment(ReplacedPairs()),
    SynthesizedTexts(),
    SynthesizedTexts(num_judged=1),
    SynthesizedTexts(num_judged=2),
    Mixture({"words": MaskedLanguageModeling(), "wrong": SynthesizedTexts()}),
    Mixture({"words": MaskedLanguageModeling(0.5), "pairs": WordPatchAlignment(ReplacedPairs(2.0), weight=0.1)}),
]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("frozen_encoder", [True, False])
def test_t14_micro_batches_equal_the_whole_batch(
    make_joint, batch_of, hide_words, step_of, objective, size, frozen_encoder
):
    """A micro-batch of one too, where a squeeze once dropped the batch."""
    model, batch = make_joint(frozen_encoder), hide_words(batch_of(6))
    objective.require(model)
    got, wanted = step_of(model, objective, batch, size), step_of(model, objective, batch)
    assert got.totals.keys() == wanted.totals.keys() and got.gradients.keys() == wanted.gradients.keys()
    for term, total in wanted.totals.items():
        assert abs(got.totals[term] - total) < 1e-5 * max(1, abs(total)), term
    for name, gradient in wanted.gradients.items():
        assert (got.gradients[name] - gradient).abs().max() < 1e-5, name
    for name, (total, count) in wanted.metrics.items():
        assert got.metrics[name][1] == count and abs(got.metrics[name][0] - total) < 1e-3, name


def test_a_batch_of_one_and_rows_that_hide_nothing(make_joint, batch_of, hide_words, step_of):
    model = make_joint(frozen_encoder=False)
    mixture = Mixture({"words": MaskedLanguageModeling(), "pairs": WordPatchAlignment(ReplacedPairs())})
    step = step_of(model, mixture, hide_words(batch_of(1)))
    assert all(total.isfinite() and total.shape == () for total in step.totals.values())
    batch = batch_of(2)
    none = replace(batch.text, targets=torch.full_like(batch.text.targets, IGNORED_TARGET), supervised=0)
    nothing = replace(batch, text=replace(batch.text, masked=none))
    model.zero_grad()
    loss = MaskedLanguageModeling()(model, Context(model.encode(nothing.visual), nothing))
    loss.totals["masked_language_modeling"].backward()
    trained = {name for name, _ in model.named_parameters() if not name.startswith(("pooler", "match_head"))}
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    assert gradients.keys() == trained and not any(gradient.any() for gradient in gradients.values())


def test_weights_of_sources_count_the_hidden_tokens(make_joint, batch_of, hide_words):
    model, batch = make_joint(), hide_words(batch_of(3))  # 1, 2 and 1 hidden
    features = model.encode(batch.visual)
    alone = []
    for row in range(3):
        kept = batch.text.masked.targets.clone()
        kept[[other for other in range(3) if other != row]] = IGNORED_TARGET
        masked = replace(batch.text.masked, targets=kept)
        one = replace(batch, text=replace(batch.text, masked=masked))
        alone.append(MaskedLanguageModeling()(model, Context(features, one)).totals["masked_language_modeling"])
    weighted = replace(batch, weights=[1.0, 0.5, 2.0])
    loss = MaskedLanguageModeling()(model, Context(features, weighted))
    torch.testing.assert_close(loss.totals["masked_language_modeling"], alone[0] + alone[1] / 2 + alone[2] * 2)
    assert MaskedLanguageModeling().counts(weighted) == {"masked_language_modeling": 1 + 2 * 0.5 + 2}


def test_what_is_missing_is_named(make_joint, make_model, batch_of):
    batch = batch_of(2)
    with pytest.raises(ValueError, match=r"needs the form vlmtrain\.data\.forms\.masked\.Masked"):
        MaskedLanguageModeling().counts(batch)
    with pytest.raises(ValueError, match="QFormerPretraining lacks hidden_states"):
        MaskedLanguageModeling().require(make_model())
    with pytest.raises(ValueError, match="QFormerPretraining lacks align"):
        WordPatchAlignment(ReplacedPairs()).require(make_model())
    with pytest.raises(ValueError, match="JointEncoder lacks embed_text, embed_visual, similarity_scale"):
        Contrastive().require(make_joint())
    with pytest.raises(ValueError, match="offers EmbedsBoth; JointEncoder does not"):
        ImageTextMatching().require(make_joint())
    off = MaskedLanguageModeling(weight=0)
    assert off.weights() == off.counts(batch) == off(make_joint(), Context(None, batch)).totals == {}


def test_t57_with_the_image_a_small_model_learns_what_the_text_does_not_say(make_joint, batch_of, hide_words):
    """Each text is one letter, hidden, and only the image says which."""
    torch.manual_seed(0)
    captions = ["a", "b", "c", "d"]
    batch = hide_words(batch_of(4, captions=captions))
    model = make_joint(frozen_encoder=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = MaskedLanguageModeling()(model, Context(model.encode(batch.visual), batch))
        optimizer.zero_grad()
        loss.totals["masked_language_modeling"].backward()
        optimizer.step()
    right, count = MaskedLanguageModeling()(model, Context(model.encode(batch.visual), batch)).metrics["token_accuracy"]
    other = replace(batch.visual, pixels=batch.visual.pixels.roll(1, 0))
    wrong, _ = MaskedLanguageModeling()(model, Context(model.encode(other), batch)).metrics["token_accuracy"]
    assert (float(right), count, float(wrong)) == (4, 4, 0)
