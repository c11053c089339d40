"""Hard negatives: T57 of the statements, its half on matching."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmtrain.batch import TextBatch
from vlmtrain.objectives.negatives import NOBODY, draw_negatives, same_text

captions = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3), min_size=1, max_size=8)


def text_of(rows, extra_padding=0):
    longest = max(map(len, rows)) + extra_padding
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.arange(longest) < torch.tensor([len(row) for row in rows]).unsqueeze(1)
    return TextBatch(ids, mask, torch.zeros_like(mask))


@settings(max_examples=150, deadline=None)
@given(captions, st.integers(0, 2**31), st.sampled_from([0.0, 1.0, 100.0, 1e6]))
def test_t57_never_the_positive_nor_the_same_words(rows, seed, scale):
    same = same_text(text_of(rows))
    logits = scale * torch.randn(len(rows), len(rows), generator=torch.Generator().manual_seed(seed))
    drawn = draw_negatives(logits, same, seed)
    for partners in (drawn.texts, drawn.images):
        for index, partner in enumerate(partners.tolist()):
            alone = all(row == rows[index] for row in rows)
            assert (partner == NOBODY) == alone
            assert partner == NOBODY or rows[partner] != rows[index]


@settings(max_examples=30, deadline=None)
@given(captions, st.integers(0, 2**31))
def test_drawn_alike_on_every_rank_and_whatever_the_padding(rows, seed):
    same, padded = same_text(text_of(rows)), same_text(text_of(rows, extra_padding=3))
    assert torch.equal(same, padded)
    logits = torch.randn(len(rows), len(rows), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    first = draw_negatives(logits, same, seed)
    torch.manual_seed(1)
    torch.rand(9)
    second = draw_negatives(logits + 1e-9, same, seed)
    assert torch.equal(first.texts, second.texts) and torch.equal(first.images, second.images)


def test_draws_follow_the_softmax_of_what_is_left():
    logits = torch.tensor([[9.0, 0.0, 1.0], [0.0, 9.0, 0.0], [2.0, 0.0, 9.0]])
    same = torch.eye(3, dtype=torch.bool)
    texts = torch.stack([draw_negatives(logits, same, seed).texts for seed in range(2000)])
    images = torch.stack([draw_negatives(logits, same, seed).images for seed in range(2000)])
    of_e = torch.e / (1 + torch.e)
    assert abs((texts[:, 0] == 2).float().mean() - of_e) < 0.04  # row 0: text 1 at 0, text 2 at 1
    assert abs((texts[:, 1] == 0).float().mean() - 0.5) < 0.04
    assert abs((images[:, 0] == 2).float().mean() - torch.e**2 / (1 + torch.e**2)) < 0.04  # column 0: images 1, 2


def test_a_text_that_looks_sure_is_still_never_drawn_for_its_own_image():
    """A softmax taken before the mask leaves nothing where the own pair takes it all; ours is taken after."""
    logits = 1e4 * torch.eye(5)
    drawn = draw_negatives(logits, torch.eye(5, dtype=torch.bool), 0)
    assert (drawn.texts != torch.arange(5)).all() and (drawn.texts != NOBODY).all()
