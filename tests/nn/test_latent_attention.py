"""Latents that read a context and themselves."""

import torch

from vlmtrain.nn.latent_attention import LatentAttention


def test_a_latent_reads_the_other_latents_where_there_is_no_context() -> None:
    torch.manual_seed(0)
    attention, latents, context = LatentAttention(12, 4, 3), torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    blind = attention(latents, context, torch.zeros(2, 7, dtype=torch.bool))
    torch.testing.assert_close(blind, attention(latents, context[:, :0]))
    assert not torch.allclose(blind, attention(latents, context))


def test_grouped_heads_are_whole_heads_whose_keys_and_values_are_shared() -> None:
    torch.manual_seed(0)
    grouped, whole = LatentAttention(12, 4, 3, num_key_value_heads=2), LatentAttention(12, 4, 3)
    whole.to_query, whole.to_out = grouped.to_query, grouped.to_out
    shared = grouped.to_key_value.weight.unflatten(0, (2, 2, 3))  # key or value, head, row of the head
    whole.to_key_value.weight.data = shared.repeat_interleave(2, dim=1).flatten(0, 2).detach()
    latents, context = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    torch.testing.assert_close(grouped(latents, context), whole(latents, context))
