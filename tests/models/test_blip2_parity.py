"""BLIP-2 stage 2, with OPT and with T5, against transformers' Blip2ForConditionalGeneration: fp32, the same weights, at
most 1e-5 apart."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import IGNORED_TARGET, TextBatch, VisualBatch
from vlmtrain.connectors.qformer import QFormerConnector
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.fusions.interleave import Interleave
from vlmtrain.language_models.causal import CausalLanguageModel
from vlmtrain.language_models.seq2seq import Seq2SeqLanguageModel
from vlmtrain.language_models.tokenizers import load_tokenizer
from vlmtrain.layout import Text, Visual
from vlmtrain.models.vision_language_model import VisionLanguageModel, assemble
from vlmtrain.nn.qformer import QFormer

ENCODER, WIDTH, DEPTH, HEADS, INNER, QUERIES, LANGUAGE, VOCABULARY = 24, 32, 4, 4, 48, 5, 16, 320
IMAGE_TOKEN = VOCABULARY - 1
VISION = {
    "hidden_size": ENCODER,
    "intermediate_size": 4 * ENCODER,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
    "qkv_bias": True,
}
OPT = {
    "model_type": "opt",
    "hidden_size": LANGUAGE,
    "word_embed_proj_dim": LANGUAGE,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "ffn_dim": 40,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 128,
    "bos_token_id": 2,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
T5 = {
    "model_type": "t5",
    "d_model": LANGUAGE,
    "d_kv": 8,
    "d_ff": 40,
    "num_layers": 2,
    "num_heads": 2,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "vocab_size": VOCABULARY,
    "decoder_start_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 2,
    "pad_token_id": 1,
}


@pytest.fixture(params=[OPT, T5], ids=["opt", "t5"])
def theirs(request: pytest.FixtureRequest) -> nn.Module:
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    torch.manual_seed(0)
    qformer = {
        "hidden_size": WIDTH,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
        "encoder_hidden_size": ENCODER,
        "cross_attention_frequency": 2,
        "vocab_size": VOCABULARY,
    }
    config = Blip2Config(
        vision_config=VISION,
        qformer_config=qformer,
        text_config=request.param,
        num_query_tokens=QUERIES,
        image_token_index=IMAGE_TOKEN,
    )
    model = Blip2ForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    model.requires_grad_(False)
    for part in (model.qformer, model.language_projection, model.vision_model.post_layernorm):
        part.requires_grad_(True)
    model.query_tokens.requires_grad_(True)
    return model


@pytest.fixture
def ours(theirs: nn.Module, byte_tokenizer: str) -> VisionLanguageModel:
    kind = Seq2SeqLanguageModel if theirs.config.text_config.is_encoder_decoder else CausalLanguageModel
    language_model = kind.from_model(theirs.language_model, load_tokenizer(byte_tokenizer), max_tokens=60)
    # the last block of three is not built: what comes out is the second one's output, without a norm
    encoder = VisionTransformer(32, 8, ENCODER, 3, 4, tap=-2)
    qformer = partial(QFormer, width=WIDTH, num_queries=QUERIES, depth=DEPTH, num_heads=HEADS, feed_forward_width=INNER)
    model = assemble(encoder, language_model, partial(QFormerConnector, qformer=qformer), Interleave).eval()
    copy_encoder(theirs.vision_model, encoder)
    model.connector.qformer.patch_norm.eps = theirs.vision_model.post_layernorm.eps
    for target, sources in connector_pairs(theirs, model.connector):
        with torch.no_grad():
            target.copy_(torch.cat(sources).view_as(target))
    encoder.requires_grad_(False)
    return model


@torch.no_grad()
def copy_encoder(theirs: nn.Module, ours: VisionTransformer) -> None:
    given = {name: value for name, value in theirs.state_dict().items() if not name.startswith("post_layernorm")}
    names = {
        "self_attn.qkv": "attention.to_query_key_value",
        "self_attn.projection": "attention.to_out",
        "layer_norm1": "attention_norm",
        "layer_norm2": "mlp_norm",
        "mlp.fc1": "mlp.0",
        "mlp.fc2": "mlp.2",
        "encoder.layers": "blocks",
        "embeddings.patch_embedding": "patch_projection",
        "embeddings.class_embedding": "class_token",
        "embeddings.position_embedding": "positions.vectors",
    }
    renamed = {}
    for name, value in given.items():
        for old, new in names.items():
            name = name.replace(old, new)
        renamed[name] = value[0] if name == "positions.vectors" else value
    ours.load_state_dict(renamed, strict=True)


def connector_pairs(theirs: nn.Module, ours: nn.Module) -> list[tuple[Tensor, list[Tensor]]]:
    """Each trained parameter of ours, with those of theirs that it is made of."""
    weights = dict(theirs.named_parameters())
    pairs: list[tuple[Tensor, list[Tensor]]] = [(ours.qformer.queries, [weights.pop("query_tokens")])]

    def pair(target: nn.Module, *sources: str) -> None:
        for kind in ("weight", "bias"):
            pairs.append((getattr(target, kind), [weights.pop(f"{source}.{kind}") for source in sources]))

    pair(ours.project, "language_projection")
    pair(ours.qformer.patch_norm, "vision_model.post_layernorm")
    pair(ours.qformer.norm, "qformer.layernorm")
    for index, layer in enumerate(ours.qformer.layers):
        at = f"qformer.encoder.layer.{index}"
        for name, block in {"attention": layer.self_attention, "crossattention": layer.cross_attention}.items():
            if block is not None:
                pair(block.to_query, f"{at}.{name}.attention.query")
                pair(block.to_key_value, f"{at}.{name}.attention.key", f"{at}.{name}.attention.value")
                pair(block.to_out, f"{at}.{name}.output.dense")
                pair(block.norm, f"{at}.{name}.output.LayerNorm")
        pair(layer.feed_forward.expand, f"{at}.intermediate_query.dense")
        pair(layer.feed_forward.contract, f"{at}.output_query.dense")
        pair(layer.feed_forward.norm, f"{at}.output_query.LayerNorm")
    left = [name for name in weights if name.startswith("qformer")]
    assert not left, f"parameters of theirs without a place in ours: {left}"
    return pairs


def batch(model: VisionLanguageModel) -> tuple[VisualBatch, TextBatch, Tensor]:
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=generator)
    samples = [
        [Visual(), Text("what colour is it?", supervised=False), Text(" red")],
        [Visual(), Text("", supervised=False), Text("a small red circle left of a big blue square")],
        [Visual(), Text("a ", supervised=False), Text("circle")],
    ]
    text = model.layout().write(samples, model.placeholders_per_item)
    return VisualBatch(pixels, [1] * 3, [1] * 3), text, (pixels.float() - 127.5) / 127.5


def their_labels(theirs: nn.Module, text: TextBatch) -> Tensor:
    """For a decoder transformers shifts by itself: the label of a position is its own token."""
    assert text.targets is not None
    if theirs.config.text_config.is_encoder_decoder:
        return text.targets
    return torch.cat([torch.full((len(text.targets), 1), IGNORED_TARGET), text.targets[:, :-1]], 1)


def their_ids(text: TextBatch) -> Tensor:
    return text.input_ids.masked_fill(text.visual_mask, IMAGE_TOKEN)


def test_t25_loss_and_gradient_of_every_trained_parameter_are_those_of_transformers(
    theirs: nn.Module, ours: VisionLanguageModel
) -> None:
    visual, text, pixels = batch(ours)
    found = ours.target_states(ours.encode(visual), text)
    loss = F.cross_entropy(found.head(found.states), found.targets)
    wanted = theirs(
        pixel_values=pixels,
        input_ids=their_ids(text),
        attention_mask=text.attention_mask.long(),
        labels=their_labels(theirs, text),
    ).loss
    assert abs(loss.item() - wanted.item()) < 1e-5
    pairs = connector_pairs(theirs, ours.connector)
    assert {id(parameter) for parameter, _ in pairs} == {id(parameter) for parameter in ours.connector.parameters()}
    mine = torch.autograd.grad(loss, [parameter for parameter, _ in pairs])
    for gradient, (_, sources) in zip(mine, pairs, strict=True):
        its = torch.cat(torch.autograd.grad(wanted, sources, retain_graph=True))
        assert (gradient - its.view_as(gradient)).abs().max() < 1e-5


def test_t25_language_states_of_the_whole_row_are_those_of_transformers(
    theirs: nn.Module, ours: VisionLanguageModel
) -> None:
    visual, text, pixels = batch(ours)
    assert text.targets is not None
    with torch.no_grad():
        features = ours.encode(visual)
        with ours.fusion.entering(ours.language_model, text, ours.connector(features)) as embeddings:
            logits = ours.language_model.logits(embeddings, text.attention_mask, text.targets)
        wanted = theirs(
            pixel_values=pixels,
            input_ids=their_ids(text),
            attention_mask=text.attention_mask.long(),
            labels=their_labels(theirs, text),
        ).logits
    assert embeddings.shape[1] == text.input_ids.shape[1]
    is_encoder_decoder = theirs.config.text_config.is_encoder_decoder
    kept = text.targets != IGNORED_TARGET if is_encoder_decoder else text.attention_mask
    assert (logits[kept] - wanted[kept]).abs().max() < 1e-5


def test_greedy_generation_is_that_of_transformers_token_for_token(
    theirs: nn.Module, ours: VisionLanguageModel
) -> None:
    with torch.no_grad():  # the language model is one object in both; louder, so that it does not say one word only
        for parameter in theirs.language_model.parameters():
            parameter.mul_(1 if parameter.ndim == 1 else 4)
    visual, _, pixels = batch(ours)
    layout = ours.layout()
    prompts = [[Visual(), Text(words, supervised=False)] for words in ("what colour is it?", "", "a ")]
    text = layout.write_prompts(prompts, ours.placeholders_per_item)
    made = ours.write(ours.encode(visual), text, max_new_tokens=12)
    ids = their_ids(text)
    wanted = theirs.generate(
        pixel_values=pixels,
        input_ids=ids,
        attention_mask=text.attention_mask.long(),
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=layout.stop_ids,
        pad_token_id=layout.pad_id,
    )
    # of an encoder-decoder transformers gives the start token and what was written, else the prompt as well
    before = 1 if theirs.config.text_config.is_encoder_decoder else ids.shape[1]
    assert made.tolist() == wanted[:, before:].tolist()
    assert made.shape[1] > 1 and len({tuple(row) for row in made.tolist()}) > 1
