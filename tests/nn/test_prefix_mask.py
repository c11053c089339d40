"""Who sees whom in rows of any length, prefix and padding."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmtrain.batch import IGNORED_TARGET
from vlmtrain.nn.prefix_mask import prefix_mask, prefix_of

ROWS = st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(0, 4))  # padding left, prefix, suffix


@settings(max_examples=60, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=3))
def test_t56_each_position_sees_what_it_should(drawn: list[tuple[int, int, int]]) -> None:
    length = max(sum(row) for row in drawn) + 1  # at least one position of padding on the right
    mask, targets = torch.zeros(len(drawn), length, dtype=torch.bool), torch.full((len(drawn), length), IGNORED_TARGET)
    for row, (left, prefix, suffix) in enumerate(drawn):
        mask[row, left : left + prefix + suffix] = True
        targets[row, left + prefix - 1 : left + prefix + suffix - 1] = 7  # the last one of the prefix predicts too
    seen = prefix_mask(mask, prefix_of(targets), torch.float32)[:, 0] == 0
    for row, (left, prefix, suffix) in enumerate(drawn):
        for query in range(length):
            for key in range(length):
                is_real = left <= query < left + prefix + suffix and left <= key < left + prefix + suffix
                both_ways = max(query, key) < left + prefix or suffix == 0
                assert bool(seen[row, query, key]) == (query == key or (is_real and (key <= query or both_ways)))
