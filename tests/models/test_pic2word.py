"""Pic2Word: T29, T30, and the same vectors and gradients as CLIP of transformers with the word put in by hand."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from vlmtrain.batch import VisualBatch
from vlmtrain.config.compose import compose
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.language_models.hugging_face_text import HuggingFaceTextEncoder
from vlmtrain.language_models.text_encoder import BertTextEncoder, TextEncoder
from vlmtrain.layout import Text
from vlmtrain.layouts.pseudo_words import parts_of_prompt
from vlmtrain.models.capabilities import Composes
from vlmtrain.models.dual_encoder import DualEncoder
from vlmtrain.models.pic2word import Pic2Word
from vlmtrain.nn.word_mapper import WordMapper
from vlmtrain.training.hand_over import EVERYTHING, load_part
from vlmtrain.training.manifest import MANIFEST
from vlmtrain.training.publish import publish
from vlmtrain.training.trainability import set_trainability

FROZEN = {"dual_encoder": None, "mapper": 1.0}
WORDS = {"model_type": "clip_text_model", "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
WORDS |= {"intermediate_size": 40, "vocab_size": 320, "max_position_embeddings": 40}
PROMPTS = ["a red *", "* left of a big blue square", "a *"]


def clip_text(folder: str) -> TextEncoder:
    return HuggingFaceTextEncoder(architecture=WORDS, tokenizer=folder, max_tokens=40)


def bert(folder: str) -> TextEncoder:
    return BertTextEncoder(folder, width=24, depth=2, num_heads=4)


def make(folder: str, text_encoder: Callable[[str], TextEncoder] = clip_text) -> Pic2Word:
    torch.manual_seed(0)
    clip = DualEncoder(VisionTransformer(16, 8, 20, 1, 4), text_encoder(folder), embedding_width=8)
    model = Pic2Word(clip, lambda width, words: WordMapper(width, words, hidden_width=16))
    set_trainability(model, FROZEN)
    return model.eval()


def images(count: int) -> VisualBatch:
    pixels = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return VisualBatch(pixels, [1] * count, [1] * count)


def test_t29_only_the_mapping_network_trains_and_the_second_stage_begins_where_the_first_ended() -> None:
    stages = compose(["experiment=pic2word"]).config["stages"]
    assert list(stages) == ["contrastive", "mapping"]
    assert stages["mapping"]["trainable"] == FROZEN
    assert stages["mapping"]["start_from"] == {"dual_encoder": {"stage": "contrastive", "part": EVERYTHING}}
    assert stages["mapping"]["model"]["dual_encoder"] == stages["contrastive"]["model"]


def test_t29_frozen_towers_and_temperature_are_those_of_the_checkpoint(byte_tokenizer: str, tmp_path: Path) -> None:
    first = make(byte_tokenizer).dual_encoder
    for parameter in first.parameters():
        parameter.data.add_(torch.randn(parameter.shape))
    by_part: dict[str, dict[str, Tensor]] = {}
    for name, value in first.state_dict().items():
        by_part.setdefault(name.split(".", 1)[0], {})[name] = value.contiguous()
    files = []
    for part, tensors in {**by_part, "optimizer": {"log_scale": torch.tensor(99.0)}}.items():
        save_file(tensors, tmp_path / f"{part}.safetensors")
        files.append((f"{part}.safetensors", (tmp_path / f"{part}.safetensors").read_bytes()))
    publish(tmp_path / "step-00000001", files, {"frozen": {}})
    assert (tmp_path / "step-00000001" / MANIFEST).is_file()
    second = make(byte_tokenizer)
    report = load_part(tmp_path / "step-00000001", EVERYTHING, second.dual_encoder)
    assert not report.missing and not report.unexpected and "log_scale" in report.matched
    for name, value in second.dual_encoder.state_dict().items():
        assert torch.equal(value, first.state_dict()[name]), name
    assert torch.equal(second.similarity_scale(), first.similarity_scale())


@pytest.mark.parametrize("text_encoder", [clip_text, bert])
def test_t29_gradient_reaches_the_mapping_network_and_nothing_else(
    byte_tokenizer: str, text_encoder: Callable[[str], TextEncoder]
) -> None:
    model = make(byte_tokenizer, text_encoder).train()
    assert isinstance(model, Composes)
    assert not model.dual_encoder.training and model.mapper.training
    before = {name: value.clone() for name, value in model.dual_encoder.state_dict().items()}
    features = model.encode(images(3))
    text = model.layout().write([parts_of_prompt(prompt) for prompt in PROMPTS], model.placeholders_per_item)
    composed = model.embed_composed(features, text)
    assert not features.patches.requires_grad and not model.embed_visual(features).requires_grad
    composed.sum().backward()
    touched = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert touched == {name for name, _ in model.named_parameters() if name.startswith("mapper.")}
    assert all(parameter.grad.abs().max() > 0 for parameter in model.mapper.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.dual_encoder.state_dict().items())


def test_t30_the_word_has_the_width_of_the_text_towers_input_embeddings(byte_tokenizer: str) -> None:
    model = make(byte_tokenizer)
    words = model.pseudo_words(model.encode(images(2)))
    assert words.shape == (2, model.dual_encoder.text_encoder.word_table().embedding_dim) == (2, 24)


def test_t30_equals_clip_of_transformers_with_the_word_among_its_input_embeddings(byte_tokenizer: str) -> None:
    model = make(byte_tokenizer)
    clip, tower = model.dual_encoder, model.dual_encoder.text_encoder.model
    for parameter in clip.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    features = model.encode(images(3))
    text = model.layout().write([parts_of_prompt(prompt) for prompt in PROMPTS], model.placeholders_per_item)
    mine = model.embed_composed(features, text)

    theirs = []
    for row in range(3):
        length = int(text.attention_mask[row].sum())
        embedded = tower.embeddings.token_embedding(text.input_ids[row, :length])
        place = text.visual_mask[row].nonzero().item()
        word = model.mapper(clip.project_visual(features))[row]
        states = torch.cat([embedded[:place], word[None], embedded[place + 1 :]])[None]
        states = states + tower.embeddings.position_embedding.weight[:length]
        hidden = torch.full((length, length), -torch.inf).triu(1)[None, None]
        for layer in tower.encoder.layers:
            states = layer(states, hidden)
            states = states[0] if isinstance(states, tuple) else states
        pooled = tower.final_layer_norm(states)[0, -1]
        theirs.append(F.normalize(clip.text_projection(pooled), dim=-1))
    other = torch.stack(theirs)
    weights = torch.randn(mine.shape)
    parameters = list(model.mapper.parameters())
    of_mine = torch.autograd.grad((mine * weights).sum(), parameters)
    of_theirs = torch.autograd.grad((other * weights).sum(), parameters)
    torch.testing.assert_close(mine, other, atol=1e-5, rtol=0)
    for one, two in zip(of_mine, of_theirs, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=0)


def test_t30_a_wrong_number_of_placeholders_raises(byte_tokenizer: str) -> None:
    model = make(byte_tokenizer)
    features = model.encode(images(2))
    with_word = model.layout().write([parts_of_prompt("a *")] * 2, model.placeholders_per_item)
    plain = model.layout().write([[Text("a red circle")]] * 2, model.placeholders_per_item)
    with pytest.raises(ValueError, match="2 texts with 0 placeholders for 2 images"):
        model.embed_composed(features, plain)
    with pytest.raises(ValueError, match="2 placeholders for 3 images"):
        model.embed_composed(model.encode(images(3)), with_word)
    with pytest.raises(ValueError, match="wait for an image"):
        model.embed_text(with_word)
    assert torch.equal(model.embed_text(plain), model.dual_encoder.embed_text(plain))


def test_t32_two_templates_around_one_image_give_two_vectors_and_two_images_in_one_template_too(
    byte_tokenizer: str,
) -> None:
    model = make(byte_tokenizer)
    features = model.encode(images(2))
    vectors = []
    for domain in ("red", "blue"):
        prompts = [parts_of_prompt(f"a {domain} of *")] * 2
        vectors.append(model.embed_composed(features, model.layout().write(prompts, model.placeholders_per_item)))
    one, other = vectors
    assert (one - other).abs().amax(1).min() > 1e-4 and (one[0] - one[1]).abs().max() > 1e-4
    torch.testing.assert_close(one.norm(dim=1), torch.ones(2))


def test_a_text_encoder_without_a_table_is_named(byte_tokenizer: str) -> None:
    class Closed(TextEncoder):
        width = 4

        def layout(self) -> None:  # type: ignore[override]
            raise NotImplementedError

        def forward(self, text: object) -> Tensor:
            raise NotImplementedError

    clip = make(byte_tokenizer).dual_encoder
    clip.text_encoder = Closed()
    with pytest.raises(ValueError, match="Closed shows no word_table"):
        Pic2Word(clip, nn.Linear)
