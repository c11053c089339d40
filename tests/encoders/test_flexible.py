"""Patches of any grid: T33, and parity with Pix2StructVisionModel and Siglip2VisionModel of transformers."""

import io
import json
from pathlib import Path

import pytest
import torch
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from vlmtrain.batch import VisualBatch, VisualFeatures
from vlmtrain.data.transforms import ImageTransform
from vlmtrain.encoders.flexible import FlexibleEncoder, cut_patches
from vlmtrain.encoders.naflex import NaFlexEncoder
from vlmtrain.encoders.pix2struct import Pix2StructEncoder
from vlmtrain.nn.canvas import share_canvas

PATCH, BUDGET = 4, 24
SIGLIP2 = {"model_type": "siglip2_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3}
SIGLIP2 |= {"num_attention_heads": 4, "patch_size": PATCH, "num_patches": 16}
PIX2STRUCT = {"model_type": "pix2struct_vision_model", "hidden_size": 32, "patch_embed_hidden_size": 3 * PATCH**2}
PIX2STRUCT |= {"d_ff": 48, "d_kv": 8, "num_hidden_layers": 3, "num_attention_heads": 4, "seq_len": 40}
SHAPES = [(24, 16), (4, 40), (16, 24), (20, 12)]


def make(name: str, **settings: object) -> FlexibleEncoder:
    torch.manual_seed(0)
    if name == "naflex":
        encoder: FlexibleEncoder = NaFlexEncoder(architecture=SIGLIP2, max_patches=BUDGET, **settings)
    else:
        encoder = Pix2StructEncoder(architecture=PIX2STRUCT, max_patches=BUDGET, **settings)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return encoder.eval()


def tile(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(100 * height + width)
    return torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=generator)


def batch(shapes: list[tuple[int, int]]) -> VisualBatch:
    pixels, sizes = share_canvas([tile(*shape) for shape in shapes], shapes)
    return VisualBatch(pixels, [1] * len(shapes), [len(shapes)], sizes)


def real(features: VisualFeatures, index: int) -> Tensor:
    mask = features.patch_mask
    return features.patches[index] if mask is None else features.patches[index][mask[index]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=4))
def test_cutting_gives_every_patch_of_a_tile_in_reading_order_and_no_other(grids: list[tuple[int, int]]) -> None:
    shapes = [(rows * PATCH, columns * PATCH) for rows, columns in grids]
    visual = batch(shapes)
    cut = cut_patches(visual.pixels, visual.tile_sizes, PATCH)
    assert cut.grids == grids and cut.mask.sum(1).tolist() == [rows * columns for rows, columns in grids]
    assert cut.mask.shape[1] == max(rows * columns for rows, columns in grids)
    for index, (rows, columns) in enumerate(grids):
        wanted = rearrange(tile(*shapes[index])[0], "c (r a) (s b) -> (r s) (a b c)", a=PATCH, b=PATCH)
        assert torch.equal(cut.values[index][: rows * columns], wanted)
        assert not cut.values[index][rows * columns :].any()
        places = [(row, column) for row in range(rows) for column in range(columns)]
        assert list(zip(*(x[index][: len(places)].tolist() for x in (cut.rows, cut.columns)), strict=True)) == places


@pytest.mark.parametrize("name", ["naflex", "pix2struct"])
def test_t33_one_batch_holds_different_grids_and_padding_changes_nothing(name: str) -> None:
    encoder = make(name)
    together = encoder(batch(SHAPES))
    assert together.patch_mask is not None and together.patches.shape == (4, 24, encoder.width)
    assert together.patch_mask.sum(1).tolist() == [24, 10, 24, 15]
    assert together.patches.isfinite().all()
    for index, shape in enumerate(SHAPES):
        alone = encoder(batch([shape]))
        assert (alone.patch_mask is None) == (shape[0] * shape[1] == BUDGET * PATCH**2)
        torch.testing.assert_close(real(together, index), real(alone, 0), atol=1e-5, rtol=1e-5)
    visual = batch(SHAPES)
    canvas = torch.nn.functional.pad(visual.pixels, (0, 8, 0, 12), value=255)
    again = encoder(VisualBatch(canvas, [1] * 4, [4], SHAPES))
    torch.testing.assert_close(again.patches, together.patches)


@pytest.mark.parametrize("name", ["naflex", "pix2struct"])
@pytest.mark.parametrize("tap", [-1, [-1, -2], -2])
def test_every_parameter_takes_part_also_without_images(name: str, tap: int | list[int]) -> None:
    encoder = make(name, tap=tap)
    for visual in (batch(SHAPES), VisualBatch(torch.empty(0, 3, 1, 1, dtype=torch.uint8), [], [0])):
        encoder.zero_grad()
        features = encoder(visual)
        assert features.patches.shape[-1] == encoder.width == 32 * (1 if isinstance(tap, int) else 2)
        features.patches.square().sum().backward()
        assert [label for label, parameter in encoder.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", ["naflex", "pix2struct"])
def test_a_tile_over_the_budget_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=r"7x4 patches is more than the 24"):
        make(name)(batch([(28, 16)]))


def test_checkpointing_and_low_precision_change_nothing_that_matters() -> None:
    """Columns beyond 256 would be rounded in bf16."""
    wide = {**PIX2STRUCT, "seq_len": 400}
    encoder = Pix2StructEncoder(architecture=wide, max_patches=300).eval()
    exact = encoder(batch([(4, 1200)])).patches
    encoder.enable_gradient_checkpointing()
    assert torch.equal(encoder(batch([(4, 1200)])).patches, exact)
    seen: list[Tensor] = []
    encoder.model.embeddings.column_embedder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    low = encoder.to(torch.bfloat16)(batch([(4, 1200)])).patches
    assert seen[0][0].tolist() == list(range(1, 301)) and low.dtype == torch.bfloat16


# Parity --------------------------------------------------------------------------------------------------------------


def worst_gradient(encoder: FlexibleEncoder, theirs: torch.nn.Module) -> float:
    own, its = dict(encoder.model.named_parameters()), dict(theirs.named_parameters())
    assert own.keys() <= its.keys() and max(float(its[name].grad.abs().max()) for name in own) > 0.05
    return max(float((own[name].grad - its[name].grad).abs().max()) for name in own)


def test_t33_pix2struct_is_that_of_transformers(tmp_path: Path) -> None:
    from transformers import Pix2StructConfig, Pix2StructForConditionalGeneration
    from transformers.models.pix2struct.image_processing_pix2struct import Pix2StructImageProcessor

    torch.manual_seed(0)
    small_text = {"vocab_size": 50, "hidden_size": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    vision = {name: value for name, value in PIX2STRUCT.items() if name != "model_type"}
    whole = Pix2StructForConditionalGeneration(Pix2StructConfig(text_config=small_text, vision_config=vision)).eval()
    for parameter in whole.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    whole.save_pretrained(tmp_path)
    ours = Pix2StructEncoder(str(tmp_path), max_patches=BUDGET).eval()
    assert (ours.patch_size, ours.patches_per_tile, ours.source) == (PATCH, BUDGET, str(tmp_path))
    processor = Pix2StructImageProcessor(patch_size={"height": PATCH, "width": PATCH}, max_patches=BUDGET)
    shapes = [(24, 16), (16, 24)]  # sizes at which neither resizes: theirs normalises before, ours after
    given_patches = processor([tile(*shape)[0] for shape in shapes], return_tensors="pt")
    features = ours(batch(shapes))
    wanted = whole.encoder(**given_patches).last_hidden_state
    for index in range(len(shapes)):
        assert (real(features, index) - wanted[index][given_patches["attention_mask"][index].bool()]).abs().max() < 1e-5
    weights = torch.randn_like(wanted)
    (features.patches * weights).sum().backward()
    (wanted * weights).sum().backward()
    assert worst_gradient(ours, whole.encoder) < 1e-5


def test_pix2struct_over_mixed_grids_is_that_of_transformers() -> None:
    ours = make("pix2struct")
    features, visual = ours(batch(SHAPES)), batch(SHAPES)
    assert features.patch_mask is not None
    rows = []
    for pixels, (height, width) in zip(visual.pixels, SHAPES, strict=True):
        image = pixels[:, :height, :width].float()
        image = (image - image.mean()) / image.std()
        flat = rearrange(image, "c (r a) (s b) -> (r s) (a b c)", a=PATCH, b=PATCH)
        places = torch.cartesian_prod(torch.arange(height // PATCH), torch.arange(width // PATCH)) + 1
        flat = torch.cat([places.float(), flat], 1)
        rows.append(torch.nn.functional.pad(flat, (0, 0, 0, BUDGET - len(flat))))
    wanted = ours.model(flattened_patches=torch.stack(rows)).last_hidden_state
    mask = features.patch_mask
    assert (features.patches[mask] - wanted[mask]).abs().max() < 1e-5


def test_naflex_is_that_of_transformers(tmp_path: Path) -> None:
    from transformers import Siglip2Config, Siglip2Model
    from transformers.models.siglip2.image_processing_siglip2 import Siglip2ImageProcessor

    torch.manual_seed(0)
    small_text = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    small_text |= {"num_attention_heads": 2, "max_position_embeddings": 8}
    vision = {name: value for name, value in SIGLIP2.items() if name != "model_type"}
    whole = Siglip2Model(Siglip2Config(text_config=small_text, vision_config=vision)).eval()
    for parameter in whole.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    whole.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    ours = NaFlexEncoder(str(tmp_path), max_patches=BUDGET).eval()
    shapes = [(24, 16), (16, 24), (20, 16)]
    given_patches = Siglip2ImageProcessor(patch_size=PATCH, max_num_patches=BUDGET, do_resize=False)(
        [tile(*shape)[0] for shape in shapes], return_tensors="pt"
    )
    features = ours(batch(shapes))
    wanted = whole.vision_model(**given_patches).last_hidden_state
    mask = given_patches["pixel_attention_mask"].bool()
    assert features.patch_mask is not None and torch.equal(features.patch_mask, mask[:, : features.patch_mask.shape[1]])
    assert (features.patches[features.patch_mask] - wanted[mask]).abs().max() < 1e-5
    weights = torch.randn_like(wanted[mask])
    (features.patches[features.patch_mask] * weights).sum().backward()
    (wanted[mask] * weights).sum().backward()
    assert worst_gradient(ours, whole.vision_model) < 1e-5


@pytest.mark.parametrize("kind", ["pix2struct", "naflex"])
def test_from_an_image_of_any_proportions_to_patches(kind: str) -> None:
    """The encoder says what size an image gets, and takes what comes of it."""
    encoder = make(kind)
    transform = ImageTransform(encoder.tile_sizes())
    for height, width in [(1, 4000), (100, 30), (4000, 1), (7, 7)]:
        file = io.BytesIO()
        Image.fromarray(tile(height, width)[0].permute(1, 2, 0).numpy()).save(file, "PNG")
        features = encoder(VisualBatch(transform(file.getvalue())[None], [1], [1]))
        assert features.patches.isfinite().all() and features.patches.shape[1] <= BUDGET
