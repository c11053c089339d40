"""Text towers of transformers by folder, by architecture, on the meta device."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from vlmtrain.language_models.hugging_face_text import HuggingFaceTextEncoder
from vlmtrain.layout import Text
from vlmtrain.nn.pooling import ClassToken, Mean

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
T5 = {"d_model": 32, "num_layers": 2, "num_heads": 4, "d_ff": 64, "d_kv": 8}
KINDS = {"clip_text_model": SIZES, "bert": SIZES, "roberta": SIZES, "siglip_text_model": SIZES, "t5": T5}


def make(tokenizer: str, kind: str = "clip_text_model", **options: object) -> HuggingFaceTextEncoder:
    torch.manual_seed(0)
    architecture = {"model_type": kind, **KINDS[kind]}
    return HuggingFaceTextEncoder(architecture=architecture, tokenizer=tokenizer, max_tokens=32, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_any_text_encoder_of_transformers_is_a_tower_of_which_every_parameter_learns(
    byte_tokenizer: str, kind: str
) -> None:
    encoder = make(byte_tokenizer, kind, pooling=Mean).train()
    text = encoder.layout().write([[Text("a red circle")], [Text("blue")]], lambda tiles: 0)
    vectors = encoder(text)
    assert vectors.shape == (2, encoder.width) == (2, 32)
    vectors.square().sum().backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []


def test_clip_is_causal_and_read_at_its_end(byte_tokenizer: str) -> None:
    encoder = make(byte_tokenizer).eval()
    both = encoder.layout().write([[Text("a small red circle")], [Text("a")]], lambda tiles: 0)
    alone = encoder.layout().write([[Text("a")]], lambda tiles: 0)
    torch.testing.assert_close(encoder(both)[1:], encoder(alone), atol=1e-6, rtol=1e-5)
    changed = both.input_ids.clone()
    changed[0, 3] = 9
    states = [
        encoder.states(type(both)(ids, both.attention_mask, both.visual_mask)) for ids in (both.input_ids, changed)
    ]
    torch.testing.assert_close(states[0][0, :3], states[1][0, :3])
    assert not torch.allclose(states[0][0, -1], states[1][0, -1])


def test_a_folder_comes_back_the_same_and_checkpointing_changes_no_gradient(
    byte_tokenizer: str, tmp_path: Path
) -> None:
    encoder = make(byte_tokenizer, "bert", pooling=ClassToken).eval()
    encoder.save_pretrained(tmp_path)
    again = HuggingFaceTextEncoder(str(tmp_path), max_tokens=32, pooling=ClassToken).eval()
    text = encoder.layout().write([[Text("a red circle")]], lambda tiles: 0)
    torch.testing.assert_close(again(text), encoder(text))
    plain = torch.autograd.grad(again(text).square().sum(), list(again.parameters()))
    again.enable_gradient_checkpointing()
    recomputed = torch.autograd.grad(again(text).square().sum(), list(again.parameters()))
    for before, after in zip(plain, recomputed, strict=True):
        torch.testing.assert_close(before, after)


def test_published_sizes_are_counted_without_a_hub() -> None:
    words = {"hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 8, "intermediate_size": 2048}
    architecture = {"model_type": "clip_text_model", "vocab_size": 49408, **words}
    with torch.device("meta"):
        encoder = HuggingFaceTextEncoder("openai/clip-vit-base-patch32", architecture=architecture)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 63_165_952


def test_misuse_is_named(byte_tokenizer: str) -> None:
    with pytest.raises(ValueError, match="Give tokenizer"):
        HuggingFaceTextEncoder(architecture={"model_type": "bert", **SIZES})
    with pytest.raises(ValueError, match="model_type"):
        HuggingFaceTextEncoder(tokenizer=byte_tokenizer)
    with pytest.raises(ValueError, match="max_tokens 99"):
        HuggingFaceTextEncoder(
            architecture={"model_type": "clip_text_model", **SIZES}, tokenizer=byte_tokenizer, max_tokens=99
        )
    small = {"model_type": "clip_text_model", **SIZES, "vocab_size": 100}
    assert len(AutoTokenizer.from_pretrained(byte_tokenizer)) > 100
    with pytest.raises(ValueError, match="100"):
        HuggingFaceTextEncoder(architecture=small, tokenizer=byte_tokenizer)
