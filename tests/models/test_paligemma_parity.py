"""Prefix attention against transformers' PaliGemmaForConditionalGeneration: fp32, the same weights, at most 1e-5."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import IGNORED_TARGET, TextBatch
from vlmtrain.language_models.prefix import PrefixLanguageModel
from vlmtrain.language_models.tokenizers import load_tokenizer
from vlmtrain.layout import Text, Visual

VOCABULARY, PATCHES = 320, 4
IMAGE_TOKEN = VOCABULARY - 1
VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
}
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "vocab_size": VOCABULARY,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 2,
}
GEMMAS = {"gemma": SIZES, "gemma2": {**SIZES, "sliding_window": 64, "query_pre_attn_scalar": 8}}


@pytest.fixture(params=GEMMAS)
def theirs(request: pytest.FixtureRequest) -> nn.Module:
    """PaliGemma, and PaliGemma 2, whose every other layer has a window that is wider than these rows."""
    from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

    torch.manual_seed(0)
    config = PaliGemmaConfig(
        vision_config=VISION,
        text_config={"model_type": request.param, **GEMMAS[request.param]},
        image_token_index=IMAGE_TOKEN,
        projection_dim=32,
        hidden_size=32,
    )
    model = PaliGemmaForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture
def ours(theirs: nn.Module, byte_tokenizer: str) -> PrefixLanguageModel:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(theirs.config.text_config)
    model.model, model.lm_head = theirs.model.language_model, theirs.lm_head  # one object in both
    return PrefixLanguageModel.from_model(model, load_tokenizer(byte_tokenizer), max_tokens=60).eval()


def batch(ours: PrefixLanguageModel, pixels: Tensor) -> TextBatch:
    samples = [
        [Visual(), Text("what colour is it?", supervised=False), Text(" red")],
        [Visual(), Text("a ", supervised=False), Text("small circle left of a square")],
        [Visual(), Text("circle")],
    ]
    assert len(samples) == len(pixels)
    return ours.layout().write(samples, lambda tiles: PATCHES * tiles)


def embed(theirs: nn.Module, ours: PrefixLanguageModel, text: TextBatch, pixels: Tensor) -> Tensor:
    """The row with their image features in it: what is compared is what the language model does with a row."""
    features = theirs.model.get_image_features(pixels).pooler_output.flatten(0, 1)
    return ours.embed(text.input_ids).masked_scatter(text.visual_mask.unsqueeze(-1), features)


def images() -> Tensor:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def test_t56_logits_loss_and_every_gradient_are_those_of_paligemma(
    theirs: nn.Module, ours: PrefixLanguageModel
) -> None:
    text = batch(ours, images())
    assert text.targets is not None
    labels = torch.cat([torch.full((3, 1), IGNORED_TARGET), text.targets[:, :-1]], 1)
    is_suffix = (labels != IGNORED_TARGET) | ~text.attention_mask
    output = theirs(
        pixel_values=images(),
        input_ids=text.input_ids.masked_fill(text.visual_mask, IMAGE_TOKEN),
        attention_mask=text.attention_mask.long(),
        token_type_ids=is_suffix.long(),
        labels=labels,
    )
    logits = ours.logits(embed(theirs, ours, text, images()), text.attention_mask, text.targets)
    assert (logits - output.logits)[text.attention_mask].abs().max() < 1e-5
    found = ours.target_states(embed(theirs, ours, text, images()), text.attention_mask, text.targets)
    loss = F.cross_entropy(found.head(found.states), found.targets)
    assert abs(loss.item() - output.loss.item()) < 1e-5
    # of what no loss reaches (a pooling head, a norm), neither has a gradient
    weights = list(theirs.parameters())
    pairs = [torch.autograd.grad(value, weights, allow_unused=True) for value in (loss, output.loss)]
    assert all((one is None) == (other is None) for one, other in zip(*pairs, strict=True))
    differences = [(one - other).abs().max().item() for one, other in zip(*pairs, strict=True) if one is not None]
    assert len(differences) > 20 and max(differences) < 1e-5


def test_t56_greedy_generation_is_that_of_paligemma_token_for_token(
    theirs: nn.Module, ours: PrefixLanguageModel
) -> None:
    """Rows of one length: theirs counts positions from the edge of the row, which a prompt padded on the left moves."""
    layout = ours.layout()
    prompts = [[Visual(), Text(words, supervised=False)] for words in ("what colour?", "what colour!", "what colour.")]
    text = layout.write_prompts(prompts, lambda tiles: PATCHES * tiles)
    assert text.attention_mask.all()
    made = ours.generate(embed(theirs, ours, text, images()), text.attention_mask, 8)
    wanted = theirs.generate(
        pixel_values=images(),
        input_ids=text.input_ids.masked_fill(text.visual_mask, IMAGE_TOKEN),
        attention_mask=text.attention_mask.long(),
        token_type_ids=torch.zeros_like(text.input_ids),
        max_new_tokens=8,
        do_sample=False,
        eos_token_id=layout.stop_ids,
        pad_token_id=layout.pad_id,
    )
    assert made.tolist() == wanted[:, text.input_ids.shape[1] :].tolist() and made.shape[1] > 1
