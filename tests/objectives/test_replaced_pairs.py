"""One pair a sample, half of them wrong: T57 of the statements, as ViLT and VisualBERT pair."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vlmtrain.batch import TextBatch
from vlmtrain.objectives.base import Context
from vlmtrain.objectives.negative_draws import BySharedWords, BySimilarity, Evenly
from vlmtrain.objectives.negatives import NOBODY
from vlmtrain.objectives.replaced_pairs import ReplacedPairs, replaced_texts


class Judge(nn.Module):
    """Remembers what it was asked, and says yes to everything."""

    def encode(self, visual): ...
    def layout(self): ...
    def placeholders_per_item(self, tiles): ...
    def match(self, visual, text, image_of_row):
        self.asked = list(zip(image_of_row.tolist(), text.input_ids.tolist(), strict=True))
        return torch.ones(len(image_of_row), requires_grad=True)


def test_t57_half_of_the_pairs_are_shuffled_and_labelled_0(batch_of):
    batch, judge = batch_of(8), Judge()
    objective = ReplacedPairs()
    objective.require(judge)
    loss = objective(judge, Context(None, batch))
    own = batch.text.input_ids.tolist()
    is_true = [text == own[image] for image, text in judge.asked]
    assert [image for image, _ in judge.asked] == list(range(8)) and sum(is_true) == 4
    assert loss.metrics["accuracy"] == (torch.tensor(4.0), 8), "yes to everything is right on the true pairs only"
    labels = torch.tensor(is_true).float()
    torch.testing.assert_close(loss.totals["matching"] / 8, F.binary_cross_entropy_with_logits(torch.ones(8), labels))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=30), st.integers(0, 2**62))
def test_t57_exactly_half_and_never_the_positive(wrong, seed):
    partners = torch.tensor(
        [NOBODY if each % len(wrong) == own else each % len(wrong) for own, each in enumerate(wrong)]
    )
    chosen = replaced_texts(partners, seed)
    is_own = chosen == torch.arange(len(wrong))
    assert (is_own | (chosen == partners)).all()
    assert int((~is_own).sum()) <= len(wrong) // 2
    if (partners != NOBODY).all():
        assert int((~is_own).sum()) == len(wrong) // 2
    assert torch.equal(chosen, replaced_texts(partners, seed))


def test_other_samples_are_replaced_in_other_steps():
    wrong = (torch.arange(12) + 1) % 12
    assert len({tuple(replaced_texts(wrong, seed).tolist()) for seed in range(30)}) > 20


def test_off_it_asks_nothing_and_names_are_as_of_matching(batch_of):
    off = ReplacedPairs(weight=0, negatives=BySimilarity())
    off.require(Judge())
    assert off.weights() == off.counts(batch_of(2)) == off.survey(Judge(), Context(None, batch_of(2))) == {}
    assert ReplacedPairs(weight=2).weights() == {"matching": 2}
    with pytest.raises(ValueError, match="offers EmbedsBoth; Judge does not"):
        ReplacedPairs(negatives=BySimilarity()).require(Judge())


def text_of(rows: list[list[int]]) -> TextBatch:
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.arange(longest) < torch.tensor([len(row) for row in rows]).unsqueeze(1)
    return TextBatch(ids, mask, torch.zeros_like(mask))


def test_shared_words_are_counted_without_padding():
    rows = [[2, 5, 6, 7, 3], [2, 6, 5, 7, 3], [2, 5, 3], [2, 9, 3]]
    found = BySharedWords(10.0).affinity(Judge(), None, text_of(rows)).of_images(slice(None))
    torch.testing.assert_close(found[0, 1], torch.tensor(10.0))  # the same words in another order share all
    torch.testing.assert_close(found[0, 2], torch.tensor(10 * 3 / (5 * 3) ** 0.5))
    torch.testing.assert_close(found[2, 3], torch.tensor(10 * 2 / 3))
    assert torch.equal(found, found.T)
    padded = text_of([*rows, [2, *[1] * 20, 3]])
    alike = BySharedWords(10.0).affinity(Judge(), None, padded)
    torch.testing.assert_close(alike.of_texts(slice(1, 4))[:, :4], found[1:4])
    even = Evenly().affinity(Judge(), None, text_of(rows)).of_images(slice(1, 3))
    assert even.shape == (2, 4) and not even.any()
    with pytest.raises(ValueError, match="sharpness is -1"):
        BySharedWords(-1)
