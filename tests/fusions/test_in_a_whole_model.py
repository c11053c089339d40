"""Fusions in a VisionLanguageModel: mixed batches, beams, and that the images are learned to be looked at."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from fusion_toy import BLOCKS, KINDS, make_language_model

from vlmtrain.batch import VisualBatch
from vlmtrain.connectors.linear import LinearConnector
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.fusions.deepstack import DeepStack
from vlmtrain.fusions.gated_cross_attention import GatedCrossAttention
from vlmtrain.fusions.interleave import Interleave
from vlmtrain.layout import Part, Text, Visual
from vlmtrain.models.vision_language_model import VisionLanguageModel, assemble
from vlmtrain.training.trainability import enable_gradient_checkpointing, set_trainability

FUSIONS = {
    "gated": partial(GatedCrossAttention, block=BLOCKS["flamingo"], every_n_layers=2),
    "mllama": partial(GatedCrossAttention, block=BLOCKS["mllama"], every_n_layers=2),
    "deepstack": partial(DeepStack, num_layers=2),
    "interleave": Interleave,
}
RATES = {"encoder": None, "connector": 1.0, "fusion": 1.0, "language_model": None}


def make(fusion: str, tokenizer: str, kind: str = "opt") -> VisionLanguageModel:
    language_model = make_language_model(kind, tokenizer)
    model = assemble(VisionTransformer(16, 8, 24, 1, 2), language_model, LinearConnector, FUSIONS[fusion])
    parts = {name: rate for name, rate in RATES.items() if any(True for _ in getattr(model, name).parameters())}
    set_trainability(model, parts)
    return model


def images(tiles_per_item: list[int], items_per_sample: list[int]) -> VisualBatch:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (sum(tiles_per_item), 3, 16, 16), dtype=torch.uint8, generator=generator)
    return VisualBatch(pixels, tiles_per_item, items_per_sample)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_mixed_batch_reaches_every_trained_weight_checkpointed_or_not(fusion: str, byte_tokenizer: str) -> None:
    """A two-tile image between texts and one more; none; and a batch in which no sample has any."""
    samples: list[list[Part]] = [
        [Text("first", False), Visual(2), Text(" then", False), Visual(), Text(" blue")],
        [Text("only words", supervised=False), Text(" here")],
    ]
    gradients = []
    for is_on in (False, True):
        model = make(fusion, byte_tokenizer)
        if is_on:
            assert enable_gradient_checkpointing(model) >= 1
        for rows, visual in ((samples, images([2, 1], [2, 0])), (samples[1:], images([], [0]))):
            text = model.layout().write(rows, model.placeholders_per_item)
            found = model.target_states(model.encode(visual), text)
            assert len(found.states) == text.supervised
            F.cross_entropy(found.head(found.states), found.targets).backward()
            without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
            assert not without, "no part is skipped"
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    for name, plain in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], plain, atol=1e-6, rtol=0)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_it_learns_to_look(fusion: str, byte_tokenizer: str) -> None:
    """Two images, two words for them after the same prompt: who does not look cannot tell which."""
    model = make(fusion, byte_tokenizer)
    model.language_model.requires_grad_(True)  # a random one that is frozen says nothing, whatever it sees
    samples: list[list[Part]] = [[Visual(), Text("it is", False), Text(word)] for word in (" red", " blue")]
    text, visual = model.layout().write(samples, model.placeholders_per_item), images([1, 1], [1, 1])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-3)
    for _ in range(160):
        found = model.target_states(model.encode(visual), text)
        loss = F.cross_entropy(found.head(found.states), found.targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.03
    prompts = [[Visual(), Text("it is", False)]] * 2
    asked = model.layout().write_prompts(prompts, model.placeholders_per_item)
    for num_beams in (1, 3):
        written = model.eval().write(model.encode(visual), asked, 8, num_beams)
        assert [model.layout().read(row) for row in written.tolist()] == ["red", "blue"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_prompts_without_any_image_are_written_too(fusion: str, kind: str, byte_tokenizer: str) -> None:
    model = make(fusion, byte_tokenizer, kind)
    asked = model.layout().write_prompts([[Text("it is", False)]], model.placeholders_per_item)
    assert len(model.write(model.encode(images([], [0])), asked, 3, num_beams=2)) == 1
