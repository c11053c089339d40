"""Cross encoders: who sees whom in each arrangement of layers; packing, cutting and caching change nothing."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vlmtrain.batch import TextBatch, VisualBatch
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.layout import Text, Visual
from vlmtrain.layouts.masked import MaskedPairLayout
from vlmtrain.models.capabilities import EmbedsBoth, MatchesPairs, PredictsTokens, WritesText
from vlmtrain.models.cross_encoder import CrossEncoder
from vlmtrain.models.mixed_encoder_decoder import MixedEncoderDecoder
from vlmtrain.nn.bert_weights import BertWeights
from vlmtrain.nn.grounded_text import GroundedText
from vlmtrain.nn.mixed_text import MixedText
from vlmtrain.nn.packing import PackedRows
from vlmtrain.nn.qformer import ImageMemory
from vlmtrain.nn.split_text import SplitText

WIDTH, HEADS, ENCODER, VOCABULARY = 16, 2, 12, 30
SPLIT = partial(SplitText, width=WIDTH, text_depth=2, fusion_depth=2, num_heads=HEADS)
MIXED = partial(MixedText, width=WIDTH, depth=3, num_heads=HEADS)


def loud(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        if parameter.ndim:
            nn.init.normal_(parameter, std=0.3)
    return module.eval()


def make_text(kind: Callable[..., GroundedText]) -> GroundedText:
    torch.manual_seed(0)
    text = kind(memory_width=ENCODER, vocab_size=VOCABULARY)
    loud(text)
    return text


def make(kind: type[CrossEncoder], text: Callable[..., GroundedText], tokenizer: str) -> CrossEncoder:
    torch.manual_seed(0)
    encoder = VisionTransformer(16, 8, ENCODER, 2, 2)
    model = kind(encoder, text, tokenizer, embedding_width=8, max_tokens=40)
    loud(model)
    return model


def images(count: int, seed: int = 0) -> VisualBatch:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return VisualBatch(pixels, [1] * count, [1] * count)


def captions(model: CrossEncoder, *words: str) -> TextBatch:
    return model.layout().write([[Visual(), Text(each)] for each in words], model.placeholders_per_item)


def ids_and_mask(lengths: list[int]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, VOCABULARY, (len(lengths), max(lengths)), generator=generator)
    return ids, torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)


def memory_of(text: GroundedText, rows: int, seed: int = 2) -> ImageMemory:
    return text.remember(torch.randn(rows, 5, ENCODER, generator=torch.Generator().manual_seed(seed)))


def test_t19_encoder_modes_read_both_ways_and_the_decoder_only_backwards() -> None:
    text = make_text(MIXED)
    assert isinstance(text, MixedText)
    ids, mask = ids_and_mask([6])
    later, memory = ids.clone(), memory_of(text, 1)
    later[0, 4] = 5 if ids[0, 4] != 5 else 6
    rows = PackedRows.of(mask)
    assert not torch.allclose(text.read_alone(ids, mask), text.read_alone(later, mask))
    assert not torch.allclose(text.read_together(memory, ids, mask), text.read_together(memory, later, mask))
    before, after = (text.read_causally(memory, each, mask, rows)[0] for each in (ids, later))
    assert torch.equal(before[:4], after[:4]) and not torch.allclose(before[4:], after[4:])


def test_t19_one_set_of_weights_serves_all_three_but_for_the_self_attention_of_the_decoder() -> None:
    """Each mode's gradient reaches the shared tensors; only writing reaches its own self-attentions and the head."""
    text = make_text(MIXED)
    assert isinstance(text, MixedText)
    ids, mask = ids_and_mask([6, 3])
    memory = memory_of(text, 2)

    def reached(states: Tensor) -> set[str]:
        text.zero_grad()
        states.square().sum().backward(retain_graph=True)
        return {name for name, value in text.named_parameters() if value.grad is not None and value.grad.any()}

    alone = reached(text.read_alone(ids, mask))
    together = reached(text.read_together(memory, ids, mask))
    filled_in = reached(text.read_hidden(memory, ids, mask, mask & (ids % 2 == 0)))
    written = reached(text.logits(text.read_causally(memory, ids, mask, PackedRows.of(mask))[0]))
    cross = {name for name, _ in text.named_parameters() if "cross_attention" in name}
    causal = {name for name, _ in text.named_parameters() if name.startswith("causal_attentions")}
    head = {name for name, _ in text.named_parameters() if name.startswith("head")}
    own = {name for name in alone if "self_attention" in name}
    assert cross.isdisjoint(alone) and cross <= together and cross <= written
    assert together - cross == alone and filled_in == together
    assert written - cross - causal - head == alone - own and causal | head <= written


def test_the_lower_layers_of_albef_see_no_image_and_the_upper_ones_do() -> None:
    text = make_text(SPLIT)
    assert isinstance(text, SplitText)
    ids, mask = ids_and_mask([6, 4])
    one, other = memory_of(text, 2, seed=2), memory_of(text, 2, seed=3)
    assert [kept is None for kept in one.layers] == [True, True, False, False]
    fused = [text.read_together(memory, ids, mask) for memory in (one, other)]
    assert not torch.allclose(*fused)
    alone = text.read_alone(ids, mask)
    for layer in text.stack()[text.text_depth :]:
        loud(layer)
    assert torch.equal(text.read_alone(ids, mask), alone)
    alone.sum().backward()
    trained = {name for name, value in text.named_parameters() if value.grad is not None}
    assert not any(name.startswith(("layers.2", "layers.3", "head")) for name in trained)


def test_albefs_text_is_that_of_transformers_layer_by_layer() -> None:
    """BLIP's text model of transformers, once without image and once on top of that with it, is ALBEF's arrangement."""
    from transformers import BlipTextConfig
    from transformers.models.blip.modeling_blip_text import BlipTextModel

    text = make_text(SPLIT)
    assert isinstance(text, SplitText)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": HEADS}
    config = BlipTextConfig(vocab_size=VOCABULARY, encoder_hidden_size=ENCODER, num_hidden_layers=2, **sizes)
    lower, upper = (BlipTextModel(config, add_pooling_layer=False).eval() for _ in range(2))
    with torch.no_grad():
        lower.embeddings.word_embeddings.weight.copy_(text.words.weight)
        lower.embeddings.position_embeddings.weight.copy_(text.positions.weight)
        lower.embeddings.LayerNorm.load_state_dict(text.norm.state_dict())
        for theirs, ours in zip([*lower.encoder.layer, *upper.encoder.layer], text.stack(), strict=True):
            blocks = [(theirs.attention, ours.self_attention)]
            blocks += [(theirs.crossattention, ours.cross_attention)] if ours.cross_attention else []
            for their_block, our_block in blocks:
                key, value = our_block.to_key_value.weight.chunk(2), our_block.to_key_value.bias.chunk(2)
                for part, at in ((their_block.self.key, 0), (their_block.self.value, 1)):
                    part.weight.copy_(key[at])
                    part.bias.copy_(value[at])
                their_block.self.query.load_state_dict(our_block.to_query.state_dict())
                their_block.output.dense.load_state_dict(our_block.to_out.state_dict())
                their_block.output.LayerNorm.load_state_dict(our_block.norm.state_dict())
            theirs.intermediate.dense.load_state_dict(ours.feed_forward.expand.state_dict())
            theirs.output.dense.load_state_dict(ours.feed_forward.contract.state_dict())
            theirs.output.LayerNorm.load_state_dict(ours.feed_forward.norm.state_dict())
    ids, mask = ids_and_mask([6, 4, 2])
    patches = torch.randn(3, 5, ENCODER, requires_grad=True)
    alone = lower(ids, attention_mask=mask.long()).last_hidden_state
    fused = upper(
        encoder_embeds=alone, attention_mask=mask.long(), encoder_hidden_states=patches, is_decoder=False
    ).last_hidden_state
    hidden = mask & (torch.rand(mask.shape, generator=torch.Generator().manual_seed(3)) < 0.5)
    wanted = torch.cat([fused[:, 0], fused[hidden]])
    memory = text.remember(patches)
    found = torch.cat([text.read_together(memory, ids, mask), text.read_hidden(memory, ids, mask, hidden)])
    assert 0 < hidden.sum() < mask.sum()
    assert (text.read_alone(ids, mask) - alone[:, 0]).abs().max() < 1e-5
    assert (found - wanted).abs().max() < 1e-5
    weight = torch.randn_like(found)
    mine, words = torch.autograd.grad((found * weight).sum(), [patches, text.words.weight])
    theirs_too = [patches, lower.embeddings.word_embeddings.weight]
    its, its_words = torch.autograd.grad((wanted * weight).sum(), theirs_too)
    assert (mine - its).abs().max() < 1e-5 and (words - its_words).abs().max() < 1e-5


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4), more=st.integers(1, 3))
@pytest.mark.parametrize("kind", [SPLIT, MIXED], ids=["split", "mixed"])
def test_padding_and_company_change_nothing(kind: Callable[..., GroundedText], lengths: list[int], more: int) -> None:
    text = make_text(kind)
    ids, mask = ids_and_mask(lengths)
    memory = memory_of(text, len(lengths))
    wide, wide_mask = nn.functional.pad(ids, (0, more), value=7), nn.functional.pad(mask, (0, more))
    together = text.read_together(memory, ids, mask)
    torch.testing.assert_close(text.read_together(memory, wide, wide_mask), together)
    torch.testing.assert_close(text.read_alone(wide, wide_mask), text.read_alone(ids, mask))
    torch.testing.assert_close(
        text.read_hidden(memory, wide, wide_mask, wide_mask & (wide % 2 == 0)),
        text.read_hidden(memory, ids, mask, mask & (ids % 2 == 0)),
    )
    for row, length in enumerate(lengths):
        own = memory.select(torch.tensor([row]))
        alone = text.read_together(own, ids[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(alone, together[row : row + 1])


@settings(max_examples=10, deadline=None)
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_writing_with_a_memory_is_writing_without_one(masking_tokenizer: str, lengths: list[int]) -> None:
    """Prompts of different length, padded on the left, continued one token at a time."""
    model = make(MixedEncoderDecoder, MIXED, masking_tokenizer)
    assert isinstance(model, MixedEncoderDecoder)
    samples = [[Visual(), Text("abcde"[:length], supervised=False)] for length in lengths]
    text, features = (
        model.layout().write_prompts(samples, model.placeholders_per_item),
        model.encode(images(len(lengths))),
    )
    found = model.write(features, text, max_new_tokens=5)
    for row in range(len(lengths)):
        ids = text.input_ids[row][text.attention_mask[row]].clone()
        ids[0] = model.decoder_start
        memory = model.remember(features).select(torch.tensor([row]))
        for token in found[row].tolist():
            mask = torch.ones(1, len(ids), dtype=torch.bool)
            states, _ = model.text.read_causally(memory, ids.unsqueeze(0), mask, PackedRows.of(mask))
            assert int(model.text.logits(states)[-1].argmax()) == token
            if token == model.end:
                break
            ids = torch.cat([ids, torch.tensor([token])])


def test_a_split_text_embeds_and_matches_and_fills_in_and_writes_nothing(masking_tokenizer: str) -> None:
    model = make(CrossEncoder, SPLIT, masking_tokenizer)
    assert isinstance(model, EmbedsBoth) and isinstance(model, MatchesPairs) and not isinstance(model, WritesText)
    assert isinstance(model, PredictsTokens)
    text, features = captions(model, "a red circle", "blue", "what"), model.encode(images(3))
    assert model.embed_visual(features).shape == (3, 1, 8) and model.embed_text(text).shape == (3, 8)
    one = model.match(features, text, torch.tensor([0, 1, 2]))
    other = model.match(features, text, torch.tensor([1, 1, 2]))
    assert one.shape == (3,) and one[0] != other[0] and torch.equal(one[1:], other[1:])


@pytest.mark.parametrize(("kind", "text"), [(CrossEncoder, SPLIT), (MixedEncoderDecoder, MIXED)])
def test_a_batch_of_one_works_in_a_single_process(
    kind: type[CrossEncoder], text: Callable[..., GroundedText], masking_tokenizer: str
) -> None:
    """LAVIS squeezes the batch away and asks for a rank."""
    model = make(kind, text, masking_tokenizer)
    features, row = model.encode(images(1)), captions(model, "red")
    assert model.match(features, row, torch.tensor([0])).shape == (1,)
    assert model.embed_visual(features).shape == (1, 1, 8) and model.embed_text(row).shape == (1, 8)


@pytest.mark.parametrize(("kind", "text"), [(CrossEncoder, SPLIT), (MixedEncoderDecoder, MIXED)])
def test_hidden_words_are_read_with_the_image_of_their_row(
    kind: type[CrossEncoder], text: Callable[..., GroundedText], masking_tokenizer: str
) -> None:
    """Row by row, in the order of the targets; another image gives other states to its own rows only."""
    model = make(kind, text, masking_tokenizer)
    layout = model.layout()
    assert isinstance(layout, MaskedPairLayout)
    whole, features = captions(model, "a red circle", "blue"), model.encode(images(2))
    rows = layout.hide_words(whole, [[1, 2], [3]])
    one, other = (model.hidden_states(features, rows, torch.tensor(image)) for image in ([0, 1], [0, 0]))
    assert one.targets.tolist() == [*whole.input_ids[0, 1:3], whole.input_ids[1, 3]]
    assert torch.equal(one.states[:2], other.states[:2]) and not torch.allclose(one.states[2], other.states[2])
    assert one.head(one.states).shape == (3, model.text.words.num_embeddings)


def test_the_three_modes_begin_with_tokens_of_their_own(masking_tokenizer: str) -> None:
    model = make(MixedEncoderDecoder, MIXED, masking_tokenizer)
    assert isinstance(model, MixedEncoderDecoder)
    starts = {int(model.tokenizer.cls_token_id), model.encoder_start, model.decoder_start}
    assert len(starts) == 3 and max(starts) < model.text.words.num_embeddings
    assert {"[DEC]", "[ENC]"} == {model.tokenizer.convert_ids_to_tokens(token) for token in starts} - {"[CLS]"}


def test_what_does_not_fit_is_told(masking_tokenizer: str) -> None:
    model = make(CrossEncoder, SPLIT, masking_tokenizer)
    with pytest.raises(ValueError, match="CrossEncoder takes one image of one tile per sample"):
        model.encode(VisualBatch(images(2).pixels, [1, 1], [2]))
    with pytest.raises(ValueError, match="at least one layer each"):
        SplitText(WIDTH, 0, 2, HEADS, ENCODER, VOCABULARY)
    with pytest.raises(ValueError, match=r"vocab_size is 7, but tokenizer .* has"):
        CrossEncoder(VisionTransformer(16, 8, ENCODER, 2, 2), SPLIT, masking_tokenizer, vocab_size=7)


@pytest.mark.parametrize("kind", [SPLIT, MIXED], ids=["split", "mixed"])
def test_a_bert_is_read_as_bert_reads(kind: Callable[..., GroundedText], tmp_path) -> None:
    from transformers import BertConfig, BertModel

    depth = 4 if kind is SPLIT else 3
    sizes = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "intermediate_size": 4 * WIDTH}
    torch.manual_seed(0)
    bert = BertModel(BertConfig(vocab_size=VOCABULARY - 2, num_hidden_layers=depth, **sizes)).eval()
    nn.init.zeros_(bert.embeddings.token_type_embeddings.weight)
    bert.save_pretrained(tmp_path)
    text = kind(memory_width=ENCODER, vocab_size=VOCABULARY, bert=str(tmp_path)).eval()
    ids, mask = ids_and_mask([6, 4])
    ids = ids.clamp(max=VOCABULARY - 3)
    states = bert(ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states
    lowest = 2 if kind is SPLIT else 3
    assert (text.read_alone(ids, mask) - states[lowest][:, 0]).abs().max() < 1e-5
    if isinstance(text, MixedText):
        for layer, causal in zip(text.stack(), text.causal_stack(), strict=True):
            assert all(map(torch.equal, layer.self_attention.state_dict().values(), causal.state_dict().values()))
    with pytest.raises(ValueError, match="hidden_size 16 against 32"):
        BertWeights(tmp_path, "the reader").check_sizes(32, depth, HEADS, 4 * WIDTH)
    with torch.device("meta"):
        kind(memory_width=ENCODER, vocab_size=VOCABULARY, bert="nowhere")


@pytest.mark.parametrize("kind", [SPLIT, MIXED], ids=["split", "mixed"])
def test_gradient_checkpointing_changes_nothing(kind: Callable[..., GroundedText]) -> None:
    ids, mask = ids_and_mask([6, 4])
    found = []
    for checkpoints in (False, True):
        text = make_text(kind).train()
        if checkpoints:
            text.enable_gradient_checkpointing()
        memory = memory_of(text, 2)
        found_of_both = text.read_together(memory, ids, mask), text.read_hidden(memory, ids, mask, mask & (ids > 9))
        torch.cat(found_of_both).square().sum().backward()
        found.append({name: value.grad for name, value in text.named_parameters() if value.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
