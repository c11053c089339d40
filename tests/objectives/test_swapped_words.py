"""Two words of a text change places where only the image can tell that they do, and no others."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from hidden_texts import WORDS, hidden_texts, text_of, told
from hypothesis import given, settings
from torch import nn

from vlmtrain.batch import TextBatch
from vlmtrain.models.word_judging_encoder import WordJudgingEncoder
from vlmtrain.nn.split_text import SplitText
from vlmtrain.objectives import swapped_words
from vlmtrain.objectives.base import Context
from vlmtrain.objectives.masked_language_modeling import MaskedLanguageModeling
from vlmtrain.objectives.mixture import Mixture
from vlmtrain.objectives.swapped_words import LEAST_LIKELY, LEAST_SEEN, SwappedWords, swap_words


@pytest.fixture
def model(tokenizer_folder, make_model):
    torch.manual_seed(0)
    text = partial(SplitText, width=16, text_depth=1, fusion_depth=1, num_heads=2)
    built = WordJudgingEncoder(make_model(frozen_encoder=False).encoder, text, tokenizer_folder)
    for parameter in built.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.7)
    return built


def may_change_places(ids, is_hidden, seen, blank) -> list[set[tuple[int, int]]]:
    """Row by row all pairs of places, the hidden one first, written out."""
    shares = torch.zeros(2, *ids.shape, WORDS)
    shares[0][is_hidden], shares[1][is_hidden] = seen.softmax(-1), blank.softmax(-1)
    places = range(ids.shape[1])
    return [
        {
            (one, other)
            for one in places
            for other in places
            if is_hidden[row, one]
            and shares[0, row, one, line[one]] >= LEAST_SEEN
            and line[one] != line[other]
            and shares[1, row, one, line[other]] >= LEAST_LIKELY
            and 2 * shares[0, row, one, line[other]] < shares[1, row, one, line[other]]
        }
        for row, line in enumerate(ids.tolist())
    ]


@given(hidden_texts([1.0, 5.0, 200.0]))
@settings(deadline=None, max_examples=200)
def test_a_hidden_word_changes_places_with_one_that_fits_there_but_for_the_image(drawn):
    ids, is_hidden, seen, blank, uniform = drawn
    text, masked = text_of(ids, is_hidden)
    before = ids.clone()
    swapped, is_wrong = swap_words(text, masked, told(ids, is_hidden, seen, blank), uniform)
    assert torch.equal(ids, before)
    assert torch.equal(swapped.input_ids != ids, is_wrong)
    assert torch.equal(swapped.input_ids.sort(1).values, ids.sort(1).values), "the same words"
    for row, pairs in enumerate(may_change_places(ids, is_hidden, seen, blank)):
        changed = tuple(is_wrong[row].nonzero().flatten().tolist())
        assert changed in {tuple(sorted(pair)) for pair in pairs} if pairs else changed == ()


def test_words_that_mean_the_same_and_words_that_the_text_rules_out_stay():
    """Of five words the first and the second are hidden.  A size said in two ways (1 or 7, whatever is seen) stays; 2
    may be 3 but for the image; 5 fits nowhere."""
    ids, is_hidden = torch.tensor([[1, 2, 5, 7, 3]]), torch.tensor([[True, True, False, False, False]])
    blank = torch.full((2, WORDS), -50.0)
    blank[0, [1, 7]] = blank[1, [2, 3]] = 1.0
    seen = blank.clone()
    seen[1, 3] = -9.0  # 0.5 each for 1 and 7, whatever is seen
    for number in torch.rand(20).tolist():
        swapped, is_wrong = swap_words(
            *text_of(ids, is_hidden), told(ids, is_hidden, seen, blank), torch.tensor([number])
        )
        assert swapped.input_ids.tolist() == [[1, 3, 5, 7, 2]]
        assert is_wrong.tolist() == [[False, True, False, False, True]]


def test_what_the_image_does_not_tell_yet_stays():
    ids, is_hidden = torch.tensor([[1, 2]]), torch.tensor([[True, False]])
    blank = torch.full((1, WORDS), 1 / WORDS).log()
    for share, changes in ((LEAST_SEEN + 0.01, True), (LEAST_SEEN - 0.01, False)):
        seen = torch.full((1, WORDS), (1 - share) / (WORDS - 2))
        seen[0, 1], seen[0, 2] = share, 0.0
        _, is_wrong = swap_words(*text_of(ids, is_hidden), told(ids, is_hidden, seen.log(), blank), torch.rand(1))
        assert is_wrong.tolist() == [[changes, changes]]


def test_padding_is_no_word():
    ids, is_hidden = torch.tensor([[1, 2, 3]]), torch.tensor([[True, False, False]])
    blank, seen = torch.zeros(1, WORDS), torch.eye(WORDS)[[1]].log()
    text, masked = text_of(ids, is_hidden)
    shown = replace(text, attention_mask=torch.tensor([[True, True, False]]))
    for number in torch.rand(20).tolist():
        swapped, _ = swap_words(shown, masked, told(ids, is_hidden, seen, blank), torch.tensor([number]))
        assert swapped.input_ids.tolist() == [[2, 1, 3]]


def test_pairs_are_drawn_by_how_well_the_word_fits():
    """At the first place the words of the second and the third, 0.5 to 0.1; at the third that of the first, 0.4."""
    ids, is_hidden = torch.tensor([[1, 2, 3]]), torch.tensor([[True, False, True]])
    blank = torch.tensor([[0.0, 0.4, 0.5, 0.1], [0.0, 0.4, 0.0, 0.6]]).log()
    blank = torch.cat([blank, torch.full((2, WORDS - 4), -torch.inf)], dim=1)
    seen = torch.eye(WORDS)[[1, 3]].log()
    drawn = [
        swap_words(*text_of(ids, is_hidden), told(ids, is_hidden, seen, blank), torch.tensor([(number + 0.5) / 100]))
        for number in range(100)
    ]
    found = [tuple(is_wrong[0].nonzero().flatten().tolist()) for _, is_wrong in drawn]
    assert (found.count((0, 1)), found.count((0, 2)), found.count((1, 2))) == (50, 50, 0)


def swap_all(text: TextBatch, *others) -> tuple[TextBatch, torch.Tensor]:
    """In place of `swap_words`: the first two words of all rows but the first."""
    ids, is_wrong = text.input_ids.clone(), torch.zeros_like(text.attention_mask)
    ids[1:, 1], ids[1:, 2], is_wrong[1:, 1:3] = text.input_ids[1:, 2], text.input_ids[1:, 1], True
    return replace(text, input_ids=ids), is_wrong


@pytest.mark.parametrize("word_weight", [1.0, 0.25, 0.0])
def test_the_loss_is_what_is_said_of_the_pair_and_of_each_word(model, batch_of, hide_words, monkeypatch, word_weight):
    """Written out from what the model was asked; where nothing was exchanged the true text counts alone."""
    batch, asked = hide_words(batch_of(3)), []
    monkeypatch.setattr(swapped_words, "swap_words", swap_all)
    judge = model.judge_words
    monkeypatch.setattr(model, "judge_words", lambda *given: asked.append((given[1], judge(*given))) or asked[-1][1])
    loss = SwappedWords(word_weight=word_weight)(model, Context(model.encode(batch.visual), batch))
    (true, of_true), (wrong, of_wrong) = asked
    assert torch.equal(true.input_ids, batch.text.input_ids)
    assert torch.equal(wrong.input_ids, swap_all(batch.text)[0].input_ids)
    wanted = torch.zeros(())
    for row, mask in enumerate(batch.text.attention_mask):
        wanted -= (
            of_true.pairs[row].sigmoid().log() + word_weight * of_true.words[row, mask].sigmoid().log().sum()
        ) / 2
        if row:
            signs = torch.ones(int(mask.sum()))
            signs[1:3] = -1
            words = (signs * of_wrong.words[row, mask]).sigmoid().log().sum()
            wanted -= ((-of_wrong.pairs[row]).sigmoid().log() + word_weight * words) / 2
    torch.testing.assert_close(loss.totals["swapped_words"], wanted)
    assert (
        loss.metrics["accuracy"][1] == 5 and loss.metrics["swapped"] == (2, 3) and loss.metrics["words_found"][1] == 4
    )


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("alone", [True, False])
def test_t14_micro_batches_equal_the_whole_batch(model, batch_of, hide_words, step_of, monkeypatch, size, alone):
    """The draws go by the place in the global batch; a model that has learned nothing says what is exchanged, hence
    the low bars."""
    monkeypatch.setattr(swapped_words, "LEAST_SEEN", 0.0)
    monkeypatch.setattr(swapped_words, "LEAST_LIKELY", 0.01)
    batch = hide_words(batch_of(6))
    objective = SwappedWords() if alone else Mixture({"words": MaskedLanguageModeling(), "swapped": SwappedWords()})
    whole, pieces = step_of(model, objective, batch), step_of(model, objective, batch, size)
    swapped = whole.metrics["swapped" if alone else "swapped/swapped"]
    assert 0 < swapped[0] < swapped[1] == 6
    assert whole.metrics.keys() == pieces.metrics.keys()
    for name, value in whole.metrics.items():
        assert pieces.metrics[name] == value, name
    for term, total in whole.totals.items():
        assert abs(total - pieces.totals[term]) < 1e-5 * len(batch)
    for name, gradient in whole.gradients.items():
        assert (gradient - pieces.gradients[name]).abs().max() < 1e-5 * max(1.0, gradient.abs().max()), name


def test_beside_hidden_words_the_text_is_read_once(model, batch_of, hide_words, monkeypatch):
    batch, count = hide_words(batch_of(3)), []
    hidden_states = model.hidden_states
    monkeypatch.setattr(model, "hidden_states", lambda *given: count.append(1) or hidden_states(*given))
    both = Mixture({"words": MaskedLanguageModeling(), "swapped": SwappedWords()})
    both(model, Context(model.encode(batch.visual), batch))
    assert len(count) == 2, "with the image for both, and once more without"


def test_it_needs_a_model_that_judges_words(make_joint):
    with pytest.raises(ValueError, match=r"SwappedWords needs a model with .*judge_words"):
        SwappedWords().require(make_joint())


def test_off_it_asks_nothing(model, batch_of):
    off, context = SwappedWords(weight=0), Context(None, batch_of(2))
    assert off.weights() == off.counts(batch_of(2)) == off.survey(model, context) == {}


def test_it_says_what_is_missing_where_no_word_is_hidden(model, batch_of):
    batch = batch_of(2)
    with pytest.raises(ValueError, match="No word of this batch is hidden"):
        SwappedWords()(model, Context(model.encode(batch.visual), batch))
