"""T31: contrast without captions, between images and prompts that hold them as words."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import Batch, TextBatch, VisualBatch, VisualFeatures
from vlmtrain.data.forms.image_in_prompt import ImageInPrompt
from vlmtrain.data.record import Record
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.language_models.text_encoder import BertTextEncoder, TextEncoder
from vlmtrain.layout import Layout
from vlmtrain.models.dual_encoder import DualEncoder
from vlmtrain.models.pic2word import Pic2Word
from vlmtrain.nn.pooling import Mean
from vlmtrain.nn.projections import Unchanged
from vlmtrain.nn.word_mapper import WordMapper
from vlmtrain.objectives.base import Context
from vlmtrain.objectives.composed_contrastive import ComposedContrastive
from vlmtrain.objectives.contrastive import Contrastive
from vlmtrain.training.trainability import set_trainability


def make(folder: str, temperature: float = 0.07) -> Pic2Word:
    torch.manual_seed(0)
    words = BertTextEncoder(folder, width=16, depth=1, num_heads=2)
    clip = DualEncoder(
        VisionTransformer(8, 4, 12, 1, 2), words, embedding_width=8, temperature=temperature, pooling=Mean
    )
    for parameter in clip.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    model = Pic2Word(clip, partial(WordMapper, hidden_width=32, dropout=0.0))
    set_trainability(model, {"dual_encoder": None, "mapper": 1.0})
    return model


def batch_for(model: Pic2Word, size: int) -> Batch:
    """Records of images only."""
    form = ImageInPrompt("a p of *")
    records = [Record(str(index), [b"image"], []) for index in range(size)]
    text = model.layout().write([form.parts(record, 0) for record in records], model.placeholders_per_item)
    pixels = torch.randint(0, 256, (size, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    return Batch(VisualBatch(pixels, [1] * size, [1] * size), text)


def test_t31_the_negatives_are_those_of_clip(tokenizer_folder: str) -> None:
    model = make(tokenizer_folder)
    batch, objective = batch_for(model, 5), ComposedContrastive()
    objective.require(model)
    features = model.encode(batch.visual)
    images, prompts = model.embed_visual(features)[:, 0], model.embed_composed(features, batch.text)
    logits, own = model.similarity_scale() * images @ prompts.T, torch.arange(5)
    wanted = (F.cross_entropy(logits, own, reduction="sum") + F.cross_entropy(logits.T, own, reduction="sum")) / 2
    loss = objective(model, Context(features, batch))
    torch.testing.assert_close(loss.totals["contrastive"], wanted)
    assert objective.counts(batch) == {"contrastive": 5}


@pytest.mark.parametrize("size", [1, 2, 4])
def test_t31_accumulation_is_one_big_batch_to_1e_5(
    tokenizer_folder: str, step_of: Callable[..., Any], size: int
) -> None:
    model, objective = make(tokenizer_folder), ComposedContrastive()
    batch = batch_for(model, 8)
    whole, cut = step_of(model, objective, batch), step_of(model, objective, batch, size)
    torch.testing.assert_close(cut.totals["contrastive"], whole.totals["contrastive"], atol=1e-5, rtol=1e-6)
    assert cut.metrics == whole.metrics
    assert (
        cut.gradients.keys()
        == whole.gradients.keys()
        == {name for name, _ in model.named_parameters() if "mapper" in name}
    )
    for name, gradient in whole.gradients.items():
        assert gradient.abs().max() > 1e-4
        torch.testing.assert_close(cut.gradients[name], gradient, atol=1e-5, rtol=0)


class ReadsTheImage(TextEncoder):
    """Says of a text what stands at the image's place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.table = nn.Embedding(9, width)

    def layout(self) -> Layout:
        raise NotImplementedError

    def forward(self, text: TextBatch) -> Tensor:
        return (self.table(text.input_ids) * text.visual_mask.unsqueeze(-1)).sum(1)

    def word_table(self) -> nn.Embedding:
        return self.table


class SameWord(nn.Module):
    """The worst network: one word for all images."""

    def forward(self, vectors: Tensor) -> Tensor:
        return torch.ones_like(vectors)


@pytest.mark.parametrize(("mapper", "loss"), [(nn.Identity(), 0.0), (SameWord(), math.log(4))], ids=["ideal", "worst"])
def test_t31_an_ideal_mapping_network_leaves_no_loss(mapper: nn.Module, loss: float) -> None:
    """Prompts that mean what their images do; one that knows nothing loses the logarithm of the batch."""
    space = {"visual_projection": Unchanged, "text_projection": Unchanged, "temperature": 0.01, "pooling": Mean}
    clip = DualEncoder(VisionTransformer(8, 4, 12, 1, 2), ReadsTheImage(12), 12, **space)
    model = Pic2Word(clip, lambda width, words: mapper)
    places = torch.tensor([[False, True, False]] * 4)
    text = TextBatch(torch.ones_like(places).long(), torch.ones_like(places), places, placeholders=4)
    features = VisualFeatures(7 * torch.eye(4, 12).unsqueeze(1), [1] * 4, [1] * 4)
    nothing = VisualBatch(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), [1] * 4, [1] * 4)
    found = ComposedContrastive()(model, Context(features, Batch(nothing, text))).totals["contrastive"] / 4
    assert found.item() == pytest.approx(loss, abs=1e-5)


def test_without_weight_nothing_is_computed_and_a_model_without_words_is_refused(tokenizer_folder: str) -> None:
    model = make(tokenizer_folder)
    objective = ComposedContrastive(weight=0.0)
    context = Context(None, batch_for(model, 2))  # type: ignore[arg-type]
    assert objective(model, context).totals == {} == objective.survey(model, context)
    with pytest.raises(ValueError, match=r"DualEncoder lacks embed_composed"):
        ComposedContrastive().require(model.dual_encoder)
    Contrastive().require(model)
