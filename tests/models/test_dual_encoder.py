"""The contrastive dual encoder, and the language model by itself."""

import math

import pytest
import torch
import torch.nn.functional as F

from vlmtrain.batch import VisualBatch
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.language_models.causal import CausalLanguageModel
from vlmtrain.language_models.text_encoder import BertTextEncoder
from vlmtrain.layout import Text, Visual
from vlmtrain.models.capabilities import Captions, EmbedsBoth, MatchesPairs, WritesText
from vlmtrain.models.dual_encoder import DualEncoder
from vlmtrain.models.text_only import TextOnly

OPT = {"model_type": "opt", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 320}


def images(count: int) -> VisualBatch:
    return VisualBatch(torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8), [1] * count, [1] * count)


def make(folder: str) -> DualEncoder:
    torch.manual_seed(0)
    text_encoder = BertTextEncoder(folder, width=32, depth=2, num_heads=4)
    return DualEncoder(VisionTransformer(16, 8, 24, 2, 4), text_encoder, embedding_width=8)


def test_t15_both_towers_make_unit_vectors_and_learn(byte_tokenizer: str) -> None:
    model = make(byte_tokenizer)
    assert isinstance(model, EmbedsBoth) and not isinstance(model, MatchesPairs | WritesText)
    captions = [[Visual(), Text(caption)] for caption in ("a red circle", "blue", "what is it")]
    text = model.layout().write(captions, model.placeholders_per_item)
    visual, words = model.embed_visual(model.encode(images(3))), model.embed_text(text)
    assert visual.shape == (3, 1, 8) and words.shape == (3, 8)
    torch.testing.assert_close(visual.norm(dim=-1), torch.ones(3, 1))
    torch.testing.assert_close(words.norm(dim=-1), torch.ones(3))
    scores = model.similarity_scale() * visual[:, 0] @ words.T
    F.cross_entropy(scores, torch.arange(3)).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_scale_starts_at_the_temperature_and_is_clamped(byte_tokenizer: str) -> None:
    model = make(byte_tokenizer)
    assert math.isclose(model.similarity_scale().item(), 1 / 0.07, rel_tol=1e-5)
    torch.nn.init.constant_(model.log_scale, 9.0)
    assert model.similarity_scale().item() == 100.0


def test_several_tiles_per_sample_are_refused(byte_tokenizer: str) -> None:
    model = make(byte_tokenizer)
    two = VisualBatch(images(2).pixels, [2], [1])
    with pytest.raises(ValueError, match="2 tiles for 1"):
        model.embed_visual(model.encode(two))


def test_a_language_model_alone_learns_from_text_and_ignores_images(byte_tokenizer: str) -> None:
    torch.manual_seed(0)
    model = TextOnly(CausalLanguageModel(architecture=OPT, tokenizer=byte_tokenizer)).eval()
    assert isinstance(model, WritesText) and isinstance(model, Captions)
    samples = [[Visual(), Text("a red circle")], [Text("blue")]]
    text = model.layout().write(samples, model.placeholders_per_item)
    assert text.placeholders == 0
    found = model.target_states(model.encode(images(1)), text)
    logits = model.language_model.model(input_ids=text.input_ids, attention_mask=text.attention_mask.long()).logits
    wanted = F.cross_entropy(logits.flatten(0, 1), text.targets.flatten())
    torch.testing.assert_close(F.cross_entropy(found.head(found.states), found.targets), wanted)
    nothing = VisualBatch(torch.zeros(0, 3, 16, 16, dtype=torch.uint8), [], [0, 0])
    prompt = model.layout().write_prompts([[Text("a")]], model.placeholders_per_item)
    assert model.write(model.encode(nothing), prompt, 3).shape[0] == 1
