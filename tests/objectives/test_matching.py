"""Image-text matching: T57 of the statements; its half on masked words is in test_masked_language_modeling."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vlmtrain.objectives.base import Context
from vlmtrain.objectives.matching import ImageTextMatching, evenly_spread, judged_pairs
from vlmtrain.objectives.negative_draws import Evenly
from vlmtrain.objectives.negatives import NOBODY, Negatives


class Judge(nn.Module):
    """Remembers what it was asked, and says yes to everything."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = []

    def encode(self, visual): ...
    def layout(self): ...
    def placeholders_per_item(self, tiles): ...
    def match(self, visual, text, image_of_row):
        self.asked = list(zip(image_of_row.tolist(), text.input_ids.tolist(), strict=True))
        return torch.ones(len(image_of_row), requires_grad=True)


def test_t57_one_true_pair_to_two_mismatched_ones(batch_of):
    batch, judge = batch_of(5), Judge()
    objective = ImageTextMatching(negatives=Evenly())
    objective.require(judge)
    loss = objective(judge, Context(None, batch))
    own = batch.text.input_ids.tolist()
    assert judge.asked[:5] == list(enumerate(own))
    assert len(judge.asked) == 15 and all(text != own[image] for image, text in judge.asked[5:])
    assert sorted(image for image, _ in judge.asked[5:10]) == list(range(5))
    assert [text for _, text in judge.asked[10:]] == own
    right, counted = loss.metrics["accuracy"]
    assert (float(right), counted) == (5, 15)
    wanted = nn.functional.softplus(torch.tensor([-1.0, 1.0, 1.0])).mean()  # mean over all pairs, as BLIP-2 takes it
    torch.testing.assert_close(loss.totals["matching"] / 5, wanted)


class Sure(Judge):
    """Its embeddings leave no doubt who belongs to whom, which is where a careless sampler draws the positive."""

    def __init__(self, batch):
        super().__init__()
        self.own = F.normalize(torch.randn(len(batch), 16, generator=torch.Generator().manual_seed(0)), dim=-1)

    def embed_visual(self, visual):
        return self.own.unsqueeze(1)

    def embed_text(self, text):
        return self.own

    def similarity_scale(self):
        return torch.tensor(1000.0)


@pytest.mark.parametrize("seed", range(8))
def test_t57_hard_negatives_are_never_the_positive_and_labelled_as_no_match(batch_of, seed):
    batch = replace(batch_of(6, captions=["ab", "cd", "ab", "ef", "gh", "ij"]), seed=seed)
    judge = Sure(batch)
    loss = ImageTextMatching()(judge, Context(None, batch))
    own = batch.text.input_ids.tolist()
    assert judge.asked[:6] == list(enumerate(own))
    assert all(text != own[image] for image, text in judge.asked[6:]), "nor another picture of the same words"
    assert loss.metrics["accuracy"] == (torch.tensor(6.0), 18), "yes to everything is right on the true pairs only"


def test_t57_shuffled_pairs_are_labelled_0(batch_of):
    """The loss falls as mismatched pairs are denied: with logits x for all, it is that of 1 yes to 2 no."""
    batch = batch_of(4)
    for logit in (-3.0, 0.0, 3.0):

        class Saying(Judge):
            def match(self, visual, text, image_of_row, logit=logit):
                return torch.full((len(image_of_row),), logit)

        loss = ImageTextMatching(negatives=Evenly())(Saying(), Context(None, batch)).totals["matching"] / 4
        labels = torch.tensor([1.0, 0.0, 0.0])
        torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(torch.full((3,), logit), labels))


def test_a_batch_of_one_is_asked_about_its_true_pair_only(batch_of, make_model, step_of):
    judge = Judge()
    loss = ImageTextMatching(negatives=Evenly())(judge, Context(None, batch_of(1)))
    assert len(judge.asked) == 1
    torch.testing.assert_close(loss.totals["matching"], nn.functional.softplus(torch.tensor(-1.0)))
    step = step_of(make_model(), ImageTextMatching(), batch_of(1))
    assert step.totals["matching"].isfinite() and step.metrics["accuracy"][1] == 1


def test_captions_that_are_all_the_same_give_no_negatives(batch_of, make_model, step_of):
    step = step_of(make_model(), ImageTextMatching(), batch_of(3, captions=["ab", "ab", "ab"]))
    assert step.totals["matching"].isfinite() and step.metrics["accuracy"][1] == 3


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.data())
def test_every_pair_is_judged_once_where_its_image_is(size, pieces, data):
    total = size * pieces
    partner = st.lists(st.integers(NOBODY, total - 1), min_size=total, max_size=total)
    negatives = Negatives(torch.tensor(data.draw(partner)), torch.tensor(data.draw(partner)))
    asked = evenly_spread(total, data.draw(st.none() | st.integers(1, total + 3)))
    judged, share = [], 0.0
    for start in range(0, total, size):
        pairs = judged_pairs(negatives, asked, start, size)
        assert len(pairs.image) > 0 and ((pairs.image >= 0) & (pairs.image < size)).all()
        weighs = pairs.share > 0
        rows = zip((pairs.image + start).tolist(), pairs.text.tolist(), pairs.is_match.tolist(), strict=True)
        judged += [row for row, counts in zip(rows, weighs.tolist(), strict=True) if counts]
        share += pairs.share.sum().item()
    wanted = [(index, index, True) for index in asked.tolist()]
    wanted += [(index, int(negatives.texts[index]), False) for index in asked if negatives.texts[index] != NOBODY]
    wanted += [(int(negatives.images[index]), index, False) for index in asked.tolist()]
    assert sorted(judged) == sorted(pair for pair in wanted if pair[0] != NOBODY)
    assert abs(share - total) < 1e-4


@given(st.integers(1, 300), st.integers(1, 300))
def test_asked_samples_lie_evenly_over_the_ranks(total, num_judged):
    asked = evenly_spread(total, num_judged)
    assert len(asked) == min(total, num_judged) == len(set(asked.tolist()))
    gaps = asked.diff()
    assert not len(gaps) or (int(gaps.max() - gaps.min()) <= 1 and int(asked.max()) < total)


def test_asking_about_some_costs_their_pairs_and_stands_for_all(batch_of):
    batch, judge = batch_of(6), Judge()
    loss = ImageTextMatching(negatives=Evenly(), num_judged=2)(judge, Context(None, batch))
    assert sorted(image for image, _ in judge.asked[:2]) == [0, 3] and len(judge.asked) == 6
    everyone = ImageTextMatching(negatives=Evenly())(Judge(), Context(None, batch))
    torch.testing.assert_close(loss.totals["matching"], everyone.totals["matching"])  # this judge answers all alike
    assert loss.metrics["accuracy"][1] == 6


def test_hard_negatives_need_embeddings_and_names_are_checked():
    with pytest.raises(
        ValueError, match="Negatives drawn BySimilarity need a model that offers EmbedsBoth; Judge does not"
    ):
        ImageTextMatching().require(Judge())
    ImageTextMatching(weight=0).require(Judge())
    with pytest.raises(ValueError, match="num_judged must be 1 or more, or null for all; got 0"):
        ImageTextMatching(num_judged=0)


def test_autocast_keeps_the_gradient_of_weights_that_the_draw_used_before(batch_of, make_model):
    """Drawing under no_grad would leave bf16 copies without history in autocast's cache."""
    model, batch = make_model(), batch_of(4)
    with torch.autocast("cpu", torch.bfloat16):
        loss = ImageTextMatching()(model, Context(model.encode(batch.visual), batch))
    loss.totals["matching"].backward()
    attention = model.qformer.layers[0].self_attention
    assert attention.to_query.weight.grad is not None and attention.to_query.weight.grad.abs().sum() > 0
