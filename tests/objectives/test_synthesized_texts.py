"""Texts that the model makes wrong by itself: one word each, likely there, and never the true one."""

from dataclasses import replace

import pytest
import torch
from hidden_texts import WORDS, hidden_texts, text_of, told
from hypothesis import given, settings
from torch import nn

from vlmtrain.batch import TextBatch
from vlmtrain.objectives import synthesized_texts
from vlmtrain.objectives.base import Context
from vlmtrain.objectives.masked_language_modeling import MaskedLanguageModeling
from vlmtrain.objectives.mixture import Mixture
from vlmtrain.objectives.synthesized_texts import SynthesizedTexts, synthesize


def roll(text: TextBatch) -> TextBatch:
    return replace(text, input_ids=text.input_ids.roll(1, 0))


@given(hidden_texts([1.0, 30.0, 200.0]))
@settings(deadline=None)
def test_one_hidden_word_gives_way_to_one_of_the_text_that_the_image_speaks_against(drawn):
    ids, is_hidden, seen, blank, uniform = drawn
    text, masked = text_of(ids, is_hidden)
    before = ids.clone()
    wrong, is_wrong = synthesize(text, masked, told(ids, is_hidden, seen, blank), uniform)
    assert torch.equal(ids, before)
    differs = wrong.input_ids != ids
    assert torch.equal(differs.sum(1), is_wrong.long())
    assert not (differs & ~is_hidden).any()
    falls = torch.zeros(*ids.shape, WORDS)
    falls[is_hidden] = (blank.softmax(-1) - seen.softmax(-1)).clamp(min=0)
    for row, column in differs.nonzero().tolist():
        word = int(wrong.input_ids[row, column])
        assert word in ids[row].tolist() and falls[row, column, word] > 0
    for row in (~is_wrong).nonzero().flatten().tolist():
        others = [word for word in set(ids[row].tolist())]
        assert all(
            falls[row, column, word] == 0
            for column in range(ids.shape[1])
            for word in others
            if word != int(ids[row, column])
        )


def test_a_word_that_means_the_same_and_a_word_that_is_sure_stay():
    """Of three hidden words the first may be 1 or 7 whatever is seen, the second is 2 in any case, the image decides of
    the third between 3 and 8: all of these stand in the text, and only 8 in place of 3 is wrong."""
    ids = torch.tensor([[1, 2, 3, 7, 8]])
    is_hidden = torch.tensor([[True, True, True, False, False]])
    blank = torch.full((3, WORDS), -50.0)
    blank[0, 1] = blank[0, 7] = blank[1, 2] = blank[2, 3] = blank[2, 8] = 1.0
    seen = blank.clone()
    seen[2, 8] = -9.0
    for number in torch.rand(20).tolist():
        wrong, is_wrong = synthesize(
            *text_of(ids, is_hidden), told(ids, is_hidden, seen, blank), torch.tensor([number])
        )
        assert wrong.input_ids.tolist() == [[1, 2, 8, 7, 8]] and is_wrong.tolist() == [True]


def test_words_are_drawn_by_how_well_they_fit_but_for_the_image():
    ids, is_hidden = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[True, False, False, False]])
    blank = torch.tensor([[0.0, 0.1, 0.6, 0.2, 0.1] + [0.0] * 7]).log()
    seen = torch.tensor([[0.0, 1.0] + [0.0] * 10]).log()
    drawn = [
        synthesize(*text_of(ids, is_hidden), told(ids, is_hidden, seen, blank), torch.tensor([(number + 0.5) / 90]))
        for number in range(90)
    ]
    found = torch.stack([wrong.input_ids[0, 0] for wrong, _ in drawn]).bincount(minlength=5).tolist()
    assert found == [0, 0, 60, 20, 10]


def test_the_true_pair_and_the_wrong_one_weigh_the_same(make_joint, batch_of, hide_words, monkeypatch):
    """The loss written out from what the model was asked."""
    model, batch, asked = make_joint(), hide_words(batch_of(3)), []
    monkeypatch.setattr(synthesized_texts, "synthesize", lambda text, *others: (roll(text), torch.ones(3).bool()))
    match = model.match
    monkeypatch.setattr(model, "match", lambda *given: asked.append((given, match(*given))) or asked[-1][1])
    loss = SynthesizedTexts()(model, Context(model.encode(batch.visual), batch))
    (true, true_logits), (wrong, wrong_logits) = asked
    assert torch.equal(true[1].input_ids, batch.text.input_ids)
    assert torch.equal(wrong[1].input_ids, batch.text.input_ids.roll(1, 0))
    ones, binary = torch.ones(3), nn.functional.binary_cross_entropy_with_logits
    wanted = 3 * (binary(true_logits, ones) + binary(wrong_logits, 0 * ones)) / 2
    torch.testing.assert_close(loss.totals["synthesized_texts"], wanted)
    assert loss.metrics["accuracy"][1] == 6


def test_beside_hidden_words_the_text_is_read_once(make_joint, batch_of, hide_words, monkeypatch):
    model, batch, count = make_joint(), hide_words(batch_of(3)), []
    hidden_states = model.hidden_states
    monkeypatch.setattr(model, "hidden_states", lambda *given: count.append(1) or hidden_states(*given))
    both = Mixture({"words": MaskedLanguageModeling(), "wrong": SynthesizedTexts()})
    both(model, Context(model.encode(batch.visual), batch))
    assert len(count) == 2, "with the image for both, and once more without"


def test_it_needs_a_model_that_does_both(make_model):
    with pytest.raises(ValueError, match=r"SynthesizedTexts needs a model with .*hidden_states"):
        SynthesizedTexts().require(make_model())


def test_off_it_asks_nothing(make_joint, batch_of):
    off, context = SynthesizedTexts(weight=0), Context(None, batch_of(2))
    assert off.weights() == off.counts(batch_of(2)) == off.survey(make_joint(), context) == {}


def test_some_may_stand_for_all(make_joint, batch_of, hide_words):
    model, batch = make_joint(), hide_words(batch_of(4))
    features = model.encode(batch.visual)
    terms = [SynthesizedTexts(num_judged=number)(model, Context(features, batch)) for number in (None, 4, 9)]
    assert len({term.totals["synthesized_texts"].item() for term in terms}) == 1
    some = SynthesizedTexts(num_judged=2)(model, Context(features, batch))
    assert some.metrics["accuracy"][1] == 4 and some.totals["synthesized_texts"].item() > 0
    with pytest.raises(ValueError, match="num_judged must be 1 or more"):
        SynthesizedTexts(num_judged=0)
