import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmtrain.nn.packing import PackedRows


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 4), st.integers(1, 6), st.integers(0, 999))
def test_pack_and_pad_are_inverse_on_real_positions(num_rows, length, seed):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(num_rows, length, generator=generator) < 0.5
    values = torch.randn(num_rows, length, 3, generator=generator)
    rows = PackedRows.of(mask)
    assert torch.equal(rows.pack(values), values[mask])
    assert torch.equal(rows.pad(rows.pack(values)), values * mask.unsqueeze(-1))
    assert torch.equal(rows.mask(), mask)
    assert torch.equal(rows.columns(), mask.nonzero()[:, 1])
