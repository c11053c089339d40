"""What stands where is read from the patch there."""

import pytest
import torch

from vlmtrain.batch import VisualBatch, VisualFeatures
from vlmtrain.config.embedded import resolve_source
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.layout import Part, Text, Visual
from vlmtrain.models.capabilities import EmbedsBoth, WritesText
from vlmtrain.models.region_captioner import RegionCaptioner
from vlmtrain.nn.linear_cross_entropy import linear_cross_entropy

WORDS = resolve_source("embedded:bert_scenes")


def make(**settings: int) -> RegionCaptioner:
    torch.manual_seed(0)
    return RegionCaptioner(VisionTransformer(32, 8, 24, 2, 4), WORDS, num_places=16, **settings)


def sample(*regions: tuple[int, str]) -> list[Part]:
    texts = [(Text(f"[{place}]", supervised=False), Text(words)) for place, words in regions]
    return [Visual(), *(part for pair in texts for part in pair)]


SAMPLES = [
    sample((3, "small red plain star [0] [3]")),
    sample((0, "large blue dotted ring [0] [0]"), (15, "small pink plain heart [3] [3]")),
]


def features(count: int) -> VisualFeatures:
    return VisualFeatures(torch.randn(count, 17, 24), [1] * count, [1] * count)


def test_every_word_is_a_target_and_every_place_is_none() -> None:
    model = make()
    assert isinstance(model, WritesText) and not isinstance(model, EmbedsBoth)
    text = model.layout().write(SAMPLES, model.placeholders_per_item)
    targets = model.target_states(features(2), text).targets.tolist()
    words = model.tokenizer.convert_ids_to_tokens(targets)
    first, second = (
        "small red plain star [0] [3] [SEP]",
        "large blue dotted ring [0] [0] small pink plain heart [3] [3] [SEP]",
    )
    assert words == [*first.split(), *second.split()]


def test_a_word_depends_on_its_own_patch_only() -> None:
    model = make()
    text = model.layout().write(SAMPLES, model.placeholders_per_item)
    visual = features(2)
    visual.patches.requires_grad_()
    states = model.target_states(visual, text).states
    states[7:13].sum().backward()  # the words about place 0 of the second image
    touched = visual.patches.grad.abs().sum(-1).nonzero().tolist()
    assert touched == [[1, 1 + 0]]  # a class token stands before the patches


def test_all_of_it_learns() -> None:
    model = make()
    text = model.layout().write(SAMPLES, model.placeholders_per_item)
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    linear_cross_entropy(model.target_states(model.encode(VisualBatch(pixels, [1, 1], [1, 1])), text)).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_a_description_that_is_too_long_is_told() -> None:
    model = make(words_per_region=3)
    text = model.layout().write(SAMPLES, model.placeholders_per_item)
    with pytest.raises(ValueError, match="more than 3 words; raise words_per_region"):
        model.target_states(features(2), text)


def test_more_places_than_patches_are_refused() -> None:
    with pytest.raises(ValueError, match="num_places 64 is more than the encoder's 17"):
        RegionCaptioner(VisionTransformer(32, 8, 24, 2, 4), WORDS, num_places=64)


@pytest.mark.parametrize("plain", [[[Visual(), Text("a star")]], [*SAMPLES, [Visual(), Text("a star")]]])
def test_text_about_no_place_is_told(plain: list[list[Part]]) -> None:
    model = make()
    text = model.layout().write(plain, model.placeholders_per_item)
    with pytest.raises(ValueError, match="before any place is named"):
        model.target_states(features(len(plain)), text)
