"""JointEncoder with ViLT's stream against transformers: fp32, the same weights, at most 1e-5 apart."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import IGNORED_TARGET, TextBatch, VisualBatch
from vlmtrain.encoders.vilt_patches import ViltPatches
from vlmtrain.models.joint_encoder import JointEncoder
from vlmtrain.models.vilt_stream import IMAGE, TEXT, ViltStream

WIDTH, DEPTH, HEADS, SIDE, PATCH, WORDS = 24, 3, 4, 32, 8, 60
EPS = 1e-6  # of all norms; ViLT as published has 1e-12 for words, transformers has one number
SIZES = [(32, 32), (32, 48), (16, 32)]


@pytest.fixture
def theirs() -> nn.Module:
    from transformers import ViltConfig, ViltForMaskedLM

    torch.manual_seed(0)
    config = ViltConfig(
        vocab_size=WORDS,
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        image_size=SIDE,
        patch_size=PATCH,
        layer_norm_eps=EPS,
        attn_implementation="eager",
    )
    model = ViltForMaskedLM(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


def pairs_of_names() -> dict[str, str]:
    """Ours -> theirs, where one is one."""
    names = {
        "encoder.project.bias": "vilt.embeddings.patch_embeddings.projection.bias",
        "encoder.class_token": "vilt.embeddings.cls_token",
        "stream.words.weight": "vilt.embeddings.text_embeddings.word_embeddings.weight",
        "stream.types.weight": "vilt.embeddings.token_type_embeddings.weight",
        "token_head.bias": "mlm_score.decoder.bias",
    }
    layers = {
        "stream.text_norm": "vilt.embeddings.text_embeddings.LayerNorm",
        "stream.norm": "vilt.layernorm",
        "pooler": "vilt.pooler.dense",
        "token_head.dense": "mlm_score.transform.dense",
        "token_head.norm": "mlm_score.transform.LayerNorm",
    }
    for index in range(DEPTH):
        ours, theirs = f"stream.blocks.{index}", f"vilt.encoder.layer.{index}"
        layers |= {
            f"{ours}.attention_norm": f"{theirs}.layernorm_before",
            f"{ours}.attention.to_out": f"{theirs}.attention.output.dense",
            f"{ours}.mlp_norm": f"{theirs}.layernorm_after",
            f"{ours}.mlp.0": f"{theirs}.intermediate.dense",
            f"{ours}.mlp.2": f"{theirs}.output.dense",
        }
    return names | {f"{a}.{kind}": f"{b}.{kind}" for a, b in layers.items() for kind in ("weight", "bias")}


def translated(read: dict[str, Tensor]) -> dict[str, Tensor]:
    """Their weights, or gradients, under our names and in our shapes."""
    found = {ours: read[theirs] for ours, theirs in pairs_of_names().items()}
    at = "vilt.embeddings."
    found["encoder.project.weight"] = read[f"{at}patch_embeddings.projection.weight"].permute(0, 2, 3, 1).flatten(1)
    found["encoder.positions"] = read[f"{at}position_embeddings"][0]
    for index in range(DEPTH):
        for kind in ("weight", "bias"):
            three = [
                read[f"vilt.encoder.layer.{index}.attention.attention.{role}.{kind}"]
                for role in ("query", "key", "value")
            ]
            found[f"stream.blocks.{index}.attention.to_query_key_value.{kind}"] = torch.cat(three)
    found["stream.positions.weight"] = read[f"{at}text_embeddings.position_embeddings.weight"]
    return found


@pytest.fixture
def ours(theirs: nn.Module, words_folder: str) -> JointEncoder:
    encoder = ViltPatches(SIDE, PATCH, WIDTH, longest=48)
    stream = partial(ViltStream, width=WIDTH, depth=DEPTH, num_heads=HEADS, layer_norm_eps=EPS)
    model = JointEncoder(encoder, stream, words_folder)
    weights = {name: value.clone() for name, value in translated(dict(theirs.state_dict())).items()}
    first_segment = theirs.vilt.embeddings.text_embeddings.token_type_embeddings.weight[0]
    weights["stream.positions.weight"] = weights["stream.positions.weight"] + first_segment  # see ViltStream
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and set(missing) == {"match_head.weight", "match_head.bias"}
    return model


def inputs() -> tuple[VisualBatch, TextBatch]:
    generator = torch.Generator().manual_seed(1)
    canvas = torch.zeros(len(SIZES), 3, 32, 48, dtype=torch.uint8)
    for index, (height, width) in enumerate(SIZES):
        drawn = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
        canvas[index, :, :height, :width] = drawn
    mask = torch.arange(7) < torch.tensor([7, 4, 5]).unsqueeze(1)
    ids = torch.randint(5, WORDS, mask.shape, generator=generator) * mask
    targets = torch.full_like(ids, IGNORED_TARGET)
    targets[0, 2], targets[0, 6], targets[1, 1], targets[2, 4] = 9, 11, 30, 44
    text = TextBatch(ids, mask, torch.zeros_like(mask), targets, supervised=4, supervised_per_sample=[2, 1, 1])
    return VisualBatch(canvas, [1] * 3, [1] * 3, SIZES), text


def run_theirs(theirs: nn.Module, visual: VisualBatch, text: TextBatch, monkeypatch: pytest.MonkeyPatch) -> object:
    """They give the patches of a full row in random order, and fill others with random padding; here in order."""
    monkeypatch.setattr(torch, "multinomial", lambda shares, count, **_: torch.arange(int(count)) % len(shares))
    pixel_mask = torch.zeros(len(SIZES), 32, 48, dtype=torch.long)
    for index, (height, width) in enumerate(SIZES):
        pixel_mask[index, :height, :width] = 1
    pixels = (visual.pixels.float() - 127.5) / 127.5 * pixel_mask.unsqueeze(1)
    theirs.vilt.register_forward_hook(lambda module, _, output: setattr(theirs, "seen", output))
    return theirs(
        input_ids=text.input_ids,
        attention_mask=text.attention_mask.long(),
        pixel_values=pixels,
        pixel_mask=pixel_mask,
        labels=text.targets,
    )


def test_outputs_and_gradients_of_masked_words_are_vilts(
    theirs: nn.Module, ours: JointEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    visual, text = inputs()
    wanted = run_theirs(theirs, visual, text, monkeypatch)
    rows = torch.arange(3)
    features = ours.encode(visual)
    assert features.patch_mask is not None and features.patch_mask.sum(1).tolist() == [17, 25, 9]
    states = ours.read(features, text, rows)
    for row, length in enumerate((7, 4, 5)):
        seen = theirs.seen.last_hidden_state[row]
        torch.testing.assert_close(states.text[row, :length], seen[:length], atol=1e-5, rtol=0)
        patches = int(features.patch_mask[row].sum())
        torch.testing.assert_close(states.image[row, :patches], seen[7 : 7 + patches], atol=1e-5, rtol=0)
    pooled = ours.pooler(states.text[:, 0]).tanh()
    torch.testing.assert_close(pooled, theirs.seen.pooler_output, atol=1e-5, rtol=0)
    found = ours.hidden_states(features, text, rows)
    row, column = (text.targets != IGNORED_TARGET).nonzero(as_tuple=True)
    torch.testing.assert_close(found.head(found.states), wanted.logits[row, column], atol=1e-5, rtol=0)
    loss = F.cross_entropy(found.head(found.states), found.targets)
    torch.testing.assert_close(loss, wanted.loss, atol=1e-5, rtol=0)
    (loss + pooled.square().sum() / 10).backward()
    (wanted.loss + theirs.seen.pooler_output.square().sum() / 10).backward()
    gradients = translated({name: value.grad for name, value in theirs.named_parameters(remove_duplicate=False)})
    own = {name: value.grad for name, value in ours.named_parameters() if value.grad is not None}
    assert own.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            own[name], gradient, atol=1e-5, rtol=0, msg=lambda said, name=name: f"{name}: {said}"
        )


def test_the_order_of_the_sequence_is_text_then_image(ours: JointEncoder) -> None:
    """mmf's ViLT once joined them one way and read the labels the other: each half must carry its own type."""
    visual, text = inputs()
    kept = {}
    ours.stream.run = lambda x, mask: kept.setdefault("x", x)  # type: ignore[method-assign]
    states = ours.read(ours.encode(visual), text, torch.arange(3))
    before = kept["x"]
    with torch.no_grad():
        ours.stream.types.weight[TEXT] += 1
        ours.stream.types.weight[IMAGE] -= 1
    kept.clear()
    after = ours.read(ours.encode(visual), text, torch.arange(3))
    torch.testing.assert_close(after.text, states.text + 1)
    torch.testing.assert_close(after.image, states.image - 1)
    assert before.shape[1] == states.text.shape[1] + states.image.shape[1]
