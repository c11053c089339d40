"""Single-stream models: what they read and refuse, and that no pair sees another.  T54 and T57 of the statements."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vlmtrain.batch import IGNORED_TARGET, TargetStates, TextBatch, VisualBatch, VisualFeatures
from vlmtrain.encoders.hybrid_vit import HybridVisionTransformer
from vlmtrain.encoders.patch_embedding import PatchEmbedding
from vlmtrain.encoders.timm import TimmEncoder
from vlmtrain.encoders.vilt_patches import ViltPatches
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.encoders.vit_files import save_pretrained
from vlmtrain.layout import Hiding, Text, Visual
from vlmtrain.models.capabilities import AlignsWords, EmbedsBoth, MatchesPairs, PredictsTokens, WritesText
from vlmtrain.models.joint_encoder import JointEncoder
from vlmtrain.models.vilt_stream import ViltStream
from vlmtrain.models.visual_bert_stream import VisualBertStream

WIDTH, SIDE = 32, 32
SIZES = {"width": WIDTH, "depth": 2, "num_heads": 4}
STREAMS = {"vilt": partial(ViltStream, **SIZES), "visual_bert": partial(VisualBertStream, dropout=0.0, **SIZES)}
ENCODERS = {
    "raw patches": lambda: ViltPatches(SIDE, 8, WIDTH),
    "rows and columns": lambda: PatchEmbedding(SIDE, 8, WIDTH),
    "vit": lambda: VisionTransformer(SIDE, 8, WIDTH, 2, 4),
    "wider vit": lambda: HybridVisionTransformer(SIDE, 8, 2 * WIDTH, 1, 4, keep_class_token=False),
    "cnn": lambda: TimmEncoder("resnet18", keep_class_token=False, image_size=SIDE),
}


def make(folder: str, stream: str = "vilt", encoder: str = "raw patches") -> JointEncoder:
    torch.manual_seed(0)
    return JointEncoder(ENCODERS[encoder](), STREAMS[stream], folder, max_tokens=12)


def images(count: int) -> VisualBatch:
    generator = torch.Generator().manual_seed(count)
    pixels = torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    return VisualBatch(pixels, [1] * count, [1] * count)


def texts(model: JointEncoder) -> TextBatch:
    captions = ["a red triangle", "blue", "a large circle is left of a red triangle"]
    samples = [[Visual(), Text(caption, hiding=Hiding(0.3, key))] for key, caption in enumerate(captions)]
    return model.layout().write(samples, model.placeholders_per_item)


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_t54_every_encoder_goes_with_every_stream_or_the_pair_is_named(
    words_folder: str, stream: str, encoder: str
) -> None:
    width = ENCODERS[encoder]().width
    if stream == "vilt" and width != WIDTH:
        with pytest.raises(ValueError, match=f"width {width} go into ViltStream of width {WIDTH}.*VisualBertStream"):
            make(words_folder, stream, encoder)
        return
    model = make(words_folder, stream, encoder).eval()
    text, rows = texts(model), torch.arange(3)
    features = model.encode(images(3))
    loss = model.match(features, text, rows).square().sum()
    found = model.hidden_states(features, text.masked, rows)
    (loss + found.head(found.states).square().mean()).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []


@pytest.mark.parametrize("stream", STREAMS)
def test_what_it_offers(words_folder: str, stream: str) -> None:
    model = make(words_folder, stream)
    assert isinstance(model, MatchesPairs) and isinstance(model, PredictsTokens) and isinstance(model, AlignsWords)
    assert not isinstance(model, EmbedsBoth | WritesText)
    assert model.placeholders_per_item(1) == 0


@pytest.mark.parametrize("stream", STREAMS)
def test_a_pair_is_judged_alike_in_any_company(words_folder: str, stream: str) -> None:
    """Neither other pairs nor padding play a part; a batch of one keeps its shape, where a squeeze once lost it."""
    model = make(words_folder, stream).eval()
    text, features = texts(model), model.encode(images(3))
    order = torch.tensor([2, 0, 1, 0])
    picked = TextBatch(text.input_ids[order], text.attention_mask[order], text.visual_mask[order])
    together = model.match(features, picked, torch.tensor([1, 0, 2, 2]))
    assert together.shape == (4,)
    for row, (own, image) in enumerate(zip(order.tolist(), (1, 0, 2, 2), strict=True)):
        length = int(text.attention_mask[own].sum())
        cut = (slice(own, own + 1), slice(length))
        alone = TextBatch(text.input_ids[cut], text.attention_mask[cut], text.visual_mask[cut])
        one = VisualFeatures(features.patches[image : image + 1], [1], [1])
        logit = model.match(one, alone, torch.zeros(1, dtype=torch.long))
        assert logit.shape == (1,)
        torch.testing.assert_close(logit[0], together[row], atol=1e-5, rtol=0)


@pytest.mark.parametrize("stream", STREAMS)
def test_padded_patches_change_nothing(words_folder: str, stream: str) -> None:
    model = make(words_folder, stream).eval()
    text, rows = texts(model), torch.arange(3)
    features = model.encode(images(3))
    garbage = 1e3 * torch.ones(3, 4, WIDTH)
    padded = torch.cat([features.patches, garbage], dim=1)
    mask = torch.arange(padded.shape[1]).expand(3, -1) < features.patches.shape[1]
    wider = VisualFeatures(padded, [1] * 3, [1] * 3, mask)
    torch.testing.assert_close(model.match(wider, text, rows), model.match(features, text, rows), atol=1e-5, rtol=0)
    found, wanted = (model.hidden_states(each, text.masked, rows).states for each in (wider, features))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("stream", STREAMS)
def test_t57_hidden_words_are_told_from_the_image_and_from_both_sides(words_folder: str, stream: str) -> None:
    model = make(words_folder, stream).eval()
    text, rows = texts(model), torch.arange(3)
    features = model.encode(images(3))

    def told(visual: VisualFeatures, masked: TextBatch) -> Tensor:
        found: TargetStates = model.hidden_states(visual, masked, rows)
        assert len(found.states) == len(found.targets) == masked.supervised
        return found.states

    usual = told(features, text.masked)
    swapped = VisualFeatures(features.patches.roll(1, 0), [1] * 3, [1] * 3)
    assert (told(swapped, text.masked) - usual).abs().amax(1).min() > 1e-4, "every word looks at the image"
    for column in range(1, 4):  # a word of the last text, left or right of what is hidden
        if text.masked.targets[2, column] == IGNORED_TARGET:
            ids = text.masked.input_ids.clone()
            ids[2, column] = 15
            other = TextBatch(
                ids, text.attention_mask, text.visual_mask, text.masked.targets, supervised=text.masked.supervised
            )
            changed = (told(features, other) - usual).abs().amax(1) > 1e-5
            of_last = torch.tensor(text.masked.supervised_per_sample).cumsum(0)[1]
            assert changed[of_last:].all() and not changed[:of_last].any()


@pytest.mark.parametrize("stream", STREAMS)
def test_in_fp16_padding_leaves_answers_and_gradients_finite(words_folder: str, stream: str) -> None:
    model = make(words_folder, stream).eval()
    text, rows = texts(model), torch.arange(3)
    exact = model.match(model.encode(images(3)), text, rows)
    with torch.autocast("cpu", torch.float16):
        features = model.encode(images(3))
        rough = model.match(features, text, rows)
        found = model.hidden_states(features, text.masked, rows)
        (rough.float().sum() + found.head(found.states).float().square().mean()).backward()
    torch.testing.assert_close(rough.float(), exact, atol=0.02, rtol=0.02)
    assert all(value.grad is None or value.grad.isfinite().all() for value in model.parameters())


def test_gradient_checkpointing_changes_nothing(words_folder: str) -> None:
    for stream in STREAMS:
        gradients = []
        for checkpoints in (False, True):
            model = make(words_folder, stream)
            if checkpoints:
                model.stream.enable_gradient_checkpointing()
            model.match(model.encode(images(3)), texts(model), torch.arange(3)).sum().backward()
            gradients.append({name: value.grad for name, value in model.named_parameters() if value.grad is not None})
        assert gradients[0].keys() == gradients[1].keys()
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=0)


def test_a_frozen_encoder_runs_without_gradient(words_folder: str) -> None:
    model = make(words_folder, "visual_bert", "vit")
    assert model.encode(images(2)).patches.requires_grad
    model.encoder.requires_grad_(False)
    assert not model.encode(images(2)).patches.requires_grad


def test_what_it_cannot_read_is_named(words_folder: str) -> None:
    model = make(words_folder)
    with pytest.raises(ValueError, match="one image of one tile per sample"):
        model.encode(VisualBatch(images(2).pixels, [2], [1]))
    with pytest.raises(ValueError, match="one image of one tile per sample"):
        model.encode(VisualBatch(images(1).pixels, [1], [1, 0]))
    with pytest.raises(ValueError, match="exceeds the 4 positions of ViltStream"):
        JointEncoder(ENCODERS["vit"](), partial(ViltStream, max_positions=4, **SIZES), words_folder).match(
            model.encode(images(3)), texts(model), torch.arange(3)
        )
    with pytest.raises(ValueError, match=r"vocab_size is 61, but tokenizer .* has 60 words"):
        JointEncoder(ENCODERS["vit"](), STREAMS["vilt"], words_folder, vocab_size=61)
    with pytest.raises(ValueError, match="hide nothing"):
        bare = texts(model)
        model.hidden_states(
            model.encode(images(3)), TextBatch(bare.input_ids, bare.attention_mask, bare.visual_mask), torch.arange(3)
        )


def test_vilt_starts_as_the_vit_it_is_given(words_folder: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    vit = VisionTransformer(SIDE, 8, WIDTH, 2, 4)
    save_pretrained(vit, tmp_path)
    encoder = ViltPatches(SIDE, 8, WIDTH, vit=str(tmp_path))
    stream = ViltStream(WIDTH, 60, **SIZES, vit=str(tmp_path))
    nn.init.zeros_(stream.types.weight)
    nothing = torch.zeros(2, 0, dtype=torch.long)
    states = stream(nothing, nothing.bool(), encoder(images(2)).patches, None)
    torch.testing.assert_close(states.image, vit(images(2)).patches, atol=1e-5, rtol=0)
    larger = ViltPatches(2 * SIDE, 8, WIDTH, vit=str(tmp_path))
    vit.resize(2 * SIDE)
    torch.testing.assert_close(larger.positions, vit.positions.vectors)
    with pytest.raises(ValueError, match="has patches of 8 px and width 32, ViltPatches 16 and 32"):
        ViltPatches(SIDE, 16, WIDTH, vit=str(tmp_path))
    with pytest.raises(ValueError, match="width 32, 2 blocks and 4 heads, ViltStream 32, 3 and 4"):
        ViltStream(WIDTH, 60, WIDTH, 3, 4, vit=str(tmp_path))


def test_it_is_counted_without_a_tokenizer() -> None:
    with torch.device("meta"):
        model: nn.Module = JointEncoder(ENCODERS["raw patches"](), STREAMS["vilt"], "no/where", vocab_size=60)
    assert all(parameter.is_meta for parameter in model.parameters())
