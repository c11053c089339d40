"""CoCa: open_clip's, with copied weights; and what it promises by itself."""

import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import IGNORED_TARGET, Batch, TextBatch, VisualBatch
from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.layout import Text, Visual
from vlmtrain.models.capabilities import Captions, EmbedsBoth, WritesText
from vlmtrain.models.coca import CoCa
from vlmtrain.nn.attentional_poolers import AttentionalPooler, CascadedPooler, SharedPooler
from vlmtrain.nn.pre_norm import Attention, SelfBlock
from vlmtrain.nn.two_part_decoder import TwoPartDecoder
from vlmtrain.objectives.base import Context
from vlmtrain.objectives.contrastive import Contrastive
from vlmtrain.objectives.language_modeling import LanguageModeling
from vlmtrain.objectives.mixture import Mixture

open_clip = importlib.import_module("open_clip")  # after vlmtrain, whose hook lets torchvision be imported

CAPTIONS = ["a red circle", "blue", "what is it", "a small red circle left of a big blue square"]
LENGTH, WORDS, PAD = 24, 320, 1


def decoder(num_words: int) -> TwoPartDecoder:
    return TwoPartDecoder(num_words, 32, depth=2, multimodal_depth=2, num_heads=4, max_tokens=LENGTH)


def make(tokenizer: str, pooler: type = CascadedPooler) -> CoCa:
    torch.manual_seed(0)
    return CoCa(
        VisionTransformer(16, 8, 24, 2, 4),
        decoder,
        tokenizer,
        embedding_width=8,
        pooler=lambda memory, width: pooler(memory, width, num_queries=5, num_heads=4),
    )


def images(count: int) -> VisualBatch:
    pixels = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return VisualBatch(pixels, [1] * count, [1] * count)


def batch_for(model: CoCa) -> Batch:
    return Batch(images(4), model.layout().write([[Visual(), Text(each)] for each in CAPTIONS], lambda tiles: 0))


class TheirTokens(VisionEncoder):
    """The trunk of open_clip's image tower."""

    width, patches_per_tile, image_size, keep_class_token = 24, 5, 16, True

    def __init__(self, visual: nn.Module) -> None:
        super().__init__((0.5,) * 3, (0.5,) * 3)
        self.visual = visual

    def encode_tiles(self, pixels: Tensor) -> Tensor:
        return self.visual.transformer(self.visual._embeds(pixels))


def copy_attention(mine: Attention, theirs: nn.MultiheadAttention, width: int) -> None:
    weights = [theirs.q_proj_weight, theirs.k_proj_weight, theirs.v_proj_weight]
    if theirs.in_proj_weight is not None:
        weights = list(theirs.in_proj_weight.chunk(3))
    mine.to_query.weight.data.copy_(weights[0])
    mine.to_query.bias.data.copy_(theirs.in_proj_bias[:width])
    mine.to_key_value.weight.data.copy_(torch.cat(weights[1:]))
    mine.to_key_value.bias.data.copy_(theirs.in_proj_bias[width:])
    mine.to_out.load_state_dict(theirs.out_proj.state_dict())


def copy_block(mine: SelfBlock, theirs: nn.Module) -> None:
    copy_attention(mine.attention, theirs.attn, 32)
    mine.attention_norm.load_state_dict(theirs.ln_1.state_dict())
    mine.mlp_norm.load_state_dict(theirs.ln_2.state_dict())
    mine.mlp[0].load_state_dict(theirs.mlp.c_fc.state_dict())
    mine.mlp[2].load_state_dict(theirs.mlp.c_proj.state_dict())


def make_pair(tokenizer: str) -> tuple[CoCa, nn.Module]:
    from open_clip.coca_model import CoCa as Theirs

    torch.manual_seed(0)
    shared = {"context_length": LENGTH, "vocab_size": WORDS, "width": 32, "heads": 4, "layers": 2}
    theirs = Theirs(
        32,
        multimodal_cfg=shared,
        text_cfg={**shared, "embed_cls": True, "output_tokens": True, "pad_id": PAD},
        vision_cfg={
            "image_size": 16, "patch_size": 8, "width": 24, "layers": 2, "head_width": 8, "output_tokens": True,
            "attentional_pool": True, "attn_pooler_heads": 4, "attn_pooler_queries": 6,
        },
        pad_id=PAD,
    ).eval()  # fmt: skip
    for parameter in theirs.parameters():
        parameter.data = torch.where(parameter.isfinite(), parameter, 0).clamp(-1, 1)  # one is left as memory was
        parameter.data += 0.05 * torch.randn_like(parameter)
    theirs.text.correct_cls_mask = True  # open_clip's own masks the class token in place of the first padding
    model = CoCa(
        TheirTokens(theirs.visual),
        lambda _: decoder(WORDS),
        tokenizer,
        embedding_width=32,
        pooler=lambda memory, width: SharedPooler(memory, width, num_queries=5, num_heads=4),
    )
    pooler, pool = model.pooler.pooler, theirs.visual.attn_pool
    pooler.queries.data.copy_(pool.query)
    pooler.query_norm.load_state_dict(pool.ln_q.state_dict())
    pooler.memory_norm.load_state_dict(pool.ln_k.state_dict())
    copy_attention(pooler.attention, pool.attn, 32)
    model.pooler.norm.load_state_dict(theirs.visual.ln_post.state_dict())
    model.visual_projection.weight.data.copy_(theirs.visual.proj.T)
    model.text_projection.weight.data.copy_(theirs.text.text_projection.T)
    model.log_scale.data.copy_(theirs.logit_scale.data.fill_(2.0))
    own = model.decoder
    own.words.weight.data.copy_(theirs.text.token_embedding.weight)
    own.class_token.data.copy_(theirs.text.cls_emb)
    own.positions.data.copy_(theirs.text.positional_embedding)
    own.class_norm.load_state_dict(theirs.text.ln_final.state_dict())
    own.norm.load_state_dict(theirs.text_decoder.ln_final.state_dict())
    own.head.weight.data.copy_(theirs.text_decoder.text_projection.T)
    for mine, other in zip(own.unimodal, theirs.text.transformer.resblocks, strict=True):
        copy_block(mine, other)
    for mine, other in zip(own.multimodal, theirs.text_decoder.resblocks, strict=True):
        copy_block(mine, other)
    for mine, other in zip(own.looks, theirs.text_decoder.cross_attn, strict=True):
        copy_block(mine.block, other)
        mine.memory_norm.load_state_dict(other.ln_1_kv.state_dict())
    return model.eval(), theirs


def test_t13_it_is_the_model_and_the_loss_of_open_clip(byte_tokenizer: str) -> None:
    model, theirs = make_pair(byte_tokenizer)
    batch = batch_for(model)
    room = (0, LENGTH - batch.text.input_ids.shape[1])
    assert room[1] > 0, "padding is part of the comparison"
    ids = F.pad(batch.text.input_ids, room, value=PAD)
    text = TextBatch(
        ids,
        F.pad(batch.text.attention_mask, room),
        F.pad(batch.text.visual_mask, room),
        F.pad(batch.text.targets, room, value=IGNORED_TARGET),
        supervised=batch.text.supervised,
    )
    output = theirs(model.encoder.normalise(batch.visual.pixels), ids)
    features = model.encode(batch.visual)
    assert (model.embed_visual(features)[:, 0] - output["image_features"]).detach().abs().max() < 1e-5
    found = model.target_states(features, text)
    logits = output["logits"][text.targets[:, :-1] != IGNORED_TARGET]
    assert (found.head(found.states) - logits).detach().abs().max() < 1e-5
    for rows in (text, batch.text):  # ours does not change with the width of the batch
        assert (model.embed_text(rows) - output["text_features"]).detach().abs().max() < 1e-5
    objective = Mixture({"contrast": Contrastive(), "captions": LanguageModeling(2.0)})
    loss = objective(model, Context(features, Batch(batch.visual, text)))
    ours = loss.totals["contrast"] / 4 + 2 * loss.totals["captions"] / text.supervised
    judge = open_clip.loss.CoCaLoss(2.0, 1.0, pad_id=PAD)
    parts = judge(
        output["image_features"], output["text_features"], output["logits"], ids[:, 1:], output["logit_scale"]
    )
    assert abs(ours.item() - sum(parts).item()) < 1e-5
    mine = torch.autograd.grad(ours, list(model.encoder.visual.transformer.parameters()), retain_graph=True)
    others = torch.autograd.grad(sum(parts), list(theirs.visual.transformer.parameters()), retain_graph=True)
    assert max(float((a - b).abs().max()) for a, b in zip(mine, others, strict=True)) < 1e-5
    names = [
        (model.log_scale, theirs.logit_scale),
        (model.decoder.words.weight, theirs.text.token_embedding.weight),
        (model.decoder.positions, theirs.text.positional_embedding),
        (model.decoder.class_token, theirs.text.cls_emb),
        (model.pooler.pooler.queries, theirs.visual.attn_pool.query),
        (model.decoder.looks[0].block.mlp[0].weight, theirs.text_decoder.cross_attn[0].mlp.c_fc.weight),
        (model.decoder.looks[1].block.attention.to_out.weight, theirs.text_decoder.cross_attn[1].attn.out_proj.weight),
        (model.decoder.unimodal[0].mlp[0].weight, theirs.text.transformer.resblocks[0].mlp.c_fc.weight),
        (model.decoder.multimodal[1].mlp[2].bias, theirs.text_decoder.resblocks[1].mlp.c_proj.bias),
    ]
    mine = torch.autograd.grad(ours, [a for a, _ in names])
    others = torch.autograd.grad(sum(parts), [b for _, b in names])
    assert max(float((a - b).abs().max()) for a, b in zip(mine, others, strict=True)) < 1e-5


@pytest.mark.parametrize("pooler", [CascadedPooler, SharedPooler])
def test_both_objectives_reach_every_parameter(byte_tokenizer: str, pooler: type) -> None:
    model = make(byte_tokenizer, pooler)
    assert isinstance(model, EmbedsBoth) and isinstance(model, WritesText) and isinstance(model, Captions)
    batch = batch_for(model)
    features = model.encode(batch.visual)
    assert features.patches.shape == (4, 6, 32)
    totals = Mixture({"contrast": Contrastive(), "captions": LanguageModeling()})(
        model, Context(features, batch)
    ).totals
    sum(totals.values()).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_words_see_the_image_and_the_past_but_text_vectors_see_no_image(byte_tokenizer: str) -> None:
    model = make(byte_tokenizer).eval()
    batch = batch_for(model)
    ids, mask = batch.text.input_ids[3:], batch.text.attention_mask[3:]
    features = model.encode(images(2))
    first, second = (type(features)(features.patches[row : row + 1], [1], [1]) for row in (0, 1))
    changed = ids.clone()
    changed[:, 4] = 7
    before, after = model._look(first, ids, mask), model._look(first, changed, mask)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert (before[:, 4:] - after[:, 4:]).abs().amax(-1).min() > 1e-6
    assert (before - model._look(second, ids, mask)).abs().amax(-1).min() > 1e-6
    assert not torch.allclose(model.decoder.read(ids, mask)[0], model.decoder.read(changed, mask)[0])


def test_what_is_written_does_not_depend_on_the_side_of_padding_and_is_what_was_learned(byte_tokenizer: str) -> None:
    model = make(byte_tokenizer).train()
    batch = batch_for(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        (total,) = LanguageModeling()(model, Context(model.encode(batch.visual), batch)).totals.values()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    model.eval()
    layout = model.layout()
    given = [[Visual(), Text("a", supervised=False)], [Visual()], [Visual()]]  # two rows are padded on the left
    with torch.no_grad():
        features = model.encode(images(3))
        together = model.write(features, layout.write_prompts(given, lambda tiles: 0), 20)
        alone = model.write(model.encode(images(1)), layout.write_prompts(given[:1], lambda tiles: 0), 20)
    written = [layout.read(row) for row in together.tolist()]
    assert written == ["red circle", "blue", "what is it"]
    assert layout.read(alone[0].tolist()) == written[0]


def test_checkpointing_changes_no_gradient(byte_tokenizer: str) -> None:
    model = make(byte_tokenizer)
    batch = batch_for(model)
    found = []
    for _ in range(2):
        states = model.target_states(model.encode(batch.visual), batch.text).states
        found.append(torch.autograd.grad(states.square().sum(), list(model.decoder.looks.parameters())))
        model.decoder.enable_gradient_checkpointing()
    for plain, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_misuse_is_named(byte_tokenizer: str) -> None:
    model = make(byte_tokenizer)
    with pytest.raises(ValueError, match="2 tiles for 1"):
        model.encode(VisualBatch(images(2).pixels, [2], [1]))
    with pytest.raises(ValueError, match="vocab_size is 7"):
        CoCa(VisionTransformer(16, 8, 24, 2, 4), decoder, byte_tokenizer, vocab_size=7)
    with pytest.raises(ValueError, match="positions for 24"):
        model.decoder.read(torch.zeros(1, 25, dtype=torch.long), torch.ones(1, 25, dtype=torch.bool))
    with pytest.raises(ValueError, match="num_heads 5"):
        AttentionalPooler(24, 32, 4, 5)
