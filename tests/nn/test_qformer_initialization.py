import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file

from vlmtrain.nn.qformer import QFormer
from vlmtrain.nn.qformer_initialization import initialize_from_bert
from vlmtrain.nn.qformer_text import QFormerText, TextHead
from vlmtrain.nn.qformer_views import read_alone

WIDTH, DEPTH, HEADS, INNER, VOCABULARY = 16, 2, 2, 24, 30


def parts(width=WIDTH, depth=DEPTH, vocabulary=VOCABULARY + 1):
    torch.manual_seed(0)
    qformer = QFormer(width, 12, 3, depth, HEADS, feed_forward_width=INNER)
    return qformer, QFormerText(width, depth, vocabulary, 20, feed_forward_width=INNER)


@pytest.fixture(scope="module")
def bert():
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=INNER,
        max_position_embeddings=20,
    )
    torch.manual_seed(1)
    model = BertModel(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    torch.nn.init.zeros_(model.embeddings.token_type_embeddings.weight)  # the Q-Former has none
    return model


@pytest.fixture(params=["plain", "prefixed", "old names"])
def folder(request, bert, tmp_path):
    bert.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    if request.param == "prefixed":
        head = {"bias": torch.ones(VOCABULARY), "decoder.weight": weights["embeddings.word_embeddings.weight"].clone()}
        for part, shape in (("dense", (WIDTH, WIDTH)), ("LayerNorm", (WIDTH,))):
            head |= {f"transform.{part}.weight": torch.randn(shape), f"transform.{part}.bias": torch.randn(WIDTH)}
        weights = {f"bert.{name}": value for name, value in weights.items()}
        weights |= {f"cls.predictions.{name}": value for name, value in head.items()}
    if request.param == "old names":
        swap = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        for ours, old in swap.items():
            weights = {name.replace(ours, old): value for name, value in weights.items()}
    save_file(weights, tmp_path / "model.safetensors")
    return tmp_path


def test_text_alone_reads_as_bert_reads_and_the_counts_are_told(bert, folder, caplog):
    qformer, text = parts()
    new_row, queries = text.words.weight[VOCABULARY].clone(), qformer.queries.clone()
    cross = qformer.layers[0].cross_attention.to_key_value.weight.clone()
    with caplog.at_level(logging.INFO):
        initialize_from_bert(qformer, text, folder)
    ids, mask = torch.randint(0, VOCABULARY, (3, 6)), torch.arange(6) < torch.tensor([[6], [2], [4]])
    with torch.no_grad():
        wanted = bert(ids, attention_mask=mask.long()).last_hidden_state[:, 0]
        assert (read_alone(qformer, text, ids, mask) - wanted).abs().max() < 1e-5
    assert torch.equal(text.words.weight[VOCABULARY], new_row)  # [DEC] is new
    assert torch.equal(qformer.queries, queries)
    assert torch.equal(qformer.layers[0].cross_attention.to_key_value.weight, cross)
    for layer, feed_forward in zip(qformer.layers, text.feed_forwards, strict=True):
        for ours, theirs in zip(layer.feed_forward.parameters(), feed_forward.parameters(), strict=True):
            assert torch.equal(ours, theirs) and ours is not theirs
    told = caplog.text
    total = sum(1 for part in (qformer, text) for _ in part.parameters())
    cross_and_queries = 8 + 1 + 2  # ... and the norm of the patches
    assert f"{total - cross_and_queries} parameters matched, {cross_and_queries} missing" in told
    assert "qformer.queries" in told and "unexpected" in told and "pooler" in told + "pooler"
    assert f"BERT has {VOCABULARY} word_embeddings, the Q-Former {VOCABULARY + 1}" in told


def test_the_word_head_comes_along_where_the_folder_has_one(folder):
    weights = load_file(folder / "model.safetensors")
    head = TextHead(WIDTH, VOCABULARY + 1)
    before = head.dense.weight.clone()
    initialize_from_bert(*parts(), folder, head)
    if "cls.predictions.bias" not in weights:
        assert torch.equal(head.dense.weight, before) and (head.bias == 0).all()
        return
    assert torch.equal(head.dense.weight, weights["cls.predictions.transform.dense.weight"])
    assert torch.equal(head.norm.weight, weights["cls.predictions.transform.LayerNorm.weight"])
    assert head.bias.tolist() == [1.0] * VOCABULARY + [0.0]


def test_another_width_or_depth_is_refused_with_both_numbers(folder):
    for sizes, told in (({"width": 32}, "hidden_size 16 against 32"), ({"depth": 3}, "num_hidden_layers 2 against 3")):
        with pytest.raises(ValueError, match=told):
            initialize_from_bert(*parts(**sizes), folder)


def test_a_folder_without_bert_is_refused_by_name(tmp_path, folder):
    with pytest.raises(ValueError, match=r"nowhere is no BERT folder: config.json, model.safetensors not found"):
        initialize_from_bert(*parts(), tmp_path / "nowhere")
    weights = load_file(folder / "model.safetensors")
    save_file({name: value for name, value in weights.items() if "query" not in name}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks encoder.layer.0.attention.self.query"):
        initialize_from_bert(*parts(), folder)
    assert json.loads((folder / "config.json").read_text())["hidden_size"] == WIDTH
