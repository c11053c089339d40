"""Texts that the model makes wrong by itself: one word each, likely there, and never the true one."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vlmtrain.batch import IGNORED_TARGET, TargetStates, TextBatch
from vlmtrain.objectives.base import Context
from vlmtrain.objectives.masked_language_modeling import MaskedLanguageModeling
from vlmtrain.objectives.mixture import Mixture
from vlmtrain.objectives.synthesized_texts import SynthesizedTexts, synthesize

WORDS = 12


@st.composite
def hidden_texts(draw):
    rows, length = draw(st.integers(1, 5)), draw(st.integers(2, 7))
    numbers = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    ids = torch.randint(0, WORDS, (rows, length), generator=numbers)
    is_hidden = torch.rand(rows, length, generator=numbers) < draw(st.sampled_from([0.0, 0.3, 0.8]))
    text = TextBatch(ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool))
    masked = replace(text, targets=ids.masked_fill(~is_hidden, IGNORED_TARGET))
    logits = torch.randn(int(is_hidden.sum()), WORDS, generator=numbers) * draw(st.sampled_from([1.0, 30.0, 200.0]))
    uniform = torch.rand(rows, 2, generator=numbers)
    uniform[0] = draw(st.sampled_from([0.0, 0.5, 1 - 2**-24]))
    return text, masked, logits, is_hidden, uniform


@given(hidden_texts())
@settings(deadline=None)
def test_one_hidden_word_of_each_row_is_wrong_and_nothing_else(drawn):
    text, masked, logits, is_hidden, uniform = drawn
    states = TargetStates(logits, masked.targets[is_hidden], lambda states: states)
    before = text.input_ids.clone()
    wrong, is_wrong = synthesize(text, masked, states, uniform)
    assert torch.equal(text.input_ids, before)
    differs = wrong.input_ids != text.input_ids
    assert torch.equal(is_wrong, is_hidden.any(1))
    assert torch.equal(differs.sum(1), is_wrong.long())
    assert not (differs & ~is_hidden).any()


def test_a_word_the_model_is_sure_of_stays_and_the_likely_wrong_one_comes():
    """Of two hidden words the first is known for sure, the second is 3 or 5; 3 is true: so it becomes 5."""
    ids = torch.tensor([[1, 2, 3]])
    text = TextBatch(ids, torch.ones(1, 3, dtype=torch.bool), torch.zeros(1, 3, dtype=torch.bool))
    masked = replace(text, targets=torch.tensor([[IGNORED_TARGET, 2, 3]]))
    logits = torch.full((2, WORDS), -50.0)
    logits[0, 2], logits[1, 3], logits[1, 5] = 50.0, 1.0, 1.0
    states = TargetStates(logits, torch.tensor([2, 3]), lambda states: states)
    for first, second in torch.rand(20, 2).tolist():
        wrong, _ = synthesize(text, masked, states, torch.tensor([[first, second]]))
        assert wrong.input_ids.tolist() == [[1, 2, 5]]


def test_the_true_pair_and_the_wrong_one_weigh_the_same(make_joint, batch_of, hide_words, monkeypatch):
    """The loss written out from what the model was asked."""
    model, batch, asked = make_joint(), hide_words(batch_of(3)), []
    match = model.match
    monkeypatch.setattr(model, "match", lambda *given: asked.append((given, match(*given))) or asked[-1][1])
    loss = SynthesizedTexts()(model, Context(model.encode(batch.visual), batch))
    (true, true_logits), (wrong, wrong_logits) = asked
    assert torch.equal(true[1].input_ids, batch.text.input_ids)
    assert ((wrong[1].input_ids != batch.text.input_ids).sum(1) == 1).all()
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
    assert len(count) == 1


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
