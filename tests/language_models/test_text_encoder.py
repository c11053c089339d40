"""The text tower of dual encoders."""

from pathlib import Path

import pytest
import torch

from vlmtrain.language_models.text_encoder import BertTextEncoder
from vlmtrain.layout import Text


def test_the_folder_is_a_plain_bert(tmp_path: Path, byte_tokenizer: str) -> None:
    from transformers import BertModel

    encoder = BertTextEncoder(byte_tokenizer, width=32, depth=2, num_heads=4).eval()
    text = encoder.layout().write([[Text("a red circle")], [Text("blue")]], lambda tiles: 0)
    vectors = encoder(text)
    assert vectors.shape == (2, encoder.width)
    encoder.save_pretrained(tmp_path)
    theirs = BertModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()
    wanted = theirs(text.input_ids, attention_mask=text.attention_mask.long()).last_hidden_state[:, 0]
    torch.testing.assert_close(vectors, wanted)
    again = BertTextEncoder(str(tmp_path), source=str(tmp_path)).eval()
    torch.testing.assert_close(again(text), vectors)


def test_padding_does_not_change_a_vector_and_checkpointing_no_gradient(byte_tokenizer: str) -> None:
    torch.manual_seed(0)
    encoder = BertTextEncoder(byte_tokenizer, width=32, depth=2, num_heads=4).eval()
    layout = encoder.layout()
    both = layout.write([[Text("blue")], [Text("a small red circle")]], lambda tiles: 0)
    alone = layout.write([[Text("blue")]], lambda tiles: 0)
    torch.testing.assert_close(encoder(both)[:1], encoder(alone), atol=1e-5, rtol=1e-4)
    parameters = list(encoder.parameters())
    plain = torch.autograd.grad(encoder(both).square().sum(), parameters)
    encoder.enable_gradient_checkpointing()
    for before, after in zip(plain, torch.autograd.grad(encoder(both).square().sum(), parameters), strict=True):
        torch.testing.assert_close(before, after)


def test_sizes_and_source_exclude_each_other(byte_tokenizer: str) -> None:
    with pytest.raises(ValueError, match="exclude"):
        BertTextEncoder(byte_tokenizer, width=32, source=byte_tokenizer)
    with pytest.raises(ValueError, match="num_heads"):
        BertTextEncoder(byte_tokenizer, width=32, depth=2)
