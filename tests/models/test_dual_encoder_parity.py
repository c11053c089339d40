"""CLIP and SigLIP of transformers, with copied weights: outputs, loss and every gradient to 1e-5."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from vlmtrain.batch import Batch, VisualBatch
from vlmtrain.encoders.hugging_face import HuggingFaceEncoder
from vlmtrain.language_models.hugging_face_text import HuggingFaceTextEncoder
from vlmtrain.layout import Text, Visual
from vlmtrain.layouts.fixed_length import FixedLengthLayout
from vlmtrain.models.capabilities import EmbedsBoth, EmbedsBothWithBias
from vlmtrain.models.dual_encoder import DualEncoder
from vlmtrain.models.sigmoid_dual_encoder import SigmoidDualEncoder
from vlmtrain.nn.attention_pooling import ProbeAttention
from vlmtrain.nn.pooling import ClassToken
from vlmtrain.nn.projections import Unchanged, WithBias
from vlmtrain.objectives.base import Context, Objective
from vlmtrain.objectives.contrastive import Contrastive
from vlmtrain.objectives.sigmoid_contrastive import SigmoidContrastive

SEP = 4  # the end token of the byte tokenizer's pairs
VISION = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
VISION |= {"image_size": 16, "patch_size": 8}
WORDS = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40}
WORDS |= {"vocab_size": 320, "max_position_embeddings": 40}
CAPTIONS = ["a red circle", "blue", "what is it", "a small red circle left of a big blue square"]


def batch_for(model: EmbedsBoth) -> Batch:
    pixels = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    samples = [[Visual(), Text(caption)] for caption in CAPTIONS]
    text = model.layout().write(samples, model.placeholders_per_item)
    return Batch(VisualBatch(pixels, [1] * 4, [1] * 4), text)


def shaken(theirs: nn.Module) -> nn.Module:
    """Weights that all matter: norms and biases start as one and zero elsewhere."""
    generator = torch.Generator().manual_seed(2)
    for name, parameter in theirs.named_parameters():
        if "logit" not in name:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return theirs.eval()


def make_clip(tokenizer: str) -> tuple[nn.Module, DualEncoder, Callable[[], Iterator[tuple[Tensor, Tensor]]]]:
    from transformers import CLIPConfig, CLIPModel

    words = {**WORDS, "eos_token_id": SEP, "bos_token_id": 3}
    theirs = shaken(CLIPModel(CLIPConfig(text_config=words, vision_config=VISION, projection_dim=16)))
    encoder = HuggingFaceEncoder(architecture={"model_type": "clip_vision_model", **VISION}, norms_end=True)
    text = HuggingFaceTextEncoder(
        architecture={"model_type": "clip_text_model", **words}, tokenizer=tokenizer, max_tokens=40
    )
    model = DualEncoder(encoder, text, 16, pooling=ClassToken)
    pairs = [
        (model.encoder.model, theirs.vision_model),
        (model.text_encoder.model, theirs.text_model),
        (model.visual_projection, theirs.visual_projection),
        (model.text_projection, theirs.text_projection),
    ]
    for mine, other in pairs:
        mine.load_state_dict(other.state_dict())
    model.log_scale.data.copy_(theirs.logit_scale)

    def parameters() -> Iterator[tuple[Tensor, Tensor]]:
        for mine, other in pairs:
            yield from zip(mine.parameters(), other.parameters(), strict=True)
        yield model.log_scale, theirs.logit_scale

    return theirs, model, parameters


def make_siglip(tokenizer: str) -> tuple[nn.Module, DualEncoder, Callable[[], Iterator[tuple[Tensor, Tensor]]]]:
    from transformers import SiglipConfig, SiglipModel

    words = {**WORDS, "projection_size": 32}
    theirs = shaken(SiglipModel(SiglipConfig(text_config=words, vision_config=VISION)))
    theirs.logit_scale.data.fill_(2.0)
    theirs.logit_bias.data.fill_(-3.0)
    encoder = HuggingFaceEncoder(architecture={"model_type": "siglip_vision_model", **VISION}, keep_class_token=False)
    text = HuggingFaceTextEncoder(
        architecture={"model_type": "siglip_text_model", **words},
        tokenizer=tokenizer,
        max_tokens=40,
        layout=FixedLengthLayout,
    )
    model = SigmoidDualEncoder(
        encoder,
        text,
        32,
        bias=-3.0,
        pooling=lambda width, num_states: ProbeAttention(width, num_states, num_heads=4, feed_forward_width=48),
        visual_projection=Unchanged,
        text_projection=WithBias,
    )
    model.log_scale.data.fill_(2.0)
    vision, head = theirs.vision_model, theirs.vision_model.head
    attention, pooling = head.attention, model.pooling
    model.text_projection.load_state_dict(theirs.text_model.head.state_dict())
    kept = {name: value for name, value in vision.state_dict().items() if not name.startswith("head.")}
    model.encoder.model.load_state_dict(kept)
    kept = {name: value for name, value in theirs.text_model.state_dict().items() if not name.startswith("head.")}
    model.text_encoder.model.load_state_dict(kept)
    pooling.probe.data.copy_(head.probe)
    for linear, rows in ((pooling.to_query, slice(0, 32)), (pooling.to_key_value, slice(32, 96))):
        linear.weight.data.copy_(attention.in_proj_weight[rows])
        linear.bias.data.copy_(attention.in_proj_bias[rows])
    pooling.to_out.load_state_dict(attention.out_proj.state_dict())
    pooling.norm.load_state_dict(head.layernorm.state_dict())
    pooling.mlp[0].load_state_dict(head.mlp.fc1.state_dict())
    pooling.mlp[2].load_state_dict(head.mlp.fc2.state_dict())

    def parameters() -> Iterator[tuple[Tensor, Tensor]]:
        others = {**dict(vision.named_parameters()), **dict(theirs.text_model.named_parameters())}
        yield from ((p, dict(vision.named_parameters())[n]) for n, p in model.encoder.model.named_parameters())
        yield from (
            (p, dict(theirs.text_model.named_parameters())[n]) for n, p in model.text_encoder.model.named_parameters()
        )
        yield model.text_projection.weight, others["head.weight"]
        yield model.text_projection.bias, others["head.bias"]
        yield pooling.probe, head.probe
        yield pooling.mlp[0].weight, head.mlp.fc1.weight
        yield model.log_scale, theirs.logit_scale
        yield model.bias, theirs.logit_bias

    return theirs, model, parameters


@pytest.mark.parametrize(
    ("make", "objective", "capability"),
    [
        (make_clip, Contrastive(), EmbedsBoth),
        (make_siglip, SigmoidContrastive(), EmbedsBothWithBias),
        (make_siglip, SigmoidContrastive(chunk=3), EmbedsBothWithBias),
    ],
    ids=["clip", "siglip", "siglip in chunks"],
)
def test_t13_it_is_the_model_and_the_loss_of_transformers(
    byte_tokenizer: str, make: Callable[..., tuple], objective: Objective, capability: type
) -> None:
    torch.manual_seed(0)
    theirs, model, parameters = make(byte_tokenizer)
    assert isinstance(model, capability)
    model.eval()
    batch = batch_for(model)
    output = theirs(
        input_ids=batch.text.input_ids,
        attention_mask=batch.text.attention_mask.long(),
        pixel_values=model.encoder.normalise(batch.visual.pixels),
        return_loss=True,
    )
    features = model.encode(batch.visual)
    images, texts = model.embed_visual(features), model.embed_text(batch.text)
    assert float((images[:, 0] - output.image_embeds).detach().abs().max()) < 1e-5
    assert float((texts - output.text_embeds).detach().abs().max()) < 1e-5
    (total,) = objective(model, Context(features, batch)).totals.values()
    loss = total / len(batch)
    assert abs(loss.item() - output.loss.item()) < 1e-5
    loss.backward()
    output.loss.backward()
    compared = list(parameters())
    worst = max(float((mine.grad - other.grad).abs().max()) for mine, other in compared)
    assert len(compared) > 60 and worst < 1e-5
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
