"""Samples in rows: all of them, once, in whole, and back again."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmtrain.nn.shared_rows import SharedRows, share

LENGTHS = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), min_size=1, max_size=12)


@settings(deadline=None)
@given(LENGTHS, st.integers(0, 20), st.integers(0, 10))
def test_every_sample_stands_in_one_row_that_has_room_for_it(
    lengths: list[tuple[int, int]], more: int, also: int
) -> None:
    capacity = [max(kind) + extra for kind, extra in zip(zip(*lengths, strict=True), (more, also), strict=True)]
    rows = share(lengths, capacity)
    assert sorted(sample for row in rows for sample in row) == list(range(len(lengths)))
    for row in rows:
        assert all(sum(lengths[sample][kind] for sample in row) <= capacity[kind] for kind in (0, 1))
    assert rows == share(lengths, capacity)
    fewest = max(sum(kind) / room for kind, room in zip(zip(*lengths, strict=True), capacity, strict=True) if room)
    assert fewest <= len(rows) <= len(lengths)


def test_a_row_is_filled_before_another_is_begun() -> None:
    assert share([[2], [6], [3], [1], [4]], [6]) == [[1], [4, 0], [2, 3]]


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=8), st.integers(0, 5), st.booleans(), st.integers(0, 2**20))
def test_there_and_back_again(lengths: list[int], more: int, on_the_left: bool, seed: int) -> None:
    """Padding on either side, samples of no length among them; what is moved is a value and its gradient."""
    longest = max(1, *lengths)
    places = torch.arange(longest)
    mask = torch.stack([places >= longest - n if on_the_left else places < n for n in lengths])
    capacity = longest + more
    rows = share([[length] for length in lengths], [capacity])
    shared = SharedRows.of(mask, rows, capacity)
    values = torch.randn(*mask.shape, 3, generator=torch.Generator().manual_seed(seed), requires_grad=True)
    packed = shared.pack(values)
    assert packed.shape == (len(rows), capacity, 3)
    back = shared.unpack(packed)
    assert torch.equal(back, values * mask.unsqueeze(-1))
    back.sum().backward()
    assert values.grad is not None and torch.equal(values.grad, mask.unsqueeze(-1).expand_as(values).float())
    for number, row in enumerate(rows):
        told = [sample + 1 for sample in row for _ in range(lengths[sample])]
        assert shared.owners[number].tolist() == told + [0] * (capacity - len(told))
        in_order = torch.cat([values[sample][mask[sample]] for sample in row]) if row else values[0, :0]
        assert torch.equal(packed[number, : len(told)], in_order)
