"""Encoder, connector, fusion and language model together: T23, T25, T28, T54, T56."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import IGNORED_TARGET, TextBatch, VisualBatch, VisualTokens
from vlmtrain.connectors.base import Connector
from vlmtrain.connectors.linear import LinearConnector
from vlmtrain.connectors.mlp import MLPConnector
from vlmtrain.connectors.qformer import QFormerConnector
from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.encoders.hugging_face import HuggingFaceEncoder
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.fusions.interleave import Interleave
from vlmtrain.language_models.causal import CausalLanguageModel
from vlmtrain.layout import Part, Text, Visual
from vlmtrain.models.vision_language_model import VisionLanguageModel, assemble
from vlmtrain.nn.qformer import QFormer
from vlmtrain.training.trainability import set_trainability

VOCABULARY = 320
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": VOCABULARY}
LANGUAGE_MODELS = {
    "opt": {"model_type": "opt", **SIZES, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "llama": {"model_type": "llama", **SIZES, "intermediate_size": 64, "num_key_value_heads": 2},
    "mamba": {"model_type": "mamba", "hidden_size": 32, "num_hidden_layers": 2, "vocab_size": VOCABULARY},
}
CONNECTORS = {
    "linear": LinearConnector,
    "mlp": MLPConnector,
    "qformer": partial(QFormerConnector, qformer=partial(QFormer, width=16, num_queries=3, depth=2, num_heads=2)),
}
SIGLIP = {"hidden_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}


def encoder(name: str) -> VisionEncoder:
    if name == "vit":
        return VisionTransformer(16, 8, 24, 2, 4, tap=-2)
    architecture = {"model_type": "siglip_vision_model", **SIGLIP, "image_size": 16, "patch_size": 8}
    return HuggingFaceEncoder(architecture=architecture, keep_class_token=False)


def make(
    tokenizer: str, connector: str = "linear", language_model: str = "opt", vision: str = "vit"
) -> VisionLanguageModel:
    torch.manual_seed(0)
    words = CausalLanguageModel(architecture=LANGUAGE_MODELS[language_model], tokenizer=tokenizer)
    model = assemble(encoder(vision), words, CONNECTORS[connector], Interleave)
    with torch.no_grad():  # random weights so small that nothing would be heard otherwise
        for parameter in model.parameters():
            parameter.mul_(3)
    model.encoder.requires_grad_(False)
    model.language_model.requires_grad_(False)
    return model.eval()


def images(tiles_per_item: list[int], items_per_sample: list[int], seed: int = 0) -> VisualBatch:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (sum(tiles_per_item), 3, 16, 16), dtype=torch.uint8, generator=generator)
    return VisualBatch(pixels, tiles_per_item, items_per_sample)


def loss_of(model: VisionLanguageModel, visual: VisualBatch, text: TextBatch) -> Tensor:
    found = model.target_states(model.encode(visual), text)
    assert len(found.states) == text.supervised
    return F.cross_entropy(found.head(found.states), found.targets)


def logits_of(model: VisionLanguageModel, visual: VisualBatch, text: TextBatch) -> Tensor:
    assert text.targets is not None
    with (
        torch.no_grad(),
        model.fusion.entering(model.language_model, text, model.connector(model.encode(visual))) as embeddings,
    ):
        return model.language_model.logits(embeddings, text.attention_mask, text.targets)


@pytest.mark.parametrize("vision", ["vit", "siglip"])
@pytest.mark.parametrize("connector", CONNECTORS)
@pytest.mark.parametrize("language_model", LANGUAGE_MODELS)
def test_t54_parts_combine_freely_on_a_mixed_batch(
    byte_tokenizer: str, vision: str, connector: str, language_model: str
) -> None:
    """One image; none; a two-tile image between texts, and one more."""
    model = make(byte_tokenizer, connector, language_model, vision)
    samples: list[list[Part]] = [
        [Visual(), Text("a red circle")],
        [Text("only words", supervised=False), Text(" here")],
        [Text("first", False), Visual(2), Text(" then", False), Visual(), Text(" blue")],
    ]
    text = model.layout().write(samples, model.placeholders_per_item)
    loss_of(model, images([1, 2, 1], [1, 0, 2]), text).backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == reached and all(name.startswith("connector.") for name in trained)


def test_t23_frozen_ends_get_no_gradient_and_do_not_change(byte_tokenizer: str) -> None:
    model = make(byte_tokenizer, "mlp")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    text = model.layout().write([[Visual(), Text("a red circle")]], model.placeholders_per_item)
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1)
    for _ in range(2):
        features = model.encode(images([1], [1]))
        assert not features.patches.requires_grad
        loss_of(model, images([1], [1]), text).backward()
        optimizer.step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("connector."), name
    rates = {"encoder": None, "connector": 1.0, "fusion": None, "language_model": None}
    set_trainability(model, rates)
    model.train()
    assert model.connector.training
    for part in (model.encoder, model.language_model):
        assert not any(module.training for module in part.modules())
    model.encoder.requires_grad_(True)
    assert model.encode(images([1], [1])).patches.requires_grad


def test_t25_visual_prompt_has_the_language_width_and_no_loss(byte_tokenizer: str) -> None:
    model = make(byte_tokenizer, "qformer")
    text = model.layout().write([[Visual(), Text("a red circle")]], model.placeholders_per_item)
    queries = model.connector.tokens_per_tile
    assert text.input_ids.shape[1] == queries + int((~text.visual_mask).sum())
    assert text.targets is not None
    assert (text.targets[:, :queries] == IGNORED_TARGET).all()
    tokens = model.connector(model.encode(images([1], [1])))
    assert tokens.embeddings.shape == (queries, model.language_model.width)
    logits = logits_of(model, images([1], [1]), text).requires_grad_()
    F.cross_entropy(logits.flatten(0, 1), text.targets.flatten(), ignore_index=IGNORED_TARGET).backward()
    assert logits.grad is not None and (logits.grad[:, :queries] == 0).all()


def test_t28_second_turn_depends_on_image_and_first_turn(byte_tokenizer: str) -> None:
    model = make(byte_tokenizer)

    def second_turn(first: str, seed: int) -> Tensor:
        turns: list[Part] = [Visual(), Text("one?", False), Text(first), Text("two?", False), Text(" blue")]
        text = model.layout().write([turns], model.placeholders_per_item)
        logits = logits_of(model, images([1], [1], seed), text)
        return logits[0, -3:]

    base = second_turn(" red", 0)
    assert (second_turn(" tan", 0) - base).abs().max() > 1e-3
    assert (second_turn(" red", 1) - base).abs().max() > 1e-3
    torch.testing.assert_close(second_turn(" red", 0), base)


@pytest.mark.parametrize("language_model", LANGUAGE_MODELS)
def test_t56_text_sees_all_of_the_image_and_nothing_later(byte_tokenizer: str, language_model: str) -> None:
    model = make(byte_tokenizer, language_model=language_model)
    text = model.layout().write([[Visual(), Text("a red circle")]], model.placeholders_per_item)
    visual = images([1], [1])
    base = logits_of(model, visual, text)
    words = ~text.visual_mask[0]
    assert text.targets is not None and (text.targets[0][: int(text.visual_mask.sum())] == IGNORED_TARGET).all()
    for patch in range(model.connector.tokens_per_tile):
        tokens = model.connector(model.encode(visual))
        changed = tokens.embeddings.detach().clone()
        changed[patch] += torch.randn(32, generator=torch.Generator().manual_seed(patch))
        with (
            torch.no_grad(),
            model.fusion.entering(model.language_model, text, replace(tokens, embeddings=changed)) as embeddings,
        ):
            logits = model.language_model.logits(embeddings, text.attention_mask, text.targets)
        assert ((logits - base)[0, words].abs().amax(-1) > 1e-6).all()
    ids = text.input_ids.clone()
    ids[0, -1] = 77
    later = logits_of(model, visual, replace(text, input_ids=ids))
    torch.testing.assert_close(later[0, :-1], base[0, :-1])
    assert (later[0, -1] - base[0, -1]).abs().max() > 1e-4


def test_t56_the_loss_is_of_the_text_after_the_prefix_only(byte_tokenizer: str) -> None:
    """Image and prompt are the prefix: what the model says of them costs nothing and teaches nothing."""
    model = make(byte_tokenizer)
    rows: list[list[Part]] = [[Visual(), Text("what?", supervised=False), Text(" red")]]
    text = model.layout().write(rows, model.placeholders_per_item)
    assert text.targets is not None
    logits = logits_of(model, images([1], [1]), text).requires_grad_()
    F.cross_entropy(logits.flatten(0, 1), text.targets.flatten(), ignore_index=IGNORED_TARGET).backward()
    assert logits.grad is not None
    taught = logits.grad.abs().amax(-1)[0] > 0
    answer = len(model.layout().tokenizer.encode(" red", add_special_tokens=False)) + 1  # and its end
    assert taught.sum() == answer == text.supervised
    last = int(text.attention_mask[0].sum()) - 1
    assert taught.nonzero().flatten().tolist() == list(range(last - answer, last))
    torch.testing.assert_close(
        loss_of(model, images([1], [1]), text),
        F.cross_entropy(logits.detach().flatten(0, 1), text.targets.flatten(), ignore_index=IGNORED_TARGET),
    )


def test_t28_an_answer_is_written_with_image_and_earlier_turns_in_view(byte_tokenizer: str) -> None:
    """Generation reads the same rows as training: the second answer follows from image and first turn."""
    model = make(byte_tokenizer)

    def second_answer(first: str, seed: int) -> tuple[int, ...]:
        turns: list[Part] = [Visual(), Text("one?", False), Text(first), Text("two?", False)]
        text = model.layout().write_prompts([turns], model.placeholders_per_item)
        with torch.no_grad():
            written = model.write(model.encode(images([1], [1], seed)), text, 6)
        return tuple(written[0].tolist())

    base = second_answer(" red", 0)
    assert second_answer(" red", 0) == base
    assert {second_answer(first, 0) for first in (" tan", " a small red circle", " blue", " left of")} - {base}
    assert {second_answer(" red", seed) for seed in range(1, 9)} - {base}


def test_no_tokenizer_is_asked_in_a_forward_pass(byte_tokenizer: str) -> None:
    """LAVIS tokenizes its targets in every forward pass, on the main process."""
    model = make(byte_tokenizer, "qformer")
    text = model.layout().write([[Visual(), Text("a red circle")]], model.placeholders_per_item)
    wanted = loss_of(model, images([1], [1]), text)
    model.language_model._layout = None
    torch.testing.assert_close(loss_of(model, images([1], [1]), text), wanted)


def test_items_enter_in_reading_order(byte_tokenizer: str) -> None:
    model = make(byte_tokenizer)
    samples: list[list[Part]] = [[Text("x", False), Visual(), Text(" a")], [Visual(), Visual(2), Text(" b")]]
    text = model.layout().write(samples, model.placeholders_per_item)
    tokens = model.connector(model.encode(images([1, 1, 2], [1, 2])))
    with torch.no_grad(), model.fusion.entering(model.language_model, text, tokens) as embeddings:
        torch.testing.assert_close(embeddings[text.visual_mask], tokens.embeddings)
        words = model.language_model.embed(text.input_ids)
        torch.testing.assert_close(embeddings[~text.visual_mask], words[~text.visual_mask])
    short = VisualTokens(tokens.embeddings[:-1], tokens.tokens_per_item, tokens.items_per_sample)
    with pytest.raises(ValueError, match="leaves room"), model.fusion.entering(model.language_model, text, short):
        pass


def test_low_precision_language_model_trains_a_full_precision_connector(byte_tokenizer: str) -> None:
    model = make(byte_tokenizer, "mlp")
    text = model.layout().write([[Visual(), Text("a red circle")]], model.placeholders_per_item)
    exact = loss_of(model, images([1], [1]), text)
    model.language_model.to(torch.bfloat16)
    for around in (None, torch.bfloat16, torch.float16):
        with torch.autocast("cpu", around, enabled=around is not None):
            low = loss_of(model, images([1], [1]), text)
        low.backward()
        torch.testing.assert_close(low.float(), exact, atol=0.1, rtol=0.05)
    assert {parameter.grad.dtype for parameter in model.connector.parameters()} == {torch.float32}


def test_prompts_are_not_trained_on(byte_tokenizer: str) -> None:
    model = make(byte_tokenizer)
    text = model.layout().write_prompts([[Visual(), Text("what?", False)]], model.placeholders_per_item)
    with pytest.raises(ValueError, match="prompts"):
        model.target_states(model.encode(images([1], [1])), text)
    assert model.write(model.encode(images([1], [1])), text, 3).shape[0] == 1


@pytest.mark.parametrize("name", CONNECTORS)
def test_connectors_keep_what_they_promise(name: str) -> None:
    connector: Connector = CONNECTORS[name](24, 4, 32)
    assert isinstance(connector, nn.Module)
    assert connector.connect_tiles(torch.randn(3, 4, 24)).shape == (3, connector.tokens_per_tile, 32)
    assert connector.tokens_per_item(2) == 2 * connector.tokens_per_tile


def test_an_mlp_without_layers_is_refused() -> None:
    assert isinstance(MLPConnector(24, 4, 32, num_layers=1).layers[0], nn.Linear)
    with pytest.raises(ValueError, match="num_layers 0"):
        MLPConnector(24, 4, 32, num_layers=0)
