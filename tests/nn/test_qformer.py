"""The Q-Former against transformers' Blip2QFormerModel, and what its shortcuts promise."""

import pytest
import torch
from torch import Tensor, nn

from vlmtrain.nn.packing import PackedRows
from vlmtrain.nn.qformer import QFormer
from vlmtrain.nn.qformer_text import QFormerText
from vlmtrain.nn.qformer_views import read_alone, read_causally, read_together

WIDTH, DEPTH, HEADS, QUERIES, VOCABULARY, MEMORY = 32, 4, 4, 5, 60, 24


def parts(dropout: float = 0.0) -> tuple[QFormer, QFormerText]:
    torch.manual_seed(0)
    qformer = QFormer(WIDTH, MEMORY, QUERIES, DEPTH, HEADS, feed_forward_width=48, dropout=dropout)
    text = QFormerText(WIDTH, DEPTH, VOCABULARY, 40, feed_forward_width=48, dropout=dropout)
    for parameter in (*qformer.parameters(), *text.parameters()):  # zeros and ones would hide a wrong bias or norm
        nn.init.normal_(parameter, std=0.2)
    return qformer, text


def texts(lengths: tuple[int, ...] = (7, 3, 5)) -> tuple[Tensor, Tensor]:
    ids = torch.randint(1, VOCABULARY, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    return ids * mask, mask


def copy_to_transformers(qformer: QFormer, text: QFormerText, theirs: nn.Module) -> None:
    """Our weights under the names of Blip2QFormerModel."""

    def pair(prefix: str, module: nn.Module) -> dict[str, Tensor]:
        return {f"{prefix}.weight": module.weight, f"{prefix}.bias": module.bias}

    weights = pair("layernorm", qformer.norm)
    for index, (layer, text_forward) in enumerate(zip(qformer.layers, text.feed_forwards, strict=True)):
        at = f"encoder.layer.{index}"
        blocks = {"attention": layer.self_attention, "crossattention": layer.cross_attention}
        for name, block in blocks.items():
            if block is None:
                continue
            weights |= pair(f"{at}.{name}.attention.query", block.to_query)
            for which, offset in (("key", 0), ("value", WIDTH)):
                rows = slice(offset, offset + WIDTH)
                weights[f"{at}.{name}.attention.{which}.weight"] = block.to_key_value.weight[rows]
                weights[f"{at}.{name}.attention.{which}.bias"] = block.to_key_value.bias[rows]
            weights |= pair(f"{at}.{name}.output.dense", block.to_out)
            weights |= pair(f"{at}.{name}.output.LayerNorm", block.norm)
        for suffix, forward in (("", text_forward), ("_query", layer.feed_forward)):
            weights |= pair(f"{at}.intermediate{suffix}.dense", forward.expand)
            weights |= pair(f"{at}.output{suffix}.dense", forward.contract)
            weights |= pair(f"{at}.output{suffix}.LayerNorm", forward.norm)
    theirs.load_state_dict(weights, strict=True)


@pytest.fixture(scope="module")
def theirs():
    from transformers import Blip2QFormerConfig, Blip2QFormerModel

    config = Blip2QFormerConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=48,
        encoder_hidden_size=MEMORY,
        cross_attention_frequency=2,
        max_position_embeddings=40,
        use_qformer_text_input=True,
    )
    model = Blip2QFormerModel(config).eval()
    copy_to_transformers(*parts(), model)
    return model


def embedded(qformer: QFormer, text: QFormerText, ids: Tensor) -> Tensor:
    return text.words(ids) + text.positions(torch.arange(ids.shape[1]))


def test_query_pass_equals_transformers(theirs):
    qformer, _ = parts()
    patches = torch.randn(3, 9, MEMORY)
    with torch.no_grad():
        wanted = theirs(
            query_embeds=qformer.queries.expand(3, -1, -1), encoder_hidden_states=qformer.patch_norm(patches)
        )
        assert (qformer(patches) - wanted.last_hidden_state).abs().max() < 1e-5


def test_text_alone_equals_transformers(theirs):
    qformer, text = parts()
    ids, mask = texts()
    with torch.no_grad():
        wanted = theirs(query_embeds=embedded(qformer, text, ids), query_length=0, attention_mask=mask.long())
        assert (read_alone(qformer, text, ids, mask) - wanted.last_hidden_state[:, 0]).abs().max() < 1e-5


def test_joint_view_equals_transformers_with_images_gathered_by_row(theirs):
    qformer, text = parts()
    ids, mask = texts()
    patches, image_of_row = torch.randn(2, 9, MEMORY), torch.tensor([1, 0, 1])
    both = torch.cat([qformer.queries.expand(3, -1, -1), embedded(qformer, text, ids)], 1)
    both_mask = torch.cat([torch.ones(3, QUERIES, dtype=torch.bool), mask], 1).long()
    with torch.no_grad():
        wanted = theirs(
            query_embeds=both,
            query_length=QUERIES,
            attention_mask=both_mask,
            encoder_hidden_states=qformer.patch_norm(patches)[image_of_row],
        )
        got = read_together(qformer, text, qformer.remember(patches).select(image_of_row), ids, PackedRows.of(mask))
    assert (got - wanted.last_hidden_state[:, :QUERIES]).abs().max() < 1e-5


def in_one_pass_with_mask(qformer: QFormer, text: QFormerText, patches: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """The causal view the long way: queries and padded text in one stack under one mask."""
    x = qformer.norm(torch.cat([qformer.queries.expand(len(ids), -1, -1), embedded(qformer, text, ids)], 1))
    is_text = torch.arange(x.shape[1]) >= QUERIES
    visible = torch.where(is_text[:, None], torch.ones(len(is_text), len(is_text)).tril().bool(), ~is_text[None])
    visible = visible & torch.cat([mask.new_ones(len(ids), QUERIES), mask], 1)[:, None, :]
    memory = qformer.remember(patches)
    for layer, forward, of_image in zip(qformer.stack(), text.stack(), memory.layers, strict=True):
        x = layer.self_attention(x, layer.self_attention.remember(x), visible.unsqueeze(1))
        queries = layer.after_self_attention(x[:, :QUERIES], of_image)
        x = torch.cat([queries, forward(x[:, QUERIES:])], 1)
    return x[:, QUERIES:]


def test_gradient_of_images_that_several_rows_share_is_the_same_every_time():
    """Plain indexing adds them in an order that the threads race for: two runs of one command then part ways."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        wide = QFormer(128, 128, 16, 1, 4)
        patches = torch.randn(64, 65, 128)
        rows = torch.cat([torch.arange(64), torch.arange(64).flip(0), torch.arange(64)])
        weights = torch.randn(len(rows), 4, 65, 32)

        def gradient() -> Tensor:
            source = patches.clone().requires_grad_()
            chosen = wide.remember(source).select(rows).layers[0]
            (chosen.key * weights + chosen.value * weights.sin()).sum().backward()
            return source.grad

        first = gradient()
        assert all(torch.equal(first, gradient()) for _ in range(20))
    finally:
        torch.set_num_threads(threads)


def test_kept_query_keys_equal_the_joint_pass_under_a_causal_mask_in_value_and_gradient():
    qformer, text = parts()
    ids, mask = texts()
    patches = torch.randn(3, 9, MEMORY)
    rows = PackedRows.of(mask)
    long_way = rows.pack(in_one_pass_with_mask(qformer, text, patches, ids, mask))
    query_pass = qformer.read(qformer.remember(patches), 3)
    short_way = read_causally(qformer, text, query_pass, ids, rows)
    assert (long_way - short_way).abs().max() < 1e-5
    parameters = [*qformer.parameters(), *text.parameters()]
    probe = torch.randn_like(long_way)
    wanted = torch.autograd.grad((long_way * probe).sum(), parameters, allow_unused=True, retain_graph=True)
    got = torch.autograd.grad((short_way * probe).sum(), parameters, allow_unused=True)
    for ours, theirs in zip(got, wanted, strict=True):
        if ours is None or theirs is None:  # unused here and there (last layer's query side): no gradient either way
            assert all(x is None or (x == 0).all() for x in (ours, theirs))
        else:
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_causal_view_never_looks_ahead_and_queries_never_see_text():
    qformer, text = parts()
    ids, mask = texts((6, 6))
    changed = ids.clone()
    changed[:, 4] = (changed[:, 4] + 1) % VOCABULARY
    query_pass = qformer.read(qformer.remember(torch.randn(2, 9, MEMORY)), 2)
    rows = PackedRows.of(mask)
    before, after = (rows.pad(read_causally(qformer, text, query_pass, x, rows)) for x in (ids, changed))
    assert torch.equal(before[:, :4], after[:, :4])
    assert (before[:, 4:] != after[:, 4:]).any(-1).all()


def test_padding_changes_nothing():
    qformer, text = parts()
    ids, mask = texts()
    memory = qformer.remember(torch.randn(3, 9, MEMORY))
    wider = [torch.cat([x, x.new_zeros(3, 4)], 1) for x in (ids, mask)]
    wider[0][~wider[1]] = 7  # whatever stands on padding
    views = (
        lambda *x: read_alone(qformer, text, *x),
        lambda ids, mask: read_together(qformer, text, memory, ids, PackedRows.of(mask)),
        lambda ids, mask: read_causally(qformer, text, qformer.read(memory, 3), ids, PackedRows.of(mask)),
    )
    for view in views:
        assert (view(ids, mask) - view(*wider)).abs().max() < 1e-6
        short = view(ids[1:2, :3], mask[1:2, :3]) if view is views[0] else None
        assert short is None or (short[0] - view(ids, mask)[1]).abs().max() < 1e-6


def test_t24_output_tokens_do_not_depend_on_the_number_of_patches():
    qformer, _ = parts()
    for patches in (1, 50, 257, 577):
        assert qformer(torch.randn(2, patches, MEMORY)).shape == (2, QUERIES, WIDTH)
    qformer(torch.randn(2, 50, MEMORY)).square().sum().backward()
    assert isinstance(qformer.queries, nn.Parameter) and qformer.queries.grad.abs().sum() > 0


def test_norms_have_the_epsilons_of_the_published_model():
    """BERT's 1e-12, and LAVIS' 1e-5 for ln_vision.  transformers has 1e-6 there (LAVIS issue 418, transformers PR
    24854): parity tests copy it across, and so must an exporter."""
    qformer, text = parts()
    assert qformer.patch_norm.eps == 1e-5
    others = [part for part in (*qformer.modules(), *text.modules()) if isinstance(part, nn.LayerNorm)]
    assert {norm.eps for norm in others if norm is not qformer.patch_norm} == {1e-12}


def test_cross_attention_stands_in_every_second_layer_from_the_first():
    assert [layer.cross_attention is not None for layer in parts()[0].layers] == [True, False, True, False]


def test_with_dropout_every_row_draws_its_own():
    qformer, _ = parts(dropout=0.5)
    same_image = torch.randn(1, 9, MEMORY).expand(2, -1, -1)
    assert qformer.first_queries(2).shape[0] == 2
    first, second = qformer.train()(same_image)
    assert not torch.equal(first, second)
    first, second = qformer.eval()(same_image)
    assert qformer.first_queries(2).shape[0] == 1 and torch.allclose(first, second)


def test_recomputing_layers_in_backward_changes_no_gradient_even_with_dropout():
    ids, mask = texts()
    patches, gradients = torch.randn(3, 9, MEMORY), []
    for checkpoints in (False, True):
        qformer, text = parts(dropout=0.2)
        if checkpoints:
            qformer.enable_gradient_checkpointing()
        torch.manual_seed(4)
        memory = qformer.remember(patches)
        query_pass = qformer.read(memory, 3)
        results = (
            query_pass.states,
            read_alone(qformer, text, ids, mask),
            read_together(qformer, text, memory, ids, PackedRows.of(mask)),
            read_causally(qformer, text, query_pass, ids, PackedRows.of(mask)),
        )
        sum(result.square().sum() for result in results).backward()
        gradients.append([p.grad for p in (*qformer.parameters(), *text.parameters())])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_bad_sizes_say_what_to_do():
    with pytest.raises(ValueError, match="width 30 does not divide into 4 heads"):
        QFormer(30, MEMORY, QUERIES, DEPTH, 4)
    qformer, text = parts()
    long_ids = torch.ones(1, 41, dtype=torch.long)
    with pytest.raises(ValueError, match=r"41 tokens exceeds the 40 positions.*max_tokens"):
        read_alone(qformer, text, long_ids, long_ids.bool())
