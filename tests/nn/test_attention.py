import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmtrain.nn import attention


def tensors(batch=2, queries=3, keys=5, dtype=torch.float32):
    torch.manual_seed(0)
    return tuple(torch.randn(batch, 2, length, 4, dtype=dtype) for length in (queries, keys, keys))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_both_paths_agree_under_any_mask(batch, queries, keys, seed):
    query, key, value = tensors(batch, queries, keys)
    mask = torch.rand(batch, 1, queries, keys, generator=torch.Generator().manual_seed(seed)) < 0.6
    fused = attention.attend(query, key, value, mask)
    seeing = mask | ~mask.any(-1, keepdim=True)
    written_out = attention.attend_explicitly(query, key, value, seeing, 0.0) * mask.any(-1, keepdim=True)
    torch.testing.assert_close(fused, written_out, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_query_that_sees_nothing_gets_zeros_and_no_nan_in_its_gradient(dtype):
    query, key, value = (x.requires_grad_() for x in tensors(dtype=dtype))
    mask = torch.ones(2, 1, 3, 5, dtype=torch.bool)
    mask[0, :, 1] = False
    result = attention.attend(query, key, value, mask)
    assert (result[0, :, 1] == 0).all() and (result[1] != 0).any()
    result.sum().backward()
    assert query.grad.isfinite().all() and (query.grad[0, :, 1] == 0).all()


def test_bf16_on_cpu_takes_the_explicit_path_and_fp32_does_not():
    assert attention.prefers_explicit(*tensors(dtype=torch.bfloat16)[:2])
    assert not attention.prefers_explicit(*tensors()[:2])


def test_a_single_row_is_shared_by_the_whole_other_side():
    query, key, value = tensors()
    shared = attention.attend(query[:1], key, value)
    torch.testing.assert_close(shared, attention.attend(query[:1].expand(2, -1, -1, -1), key, value))
    assert attention.attend(query, key[:1], value[:1]).shape == query.shape
    assert attention.attend(query[:0], key[:0], value[:0]).shape == (0, 2, 3, 4)
