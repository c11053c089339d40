"""Contrast over a large global batch holds stripes of the similarities of everybody with everybody, never all."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from vlmtrain.batch import TextBatch
from vlmtrain.objectives.base import Context, Everyone
from vlmtrain.objectives.negative_draws import BySimilarity
from vlmtrain.objectives.negatives import draw_negatives
from vlmtrain.objectives.pair_softmax import Embedded, OwnPairs, TrueShares
from vlmtrain.objectives.similarity import TEXT, VISUAL

NUMBER, QUERIES, WIDTH = 700, 2, 8


class Largest(TorchDispatchMode):
    """Remembers how many numbers the largest tensor had that came out of anything."""

    numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        made = function(*given, **(named or {}))
        for each in made if isinstance(made, tuple | list) else (made,):
            if isinstance(each, torch.Tensor):
                self.numbers = max(self.numbers, each.numel())
        return made


def everyone_of(images: torch.Tensor, texts: torch.Tensor, start: int) -> Everyone:
    ids = torch.zeros(len(texts), 1, dtype=torch.long)
    return Everyone({VISUAL: images, TEXT: texts}, TextBatch(ids, ids == 0, ids > 0), start)


def make(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    images = F.normalize(torch.randn(number, QUERIES, WIDTH, generator=generator), dim=-1)
    return images, F.normalize(torch.randn(number, WIDTH, generator=generator), dim=-1)


def test_memory_grows_with_the_global_batch_not_with_its_square() -> None:
    images, texts = make(NUMBER)
    own = slice(100, 104)
    everyone, scale = everyone_of(images, texts, 100), torch.tensor(9.0)
    pairs = OwnPairs(images[own].requires_grad_(), texts[own].requires_grad_(), scale, everyone)
    with Largest() as largest:
        total, _, _ = pairs.total(TrueShares(own, NUMBER, 0.1, texts.device))
        total.backward()
    assert largest.numbers <= 128 * NUMBER * QUERIES < NUMBER * NUMBER


def test_so_does_drawing_negatives() -> None:
    class Model:
        def similarity_scale(self) -> torch.Tensor:
            return torch.tensor(9.0)

    images, texts = make(NUMBER)
    everyone = everyone_of(images, texts, 0)
    affinity = BySimilarity().affinity(Model(), Context(None, None, everyone), everyone.text)  # type: ignore[arg-type]
    with Largest() as largest:
        drawn = draw_negatives(affinity, torch.arange(NUMBER), 3)
    assert largest.numbers <= 256 * NUMBER * QUERIES < NUMBER * NUMBER
    assert (drawn.texts != torch.arange(NUMBER)).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("start", [0, 3, 8])
def test_values_are_those_of_the_whole_matrix(smoothing: float, start: int) -> None:
    images, texts = make(10)
    own, scale = slice(start, start + 2), torch.tensor(14.0)
    logits = scale * torch.einsum("gqe,he->ghq", images, texts).amax(-1)
    everyone = everyone_of(images, texts, start)
    total, rows, columns = OwnPairs(images[own], texts[own], scale, everyone).total(
        TrueShares(own, 10, smoothing, texts.device)
    )
    pair = torch.arange(10)
    each = [F.cross_entropy(one, pair, reduction="none", label_smoothing=smoothing) for one in (logits, logits.T)]
    torch.testing.assert_close(total, (each[0] + each[1])[own].sum() / 2)
    torch.testing.assert_close(rows * scale, logits[own])
    torch.testing.assert_close(columns * scale, logits[:, own])
    shares = Embedded.by_model(everyone, scale).shares(everyone, rows, columns, own)
    torch.testing.assert_close(shares.rows_of_images(), logits.softmax(1)[own])
    torch.testing.assert_close(shares.rows_of_texts(), logits.softmax(0)[own])
    torch.testing.assert_close(shares.columns_of_images(), logits.softmax(1)[:, own])
    torch.testing.assert_close(shares.columns_of_texts(), logits.softmax(0)[:, own])
