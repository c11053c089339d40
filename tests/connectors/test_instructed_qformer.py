"""A Q-Former that is told what to look for: T24, T25, and parity with transformers' InstructBlip in fp32."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import IGNORED_TARGET, TextBatch, VisualBatch, VisualFeatures
from vlmtrain.connectors.instructed_qformer import InstructedQFormerConnector
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.fusions.interleave import Interleave
from vlmtrain.language_models.causal import CausalLanguageModel
from vlmtrain.language_models.tokenizers import load_tokenizer
from vlmtrain.layout import Part, Text, Visual
from vlmtrain.models.qformer_pretraining import QFormerPretraining
from vlmtrain.models.vision_language_model import VisionLanguageModel, assemble
from vlmtrain.nn.qformer import QFormer

ENCODER, WIDTH, DEPTH, HEADS, INNER, QUERIES, LANGUAGE, VOCABULARY = 24, 32, 4, 4, 48, 5, 16, 320
IMAGE_TOKEN = VOCABULARY - 1
TINY_QFORMER = partial(
    QFormer, width=WIDTH, num_queries=QUERIES, depth=DEPTH, num_heads=HEADS, feed_forward_width=INNER
)
VISION = {"hidden_size": ENCODER, "intermediate_size": 4 * ENCODER, "num_hidden_layers": 2, "num_attention_heads": 4}
OPT = {"model_type": "opt", "hidden_size": LANGUAGE, "word_embed_proj_dim": LANGUAGE, "num_hidden_layers": 2}
OPT |= {"num_attention_heads": 2, "ffn_dim": 40, "vocab_size": VOCABULARY, "max_position_embeddings": 128}
OPT |= {"bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1}


def connector(folder: str, dropout: float = 0.0) -> InstructedQFormerConnector:
    torch.manual_seed(0)
    made = InstructedQFormerConnector(ENCODER, 17, LANGUAGE, partial(TINY_QFORMER, dropout=dropout), folder, 40)
    for parameter in made.parameters():  # zeros and ones would hide a wrong bias or norm
        nn.init.normal_(parameter, std=0.2)
    return made.eval()


def rows(made: InstructedQFormerConnector, samples: list[list[Part]]) -> TextBatch:
    from vlmtrain.layouts.causal import CausalLayout

    return made.layout(CausalLayout(made.tokenizer, 60)).write_prompts(samples, made.tokens_per_item)


def features(tiles: list[int], items: list[int], patches: int = 9) -> VisualFeatures:
    generator = torch.Generator().manual_seed(1)
    return VisualFeatures(torch.randn(sum(tiles), patches, ENCODER, generator=generator), tiles, items)


def questions(*strings: str) -> list[list[Part]]:
    return [[Visual(), Text(string, supervised=False)] for string in strings]


@pytest.mark.parametrize("patches", [1, 50, 257, 577])
def test_t24_as_many_tokens_as_queries_whatever_the_number_of_patches(byte_tokenizer: str, patches: int) -> None:
    made = connector(byte_tokenizer)
    tokens = made(features([1, 2], [1, 1], patches), rows(made, questions("what?", "where is the circle?")))
    assert tokens.embeddings.shape == (3 * QUERIES, LANGUAGE) and tokens.tokens_per_item == [QUERIES, 2 * QUERIES]
    tokens.embeddings.square().sum().backward()
    assert made.qformer.queries.grad is not None and made.qformer.queries.grad.abs().sum() > 0


def test_every_parameter_takes_part_also_without_an_image(byte_tokenizer: str) -> None:
    for tiles, items in ([1], [1, 0]), ([], [0, 0]):
        made = connector(byte_tokenizer)
        made(features(tiles, items), rows(made, questions("what?", "where?"))).embeddings.sum().backward()
        assert [name for name, parameter in made.named_parameters() if parameter.grad is None] == []


def test_the_prompt_of_a_sample_is_heard_by_all_its_items_and_by_no_other(byte_tokenizer: str) -> None:
    made, visual = connector(byte_tokenizer), features([1, 2, 1], [2, 1])
    base = made(visual, rows(made, questions("what?", "where?"))).embeddings
    other = made(visual, rows(made, questions("what colour?", "where?"))).embeddings
    changed = (base - other).abs().amax(-1).view(4, QUERIES).amax(-1)
    assert (changed[:3] > 1e-3).all() and changed[3] < 1e-6


def test_padding_of_the_prompt_changes_nothing(byte_tokenizer: str) -> None:
    made, visual = connector(byte_tokenizer), features([1], [1])
    alone = made(visual, rows(made, questions("what?"))).embeddings
    beside = made(features([1], [1, 0]), rows(made, questions("what?", "a much longer question about colours?")))
    torch.testing.assert_close(beside.embeddings, alone, atol=1e-6, rtol=0)


def test_patches_that_only_pad_change_nothing(byte_tokenizer: str) -> None:
    made, whole = connector(byte_tokenizer), features([1, 1], [1, 1])
    text = rows(made, questions("what?", "where?"))
    mask = torch.arange(9) < torch.tensor([[9], [4]])
    noise = torch.where(mask.unsqueeze(-1), whole.patches, 100.0)
    padded = made(VisualFeatures(noise, [1, 1], [1, 1], mask), text).embeddings
    cut = made(VisualFeatures(whole.patches[1:, :4], [1], [0, 1]), text).embeddings
    torch.testing.assert_close(padded[:QUERIES], made(whole, text).embeddings[:QUERIES], atol=1e-6, rtol=0)
    torch.testing.assert_close(padded[QUERIES:], cut, atol=1e-6, rtol=0)


def test_no_text_at_all_reads_as_an_empty_prompt(byte_tokenizer: str) -> None:
    made, visual = connector(byte_tokenizer), features([1, 1], [1, 1])
    silent = made(visual, rows(made, [[Visual(), Text("a caption")], [Visual()]])).embeddings
    torch.testing.assert_close(made(visual).embeddings, silent, atol=1e-6, rtol=0)
    torch.testing.assert_close(made.connect_tiles(visual.patches).flatten(0, 1), silent, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="layout of the model"):
        made(visual, replace(rows(made, questions("a", "b")), instruction=None))


def test_it_starts_from_stage_one_under_the_same_names(byte_tokenizer: str, tmp_path: Path) -> None:
    from vlmtrain.training.state import copy_tensors, named_state

    made = connector(byte_tokenizer)
    stage_one = QFormerPretraining(VisionTransformer(16, 8, ENCODER, 1, 2), TINY_QFORMER, byte_tokenizer)
    for part in ("qformer", "text"):
        own, given = named_state(made.get_submodule(part)), named_state(stage_one.get_submodule(part))
        matched = copy_tensors(tmp_path, given, own)
        assert sorted(matched) == sorted(own)
        spare = given.keys() - own.keys()
        assert all(name.startswith(f"feed_forwards.{DEPTH - 1}.") for name in spare)
    assert torch.equal(made.text.words.weight, stage_one.text.words.weight)


def test_the_plan_counts_it_without_a_tokenizer() -> None:
    with torch.device("meta"):
        made = InstructedQFormerConnector(ENCODER, 17, LANGUAGE, TINY_QFORMER, "bert-base-uncased", vocab_size=30523)
        assert made.connect_tiles(torch.empty(2, 17, ENCODER)).shape == (2, QUERIES, LANGUAGE)
    assert made.text.words.weight.shape == (30523, WIDTH)


# Parity --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def theirs(byte_tokenizer: str) -> nn.Module:
    from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration

    from vlmtrain.layouts.qformer_words import load_words

    torch.manual_seed(0)
    config = InstructBlipConfig(
        vision_config={**VISION, "image_size": 32, "patch_size": 8, "qkv_bias": True},
        qformer_config={
            "hidden_size": WIDTH,
            "num_hidden_layers": DEPTH,
            "num_attention_heads": HEADS,
            "intermediate_size": INNER,
            "encoder_hidden_size": ENCODER,
            "cross_attention_frequency": 2,
            "vocab_size": load_words(byte_tokenizer)[1],
        },
        text_config=OPT,
        num_query_tokens=QUERIES,
        image_token_index=IMAGE_TOKEN,
    )
    model = InstructBlipForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    with torch.no_grad():  # louder, so that what the connector says is heard in the loss
        for parameter in [*model.language_projection.parameters(), *model.language_model.parameters()]:
            parameter.mul_(4 if parameter.ndim > 1 else 1)
    return model


def ours_of(theirs: nn.Module, folder: str) -> VisionLanguageModel:
    words = CausalLanguageModel.from_model(theirs.language_model, load_tokenizer(folder), max_tokens=60)
    encoder = VisionTransformer(32, 8, ENCODER, 3, 4, tap=-2)  # the output of the second of two blocks, without norm
    made = partial(InstructedQFormerConnector, qformer=TINY_QFORMER, tokenizer=folder, max_tokens=40)
    model = assemble(encoder, words, made, Interleave).eval()
    model.connector.qformer.patch_norm.eps = theirs.vision_model.post_layernorm.eps
    model.connector.text.positions = nn.Embedding(*theirs.qformer.embeddings.position_embeddings.weight.shape)
    with torch.no_grad():
        for target, sources in [*encoder_pairs(theirs, encoder), *connector_pairs(theirs, model.connector)]:
            target.copy_(torch.cat(sources).view_as(target))
    return model


def encoder_pairs(theirs: nn.Module, ours: VisionTransformer) -> list[tuple[Tensor, list[Tensor]]]:
    names = {
        "encoder.layers": "blocks",
        "self_attn.qkv": "attention.to_query_key_value",
        "self_attn.projection": "attention.to_out",
        "layer_norm1": "attention_norm",
        "layer_norm2": "mlp_norm",
        "mlp.fc1": "mlp.0",
        "mlp.fc2": "mlp.2",
        "embeddings.patch_embedding": "patch_projection",
        "embeddings.class_embedding": "class_token",
        "embeddings.position_embedding": "positions.vectors",
    }
    own, pairs = dict(ours.named_parameters()), []
    for name, value in theirs.vision_model.named_parameters():
        if not name.startswith("post_layernorm"):
            for old, new in names.items():
                name = name.replace(old, new)
            pairs.append((own.pop(name), [value]))
    assert not own
    return pairs


def connector_pairs(theirs: nn.Module, ours: InstructedQFormerConnector) -> list[tuple[Tensor, list[Tensor]]]:
    """Each parameter of ours, with those of theirs that it is made of."""
    weights = dict(theirs.named_parameters())
    pairs: list[tuple[Tensor, list[Tensor]]] = [(ours.qformer.queries, [weights.pop("query_tokens")])]

    def pair(target: nn.Module, *sources: str) -> None:
        for kind, _ in target.named_parameters():
            pairs.append((getattr(target, kind), [weights.pop(f"{source}.{kind}") for source in sources]))

    pair(ours.project, "language_projection")
    pair(ours.qformer.patch_norm, "vision_model.post_layernorm")
    pair(ours.qformer.norm, "qformer.embeddings.layernorm")
    pair(ours.text.words, "qformer.embeddings.word_embeddings")
    pair(ours.text.positions, "qformer.embeddings.position_embeddings")
    for index, layer in enumerate(ours.qformer.layers):
        at = f"qformer.encoder.layer.{index}"
        for name, block in {"attention": layer.self_attention, "crossattention": layer.cross_attention}.items():
            if block is not None:
                pair(block.to_query, f"{at}.{name}.attention.query")
                pair(block.to_key_value, f"{at}.{name}.attention.key", f"{at}.{name}.attention.value")
                pair(block.to_out, f"{at}.{name}.output.dense")
                pair(block.norm, f"{at}.{name}.output.LayerNorm")
        for suffix, forward in [
            ("_query", layer.feed_forward),
            *(("", each) for each in ours.text.feed_forwards[index:][:1]),
        ]:
            pair(forward.expand, f"{at}.intermediate{suffix}.dense")
            pair(forward.contract, f"{at}.output{suffix}.dense")
            pair(forward.norm, f"{at}.output{suffix}.LayerNorm")
    left = [name for name in weights if name.startswith("qformer")]
    unread = [f"qformer.encoder.layer.{DEPTH - 1}.{name}." for name in ("intermediate", "output")]
    assert all(name.startswith(tuple(unread)) for name in left), left
    return pairs


SAMPLES: list[list[Part]] = [
    [Visual(), Text("what colour is it?", supervised=False), Text(" red")],
    [Visual(), Text("a small red circle left of a big blue square")],
    [Visual(), Text("a ", supervised=False), Text("circle")],
]


def inputs(model: VisionLanguageModel) -> tuple[VisualBatch, TextBatch, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=generator)
    text = model.layout().write(SAMPLES, model.placeholders_per_item)
    assert text.instruction is not None and text.targets is not None
    given = {
        "pixel_values": (pixels.float() - 127.5) / 127.5,
        "qformer_input_ids": text.instruction.input_ids,
        "qformer_attention_mask": text.instruction.attention_mask.long(),
        "input_ids": text.input_ids.masked_fill(text.visual_mask, IMAGE_TOKEN),
        "attention_mask": text.attention_mask.long(),
        "labels": torch.cat([torch.full((3, 1), IGNORED_TARGET), text.targets[:, :-1]], 1),  # theirs are not shifted
    }
    return VisualBatch(pixels, [1] * 3, [1] * 3), text, given


def worst_gradient(ours: Tensor, theirs: Tensor, pairs: list[tuple[Tensor, list[Tensor]]]) -> float:
    mine = torch.autograd.grad(ours, [parameter for parameter, _ in pairs])
    worst, largest = 0.0, 0.0
    for gradient, (_, sources) in zip(mine, pairs, strict=True):
        its = torch.cat(torch.autograd.grad(theirs, sources, retain_graph=True))
        worst = max(worst, float((gradient - its.view_as(gradient)).abs().max()))
        largest = max(largest, float(its.abs().max()))
    assert largest > 0.05  # else 1e-5 would say nothing
    return worst


def test_the_qformer_is_that_of_transformers(theirs: nn.Module, byte_tokenizer: str) -> None:
    ours = ours_of(theirs, byte_tokenizer).connector
    text = inputs(ours_of(theirs, byte_tokenizer))[1].instruction
    assert text is not None
    patches = torch.randn(3, 17, ENCODER)
    made = ours(VisualFeatures(patches, [1] * 3, [1] * 3), replace(text, instruction=text)).embeddings
    queries = torch.ones(3, QUERIES, dtype=torch.long)
    wanted = theirs.language_projection(
        theirs.qformer(
            input_ids=text.input_ids,
            attention_mask=torch.cat([queries, text.attention_mask.long()], 1),
            query_embeds=theirs.query_tokens.expand(3, -1, -1),
            encoder_hidden_states=theirs.vision_model.post_layernorm(patches),
        ).last_hidden_state[:, :QUERIES]
    ).flatten(0, 1)
    assert (made - wanted).abs().max() < 1e-5
    weights = torch.randn_like(made) / 100
    pairs = connector_pairs(theirs, ours)
    assert {id(parameter) for parameter, _ in pairs} == {id(parameter) for parameter in ours.parameters()}
    assert worst_gradient((made * weights).sum(), (wanted * weights).sum(), pairs) < 1e-5


def test_t25_loss_logits_and_gradients_of_the_whole_model_are_those_of_transformers(
    theirs: nn.Module, byte_tokenizer: str
) -> None:
    ours = ours_of(theirs, byte_tokenizer)
    visual, text, given = inputs(ours)
    its = theirs(**given)
    found = ours.target_states(ours.encode(visual), text)
    loss = F.cross_entropy(found.head(found.states), found.targets)
    assert abs(loss.item() - its.loss.item()) < 1e-5
    pairs = [*connector_pairs(theirs, ours.connector), *encoder_pairs(theirs, ours.encoder)]
    assert worst_gradient(loss, its.loss, pairs) < 1e-5
    tokens = ours.connector(ours.encode(visual), text)
    with torch.no_grad(), ours.fusion.entering(ours.language_model, text, tokens) as embeddings:
        logits = ours.language_model.logits(embeddings, text.attention_mask, text.targets)
    kept = text.attention_mask
    assert (logits[kept] - its.logits[kept]).abs().max() < 1e-5


def test_what_is_written_follows_the_prompt_to_the_qformer(theirs: nn.Module, byte_tokenizer: str) -> None:
    ours = ours_of(theirs, byte_tokenizer)
    visual, _, _ = inputs(ours)
    prompts = ours.layout().write_prompts(SAMPLES, ours.placeholders_per_item)
    with torch.no_grad():
        assert ours.write(ours.encode(visual), prompts, 3).shape[0] == 3
        told = ours.connector(ours.encode(visual), prompts).embeddings
        silent = ours.connector(ours.encode(visual), None).embeddings
    heard = (told - silent).abs().view(3, -1).amax(-1)
    assert heard[0] > 1e-3 and heard[1] < 1e-6 and heard[2] > 1e-3
