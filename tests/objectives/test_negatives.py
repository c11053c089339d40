"""Hard negatives: T57 of the statements, its half on matching."""

from dataclasses import dataclass

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmtrain.batch import TextBatch
from vlmtrain.objectives.negatives import NOBODY, Negatives, draw_negatives, kinds_of

captions = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3), min_size=1, max_size=8)


def text_of(rows, extra_padding=0):
    longest = max(map(len, rows)) + extra_padding
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.arange(longest) < torch.tensor([len(row) for row in rows]).unsqueeze(1)
    return TextBatch(ids, mask, torch.zeros_like(mask))


@dataclass(frozen=True)
class Matrix:
    """An affinity that is all there."""

    logits: torch.Tensor

    def of_images(self, rows: slice) -> torch.Tensor:
        return self.logits[rows]

    def of_texts(self, rows: slice) -> torch.Tensor:
        return self.logits.T[rows]


def draw(logits: torch.Tensor, kinds: torch.Tensor, seed: int) -> Negatives:
    return draw_negatives(Matrix(logits), kinds, seed)


@settings(max_examples=150, deadline=None)
@given(captions, st.integers(0, 2**31), st.sampled_from([0.0, 1.0, 100.0, 1e6]))
def test_t57_never_the_positive_nor_the_same_words(rows, seed, scale):
    kinds = kinds_of(text_of(rows))
    logits = scale * torch.randn(len(rows), len(rows), generator=torch.Generator().manual_seed(seed))
    drawn = draw(logits, kinds, seed)
    for partners in (drawn.texts, drawn.images):
        for index, partner in enumerate(partners.tolist()):
            alone = all(row == rows[index] for row in rows)
            assert (partner == NOBODY) == alone
            assert partner == NOBODY or rows[partner] != rows[index]


@settings(max_examples=30, deadline=None)
@given(captions, st.integers(0, 2**31))
def test_drawn_alike_on_every_rank_and_whatever_the_padding(rows, seed):
    kinds, padded = kinds_of(text_of(rows)), kinds_of(text_of(rows, extra_padding=3))
    assert torch.equal(kinds[:, None] == kinds, padded[:, None] == padded)
    logits = torch.randn(len(rows), len(rows), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    first = draw(logits, kinds, seed)
    torch.manual_seed(1)
    torch.rand(9)
    second = draw(logits + 1e-9, kinds, seed)
    assert torch.equal(first.texts, second.texts) and torch.equal(first.images, second.images)


def test_draws_follow_the_softmax_of_what_is_left():
    logits = torch.tensor([[9.0, 0.0, 1.0], [0.0, 9.0, 0.0], [2.0, 0.0, 9.0]])
    kinds = torch.arange(3)
    texts = torch.stack([draw(logits, kinds, seed).texts for seed in range(2000)])
    images = torch.stack([draw(logits, kinds, seed).images for seed in range(2000)])
    of_e = torch.e / (1 + torch.e)
    assert abs((texts[:, 0] == 2).float().mean() - of_e) < 0.04  # row 0: text 1 at 0, text 2 at 1
    assert abs((texts[:, 1] == 0).float().mean() - 0.5) < 0.04
    assert abs((images[:, 0] == 2).float().mean() - torch.e**2 / (1 + torch.e**2)) < 0.04  # column 0: images 1, 2


def test_a_text_that_looks_sure_is_still_never_drawn_for_its_own_image():
    """A softmax taken before the mask leaves nothing where the own pair takes it all; ours is taken after."""
    logits = 1e4 * torch.eye(5)
    drawn = draw(logits, torch.arange(5), 0)
    assert (drawn.texts != torch.arange(5)).all() and (drawn.texts != NOBODY).all()


def test_stripes_draw_what_the_whole_matrix_draws():
    """More rows than one stripe has."""
    logits = 3 * torch.randn(600, 600, generator=torch.Generator().manual_seed(4))
    kinds = torch.arange(600) // 2
    drawn = draw(logits, kinds, 5)
    uniform = torch.rand(2, 600, generator=torch.Generator().manual_seed(5), dtype=torch.double)
    same = kinds[:, None] == kinds
    for partners, matrix, numbers in ((drawn.texts, logits, uniform[0]), (drawn.images, logits.T, uniform[1])):
        reached = matrix.double().masked_fill(same, -torch.inf).softmax(1).cumsum(1)
        wanted = (reached < numbers[:, None]).sum(1)
        assert (partners == wanted).float().mean() > 0.99, "all but where rounding decides"
