"""LLaVA against transformers' LlavaForConditionalGeneration: fp32, the same weights, at most 1e-5 apart."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import IGNORED_TARGET, TextBatch, VisualBatch
from vlmtrain.connectors.mlp import MLPConnector
from vlmtrain.encoders.hugging_face import HuggingFaceEncoder
from vlmtrain.fusions.interleave import Interleave
from vlmtrain.language_models.causal import CausalLanguageModel
from vlmtrain.language_models.tokenizers import load_tokenizer
from vlmtrain.layout import Text, Visual
from vlmtrain.models.vision_language_model import VisionLanguageModel, assemble

VOCABULARY = 320
IMAGE_TOKEN = VOCABULARY - 1
VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
}


@pytest.fixture
def theirs() -> nn.Module:
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(0)
    config = LlavaConfig(vision_config=VISION, text_config=LLAMA, image_token_index=IMAGE_TOKEN)
    model = LlavaForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture
def ours(theirs: nn.Module, byte_tokenizer: str) -> VisionLanguageModel:
    from transformers import AutoConfig, AutoModelForCausalLM

    language_model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**LLAMA))
    language_model.model, language_model.lm_head = theirs.model.language_model, theirs.lm_head  # one object in both
    words = CausalLanguageModel.from_model(language_model, load_tokenizer(byte_tokenizer), max_tokens=60)
    encoder = HuggingFaceEncoder(architecture=VISION, tap=-2, keep_class_token=False)
    model = assemble(encoder, words, MLPConnector, Interleave).eval()
    # their tower has a third block and a norm behind it that nothing reads
    missing = encoder.model.load_state_dict(theirs.model.vision_tower.state_dict(), strict=False).missing_keys
    assert not missing
    with torch.no_grad():
        for target, source in connector_pairs(theirs, model):
            target.copy_(source)
    return model


def connector_pairs(theirs: nn.Module, ours: VisionLanguageModel) -> list[tuple[Tensor, Tensor]]:
    projector = theirs.model.multi_modal_projector
    layers = (projector.linear_1, projector.linear_2)
    mine = (ours.connector.layers[0], ours.connector.layers[2])
    return [
        (getattr(target, kind), getattr(source, kind))
        for target, source in zip(mine, layers, strict=True)
        for kind in ("weight", "bias")
    ]


def batch(model: VisionLanguageModel) -> tuple[VisualBatch, TextBatch, Tensor]:
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=generator)
    samples = [
        [Text("see", supervised=False), Visual(), Text("what colour is it?", supervised=False), Text(" red")],
        [Visual(), Text("one?", False), Text(" red"), Text("two?", False), Text(" a big blue square")],
        [Visual(), Text("a circle")],
    ]
    text = model.layout().write(samples, model.placeholders_per_item)
    return VisualBatch(pixels, [1] * 3, [1] * 3), text, (pixels.float() - 127.5) / 127.5


def their_inputs(text: TextBatch, pixels: Tensor) -> dict[str, Tensor]:
    ids = text.input_ids.masked_fill(text.visual_mask, IMAGE_TOKEN)
    return {"pixel_values": pixels, "input_ids": ids, "attention_mask": text.attention_mask.long()}


def test_loss_and_every_gradient_are_those_of_transformers(theirs: nn.Module, ours: VisionLanguageModel) -> None:
    visual, text, pixels = batch(ours)
    assert text.targets is not None
    found = ours.target_states(ours.encode(visual), text)
    loss = F.cross_entropy(found.head(found.states), found.targets)
    # transformers shifts by itself: the label of a position is its own token
    labels = torch.cat([torch.full((3, 1), IGNORED_TARGET), text.targets[:, :-1]], 1)
    wanted = theirs(**their_inputs(text, pixels), labels=labels).loss
    assert abs(loss.item() - wanted.item()) < 1e-5
    tower = dict(theirs.model.vision_tower.named_parameters())
    pairs = connector_pairs(theirs, ours)
    pairs += [(parameter, tower[name]) for name, parameter in ours.encoder.model.named_parameters()]
    pairs += [(parameter, parameter) for parameter in ours.language_model.parameters()]
    assert {id(mine) for mine, _ in pairs} == {id(parameter) for parameter in ours.parameters()}
    mine = torch.autograd.grad(loss, [target for target, _ in pairs])
    its = torch.autograd.grad(wanted, [source for _, source in pairs])
    assert max((one - other).abs().max().item() for one, other in zip(mine, its, strict=True)) < 1e-5


def test_logits_of_the_whole_row_are_those_of_transformers(theirs: nn.Module, ours: VisionLanguageModel) -> None:
    visual, text, pixels = batch(ours)
    assert text.targets is not None
    with torch.no_grad():
        with ours.fusion.entering(ours.language_model, text, ours.connector(ours.encode(visual))) as embeddings:
            logits = ours.language_model.logits(embeddings, text.attention_mask, text.targets)
        wanted = theirs(**their_inputs(text, pixels)).logits
    assert (logits - wanted)[text.attention_mask].abs().max() < 1e-5


def test_greedy_generation_is_that_of_transformers_token_for_token(
    theirs: nn.Module, ours: VisionLanguageModel
) -> None:
    visual, _, pixels = batch(ours)
    layout = ours.layout()
    prompts = [[Visual(), Text(words, supervised=False)] for words in ("what colour is it?", "", "a ")]
    text = layout.write_prompts(prompts, ours.placeholders_per_item)
    made = ours.write(ours.encode(visual), text, max_new_tokens=12)
    wanted = theirs.generate(
        **their_inputs(text, pixels),
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=layout.stop_ids,
        pad_token_id=layout.pad_id,
    )
    assert made.tolist() == wanted[:, text.input_ids.shape[1] :].tolist()
    assert made.shape[1] > 1 and len({tuple(row) for row in made.tolist()}) > 1
