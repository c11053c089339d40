"""Which position reads which visual token: T45, T46, T49, against a loop that says it in words."""

import pytest
import torch
from fusion_toy import items_of, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmtrain.batch import TextBatch, VisualTokens
from vlmtrain.fusions.visual_memory import visual_memory

Document = list[int | None]  # an item of so many visual tokens, or None for a token of text
DOCUMENTS = st.lists(st.lists(st.one_of(st.none(), st.integers(0, 4)), min_size=1, max_size=9), min_size=1, max_size=4)


def batch_of(documents: list[Document], left: bool) -> tuple[TextBatch, VisualTokens]:
    length = max(len(document) for document in documents)
    is_item = torch.zeros(len(documents), length, dtype=torch.bool)
    is_real = torch.zeros(len(documents), length, dtype=torch.bool)
    for row, document in enumerate(documents):
        start = length - len(document) if left else 0
        for place, what in enumerate(document, start):
            is_real[row, place] = True
            is_item[row, place] = what is not None
    sizes = [what for document in documents for what in document if what is not None]
    counts = [sum(what is not None for what in document) for document in documents]
    # token number n is the vector (n + 1, n + 1), so that a zero can only be padding
    embeddings = torch.arange(1.0, sum(sizes) + 1).unsqueeze(-1).expand(-1, 2)
    text = TextBatch(is_item.long(), is_real, is_item, placeholders=sum(counts))
    return text, VisualTokens(embeddings, sizes, counts)


@settings(deadline=None, max_examples=150)
@given(DOCUMENTS, st.booleans())
def test_t45_t46_t49_each_position_reads_the_last_item_at_or_before_it(documents: list[Document], left: bool) -> None:
    text, visual = batch_of(documents, left)
    memory = visual_memory(text, visual)
    assert memory.visible.shape == (*text.input_ids.shape, memory.tokens.shape[1]) and memory.tokens.shape[1] > 0
    length, token = text.input_ids.shape[1], 0
    for row, document in enumerate(documents):
        wanted: list[float] = []
        start = length - len(document) if left else 0
        for place in range(start):
            assert not memory.visible[row, place].any()
        for place, what in enumerate(document, start):
            if what is not None:
                wanted = [float(token + number + 1) for number in range(what)]
                token += what
            assert memory.tokens[row, memory.visible[row, place], 0].tolist() == wanted
        for place in range(start + len(document), length):  # padding on the right goes on with the last item
            assert memory.tokens[row, memory.visible[row, place], 0].tolist() == wanted


@pytest.mark.parametrize("length", [1, 4, 7])
def test_passes_of_a_generation_go_on_with_what_the_prompt_ended_on(length: int) -> None:
    patterns = ("tiit", "  tt", " itt")
    memory = visual_memory(rows(*patterns), items_of(*patterns))
    seen = memory.visible_to(length)
    assert seen.shape[1] == length
    torch.testing.assert_close(seen[:, -1:], memory.visible[:, -1:])
    if length > 1:
        torch.testing.assert_close(seen[:, :4], memory.visible)
    with pytest.raises(AssertionError, match="one piece"):
        memory.visible_to(3)


def test_wrong_counts_are_named() -> None:
    text = rows("tit", "itt")
    with pytest.raises(ValueError, match=r"2 placeholders for 3 items, one per item; .* 3.*placeholders_per_item"):
        visual_memory(text, items_of("ii", "i"))
    whole = items_of("i", "i")
    with pytest.raises(ValueError, match="announced 6 visual tokens and made 5"):
        visual_memory(text, VisualTokens(whole.embeddings[:-1], whole.tokens_per_item, whole.items_per_sample))
    with pytest.raises(ValueError, match="2 rows of text for 1 samples"):
        visual_memory(text, items_of("ii"))
