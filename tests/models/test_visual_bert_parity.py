"""JointEncoder with VisualBERT's stream against transformers: fp32, the same weights, at most 1e-5 apart."""

from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import IGNORED_TARGET, TextBatch, VisualFeatures
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.models.joint_encoder import JointEncoder
from vlmtrain.models.visual_bert_stream import VisualBertStream

WIDTH, DEPTH, HEADS, PATCH_WIDTH, WORDS, PATCHES = 24, 3, 4, 16, 60, 5


@pytest.fixture
def theirs() -> nn.Module:
    from transformers import VisualBertConfig, VisualBertForPreTraining

    torch.manual_seed(0)
    config = VisualBertConfig(
        vocab_size=WORDS,
        hidden_size=WIDTH,
        visual_embedding_dim=PATCH_WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=32,
    )
    model = VisualBertForPreTraining(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


def translated(read: dict[str, Tensor], is_gradient: bool = False) -> dict[str, Tensor]:
    """Their weights, or gradients, under our names and in our shapes."""
    at = "visual_bert.embeddings."
    first, second = read[f"{at}visual_position_embeddings.weight"][0], read[f"{at}visual_token_type_embeddings.weight"]
    found = {
        "stream.words.weight": read[f"{at}word_embeddings.weight"],
        "stream.positions.weight": read[f"{at}position_embeddings.weight"],
        "stream.segment": read[f"{at}token_type_embeddings.weight"][0],
        "stream.visual_type": first if is_gradient else first + second[1],  # the gradient of a sum is that of each
        "token_head.bias": read["cls.predictions.decoder.bias"],
    }
    layers = {
        "stream.norm": f"{at}LayerNorm",
        "stream.visual_projection": f"{at}visual_projection",
        "pooler": "visual_bert.pooler.dense",
        "match_head": "cls.seq_relationship",
        "token_head.dense": "cls.predictions.transform.dense",
        "token_head.norm": "cls.predictions.transform.LayerNorm",
    }
    for index in range(DEPTH):
        ours, layer = f"stream.blocks.{index}", f"visual_bert.encoder.layer.{index}"
        layers |= {
            f"{ours}.attention.to_query": f"{layer}.attention.self.query",
            f"{ours}.attention.to_out": f"{layer}.attention.output.dense",
            f"{ours}.attention.norm": f"{layer}.attention.output.LayerNorm",
            f"{ours}.feed_forward.expand": f"{layer}.intermediate.dense",
            f"{ours}.feed_forward.contract": f"{layer}.output.dense",
            f"{ours}.feed_forward.norm": f"{layer}.output.LayerNorm",
        }
        for kind in ("weight", "bias"):
            roles = [read[f"{layer}.attention.self.{role}.{kind}"] for role in ("key", "value")]
            found[f"{ours}.attention.to_key_value.{kind}"] = torch.cat(roles)
    return found | {f"{a}.{kind}": read[f"{b}.{kind}"] for a, b in layers.items() for kind in ("weight", "bias")}


def build(folder: str, bert: str | None = None) -> JointEncoder:
    stream = partial(
        VisualBertStream, width=WIDTH, depth=DEPTH, num_heads=HEADS, max_positions=32, dropout=0.0, bert=bert
    )
    return JointEncoder(VisionTransformer(16, 8, PATCH_WIDTH, 1, 2), stream, folder)


@pytest.fixture
def ours(theirs: nn.Module, words_folder: str) -> JointEncoder:
    model = build(words_folder)
    weights = {name: value.clone() for name, value in translated(dict(theirs.state_dict())).items()}
    # Theirs says 0 for a match, ours has "no match" first.
    weights |= {name: weights[name].flip(0) for name in ("match_head.weight", "match_head.bias")}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and all(name.startswith("encoder.") for name in missing)
    return model


def inputs() -> tuple[VisualFeatures, TextBatch]:
    generator = torch.Generator().manual_seed(1)
    patches = torch.randn(3, PATCHES, PATCH_WIDTH, generator=generator)
    patch_mask = torch.arange(PATCHES) < torch.tensor([5, 3, 4]).unsqueeze(1)
    mask = torch.arange(7) < torch.tensor([7, 4, 5]).unsqueeze(1)
    ids = torch.randint(5, WORDS, mask.shape, generator=generator) * mask
    targets = torch.full_like(ids, IGNORED_TARGET)
    targets[0, 2], targets[0, 6], targets[1, 1], targets[2, 4] = 9, 11, 30, 44
    return VisualFeatures(patches, [1] * 3, [1] * 3, patch_mask), TextBatch(ids, mask, torch.zeros_like(mask), targets)


def test_outputs_and_gradients_of_both_objectives_are_visual_berts(theirs: nn.Module, ours: JointEncoder) -> None:
    features, text = inputs()
    is_match = torch.tensor([1, 0, 1])
    nothing = torch.full((3, PATCHES), IGNORED_TARGET)
    wanted = theirs(
        input_ids=text.input_ids,
        attention_mask=text.attention_mask.long(),
        visual_embeds=features.patches,
        visual_attention_mask=features.patch_mask.long(),
        visual_token_type_ids=torch.ones(3, PATCHES, dtype=torch.long),
        labels=torch.cat([text.targets, nothing], dim=1),
        sentence_image_labels=1 - is_match,
        output_hidden_states=True,
    )
    rows = torch.arange(3)
    states = ours.read(features, text, rows)
    joined = torch.cat([states.text, states.image], dim=1)
    real = torch.cat([text.attention_mask, features.patch_mask], dim=1)
    torch.testing.assert_close(joined[real], wanted.hidden_states[-1][real], atol=1e-5, rtol=0)
    logits = ours.match(features, text, rows)
    of_theirs = wanted.seq_relationship_logits
    torch.testing.assert_close(logits, of_theirs[:, 0] - of_theirs[:, 1], atol=1e-5, rtol=0)
    found = ours.hidden_states(features, text, rows)
    row, column = (text.targets != IGNORED_TARGET).nonzero(as_tuple=True)
    words = found.head(found.states)
    torch.testing.assert_close(words, wanted.prediction_logits[row, column], atol=1e-5, rtol=0)
    matching = F.binary_cross_entropy_with_logits(logits, is_match.float())
    loss = F.cross_entropy(words, found.targets) + matching
    torch.testing.assert_close(loss, wanted.loss, atol=1e-5, rtol=0)
    loss.backward()
    wanted.loss.backward()
    read = {name: value.grad for name, value in theirs.named_parameters(remove_duplicate=False)}
    gradients = translated(read, is_gradient=True)
    gradients |= {name: gradients[name].flip(0) for name in ("match_head.weight", "match_head.bias")}
    own = {name: value.grad for name, value in ours.named_parameters() if value.grad is not None}
    assert own.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            own[name], gradient, atol=1e-5, rtol=0, msg=lambda said, name=name: f"{name}: {said}"
        )


def test_it_starts_as_the_bert_it_is_given(words_folder: str, tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    bert = BertModel(
        BertConfig(
            vocab_size=WORDS,
            hidden_size=WIDTH,
            num_hidden_layers=DEPTH,
            num_attention_heads=HEADS,
            intermediate_size=4 * WIDTH,
            max_position_embeddings=20,
        ),
        add_pooling_layer=False,
    ).eval()
    bert.save_pretrained(tmp_path)
    _, text = inputs()
    stream = build(words_folder, str(tmp_path)).eval().stream
    read = stream(text.input_ids, text.attention_mask, torch.zeros(3, 0, PATCH_WIDTH), None)  # no image at all
    wanted = bert(input_ids=text.input_ids, attention_mask=text.attention_mask.long()).last_hidden_state
    real = text.attention_mask
    torch.testing.assert_close(read.text[real], wanted[real], atol=1e-5, rtol=0)


def test_a_bert_of_another_size_and_an_empty_folder_are_named(words_folder: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json, model\.safetensors not found"):
        build(words_folder, str(tmp_path))
    (tmp_path / "config.json").write_text('{"hidden_size": 768}')
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(ValueError, match="hidden_size 768 against 24"):
        build(words_folder, str(tmp_path))
