"""Texts with hidden words, and what a model could make of them, with the image and without."""

from dataclasses import replace

import torch
from hypothesis import strategies as st

from vlmtrain.batch import IGNORED_TARGET, TargetStates, TextBatch

WORDS = 12


def text_of(ids: torch.Tensor, is_hidden: torch.Tensor) -> tuple[TextBatch, TextBatch]:
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    text = TextBatch(ids, everywhere, ~everywhere)
    return text, replace(text, targets=ids.masked_fill(~is_hidden, IGNORED_TARGET))


def told(ids: torch.Tensor, is_hidden: torch.Tensor, seen: torch.Tensor, blank: torch.Tensor):
    return tuple(TargetStates(logits, ids[is_hidden], lambda states: states) for logits in (seen, blank))


@st.composite
def hidden_texts(draw, scales):
    rows, length = draw(st.integers(1, 5)), draw(st.integers(2, 7))
    numbers = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    ids = torch.randint(0, WORDS, (rows, length), generator=numbers)
    is_hidden = torch.rand(rows, length, generator=numbers) < draw(st.sampled_from([0.0, 0.3, 0.8]))
    scale = draw(st.sampled_from(scales))
    seen, blank = scale * torch.randn(2, int(is_hidden.sum()), WORDS, generator=numbers)
    uniform = torch.rand(rows, generator=numbers)
    uniform[0] = draw(st.sampled_from([0.0, 0.5, 1 - 2**-24]))
    return ids, is_hidden, seen, blank, uniform
