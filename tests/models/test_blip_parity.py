"""BLIP's three readings of text against transformers' BlipForImageTextRetrieval and BlipForConditionalGeneration: fp32,
the same weights, outputs, losses and gradients at most 1e-5 apart."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import Batch, TextBatch, VisualBatch
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.layout import Text, Visual
from vlmtrain.models.capabilities import Captions, EmbedsBoth, MatchesPairs, WritesText
from vlmtrain.models.mixed_encoder_decoder import MixedEncoderDecoder
from vlmtrain.nn.mixed_text import MixedText
from vlmtrain.objectives.base import Context
from vlmtrain.objectives.language_modeling import LanguageModeling

WIDTH, DEPTH, HEADS, ENCODER, EMBEDDING = 32, 3, 4, 24, 8
CAPTIONS = ("a small red circle", "blue", "what colour is the circle? it is red.")
Pairs = list[tuple[Tensor, list[Tensor]]]


@pytest.fixture
def ours(masking_tokenizer: str) -> MixedEncoderDecoder:
    torch.manual_seed(0)
    encoder = VisionTransformer(32, 8, ENCODER, 2, 4)
    text = partial(MixedText, width=WIDTH, depth=DEPTH, num_heads=HEADS)
    model = MixedEncoderDecoder(encoder, text, masking_tokenizer, embedding_width=EMBEDDING, max_tokens=60).eval()
    for parameter in model.parameters():
        if parameter.ndim:
            nn.init.normal_(parameter, std=0.2)
    return model


def their_config(ours: MixedEncoderDecoder) -> object:
    from transformers import BlipConfig

    vision = {
        "hidden_size": ENCODER,
        "intermediate_size": 4 * ENCODER,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
        "layer_norm_eps": 1e-6,
    }
    text = {
        "vocab_size": ours.text.words.num_embeddings,
        "hidden_size": WIDTH,
        "encoder_hidden_size": ENCODER,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS,
        "bos_token_id": ours.decoder_start,
        "sep_token_id": ours.end,
        "eos_token_id": ours.end,
        "pad_token_id": ours.tokenizer.pad_token_id,
        "label_smoothing": 0.1,
    }
    return BlipConfig(vision_config=vision, text_config=text, image_text_hidden_size=EMBEDDING)


@pytest.fixture
def retrieval(ours: MixedEncoderDecoder) -> nn.Module:
    from transformers import BlipForImageTextRetrieval

    return BlipForImageTextRetrieval(their_config(ours)).eval()


@pytest.fixture
def generation(ours: MixedEncoderDecoder) -> nn.Module:
    from transformers import BlipForConditionalGeneration

    return BlipForConditionalGeneration(their_config(ours)).eval()


def pairs_of(ours: MixedEncoderDecoder, theirs: nn.Module, text: str, is_causal: bool) -> Pairs:
    """Each parameter of ours that takes part, with those of theirs that it stands for; every one of theirs is used."""
    weights = dict(theirs.named_parameters())
    pairs: Pairs = []

    def pair(target: nn.Module, *sources: str) -> None:
        for kind in ("weight", "bias"):
            if getattr(target, kind, None) is not None:
                pairs.append((getattr(target, kind), [weights.pop(f"{source}.{kind}") for source in sources]))

    def block(target: nn.Module, at: str) -> None:
        pair(target.to_query, f"{at}.self.query")
        pair(target.to_key_value, f"{at}.self.key", f"{at}.self.value")
        pair(target.to_out, f"{at}.output.dense")
        pair(target.norm, f"{at}.output.LayerNorm")

    pair(ours.text.words, f"{text}.embeddings.word_embeddings")
    pair(ours.text.positions, f"{text}.embeddings.position_embeddings")
    pair(ours.text.norm, f"{text}.embeddings.LayerNorm")
    for index, layer in enumerate(ours.text.stack()):
        at = f"{text}.encoder.layer.{index}"
        block(ours.text.causal_stack()[index] if is_causal else layer.self_attention, f"{at}.attention")
        block(layer.cross_attention, f"{at}.crossattention")
        pair(layer.feed_forward.expand, f"{at}.intermediate.dense")
        pair(layer.feed_forward.contract, f"{at}.output.dense")
        pair(layer.feed_forward.norm, f"{at}.output.LayerNorm")
    if is_causal:
        pair(ours.text.head.dense, "text_decoder.cls.predictions.transform.dense")
        pair(ours.text.head.norm, "text_decoder.cls.predictions.transform.LayerNorm")
        pairs.append((ours.text.head.bias, [weights.pop("text_decoder.cls.predictions.bias")]))
    else:
        pair(ours.visual_projection, "vision_proj")
        pair(ours.text_projection, "text_proj")
        pair(ours.match_head, "itm_head")
    pairs += encoder_pairs(ours.encoder, weights)
    assert not weights, f"parameters of theirs without a place in ours: {sorted(weights)}"
    with torch.no_grad():
        for target, sources in pairs:
            for source, value in zip(sources, target.view(-1, *sources[0].shape[1:]).chunk(len(sources)), strict=True):
                source.copy_(value.view_as(source))
    return pairs


def encoder_pairs(encoder: VisionTransformer, weights: dict[str, Tensor]) -> Pairs:
    names = {
        "self_attn.qkv": "attention.to_query_key_value",
        "self_attn.projection": "attention.to_out",
        "layer_norm1": "attention_norm",
        "layer_norm2": "mlp_norm",
        "mlp.fc1": "mlp.0",
        "mlp.fc2": "mlp.2",
        "encoder.layers": "blocks",
        "post_layernorm": "norm",
        "embeddings.patch_embedding": "patch_projection",
        "embeddings.class_embedding": "class_token",
        "embeddings.position_embedding": "positions.vectors",
    }
    own, pairs = dict(encoder.named_parameters()), []
    for name in [name for name in weights if name.startswith("vision_model.")]:
        renamed = name.removeprefix("vision_model.")
        for old, new in names.items():
            renamed = renamed.replace(old, new)
        pairs.append((own.pop(renamed), [weights.pop(name)]))
    assert not own
    return pairs


def batch(model: MixedEncoderDecoder) -> tuple[VisualBatch, TextBatch, Tensor]:
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=generator)
    text = model.layout().write([[Visual(), Text(caption)] for caption in CAPTIONS], model.placeholders_per_item)
    assert not text.attention_mask.all(), "rows of one length would hide the padding"
    return VisualBatch(pixels, [1] * 3, [1] * 3), text, (pixels.float() - 127.5) / 127.5


def begun_with(token: int, text: TextBatch) -> Tensor:
    ids = text.input_ids.clone()
    ids[:, 0] = token
    return ids


def check_gradients(loss: Tensor, wanted: Tensor, pairs: Pairs) -> None:
    assert abs(loss.item() - wanted.item()) < 1e-5
    mine = torch.autograd.grad(loss, [parameter for parameter, _ in pairs], allow_unused=True)
    for gradient, (parameter, sources) in zip(mine, pairs, strict=True):
        found = torch.autograd.grad(wanted, sources, retain_graph=True, allow_unused=True)
        if gradient is None:
            assert all(each is None for each in found), "unused in ours only"
            continue
        its = torch.cat([torch.zeros_like(s) if f is None else f for f, s in zip(found, sources, strict=True)])
        assert (gradient - its.reshape(parameter.shape)).abs().max() < 1e-5


def test_it_offers_understanding_and_generation(ours: MixedEncoderDecoder) -> None:
    assert all(isinstance(ours, each) for each in (EmbedsBoth, MatchesPairs, WritesText, Captions))


def test_similarities_and_their_gradients_are_those_of_transformers(
    ours: MixedEncoderDecoder, retrieval: nn.Module
) -> None:
    pairs = pairs_of(ours, retrieval, "text_encoder", is_causal=False)
    visual, text, pixels = batch(ours)
    found = ours.embed_visual(ours.encode(visual))[:, 0] @ ours.embed_text(text).T
    mask = text.attention_mask.long()
    wanted = retrieval(text.input_ids, pixels, use_itm_head=False, attention_mask=mask).itm_score
    assert (found - wanted).abs().max() < 1e-5
    pair = torch.arange(3)
    check_gradients(F.cross_entropy(found / 0.07, pair), F.cross_entropy(wanted / 0.07, pair), pairs)


def test_matching_and_its_gradients_are_those_of_transformers(ours: MixedEncoderDecoder, retrieval: nn.Module) -> None:
    pairs = pairs_of(ours, retrieval, "text_encoder", is_causal=False)
    visual, text, pixels = batch(ours)
    image_of_row = torch.tensor([0, 0, 2])  # the second text is judged against the first image
    found = ours.match(ours.encode(visual), text, image_of_row)
    mask, ids = text.attention_mask.long(), begun_with(ours.encoder_start, text)
    wanted = retrieval(ids, pixels[image_of_row], attention_mask=mask).itm_score
    assert (found - (wanted[:, 1] - wanted[:, 0])).abs().max() < 1e-5
    is_match = torch.tensor([1, 0, 1])
    loss = F.binary_cross_entropy_with_logits(found, is_match.float())
    check_gradients(loss, F.cross_entropy(wanted, is_match), pairs)


def test_t19_captioning_loss_and_its_gradients_are_those_of_transformers(
    ours: MixedEncoderDecoder, generation: nn.Module
) -> None:
    pairs = pairs_of(ours, generation, "text_decoder.bert", is_causal=True)
    visual, text, pixels = batch(ours)
    objective, whole = LanguageModeling(label_smoothing=0.1), Batch(visual, text)
    loss = objective(ours, Context(ours.encode(visual), whole)).totals["language_modeling"] / text.supervised
    ids = begun_with(ours.decoder_start, text)
    labels = ids.masked_fill(~text.attention_mask, -100)
    wanted = generation(pixels, ids, attention_mask=text.attention_mask.long(), labels=labels)
    check_gradients(loss, wanted.loss, pairs)


def test_greedy_captions_are_those_of_transformers_token_for_token(
    ours: MixedEncoderDecoder, generation: nn.Module
) -> None:
    with torch.no_grad():  # louder, so that it does not say one word only
        for parameter in ours.text.parameters():
            parameter.mul_(1 if parameter.ndim == 1 else 4)
        ours.text.head.norm.reset_parameters()
    pairs_of(ours, generation, "text_decoder.bert", is_causal=True)
    visual, _, pixels = batch(ours)
    prompts = ["a small", "", "a"]
    layout = ours.layout()
    text = layout.write_prompts(
        [[Visual(), Text(words, supervised=False)] for words in prompts], ours.placeholders_per_item
    )
    found = ours.write(ours.encode(visual), text, max_new_tokens=12)
    for row, words in enumerate(prompts):  # one by one: transformers counts places from the padding on
        ids = layout.write_prompts([[Visual(), Text(words, supervised=False)]], ours.placeholders_per_item).input_ids
        ids = torch.cat([ids, torch.full((1, 1), ours.end)], 1)  # generate() cuts the last token off
        written = generation.generate(pixels[row : row + 1], ids, max_new_tokens=12, do_sample=False)
        wanted = written[0, ids.shape[1] - 1 :].tolist()
        assert found[row, : len(wanted)].tolist() == wanted
    assert len({tuple(row) for row in found.tolist()}) > 1
