"""Packed samples through every fusion, and through connectors that read the prompt: the same losses and gradients."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from fusion_toy import BLOCKS, make_language_model, open_gates
from torch import Tensor

from vlmtrain.batch import VisualBatch
from vlmtrain.connectors.linear import LinearConnector
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.fusions.base import Fusion
from vlmtrain.fusions.deepstack import DeepStack
from vlmtrain.fusions.gated_cross_attention import GatedCrossAttention
from vlmtrain.fusions.interleave import Interleave
from vlmtrain.language_models.packing import with_packing
from vlmtrain.layout import Part, Text, Visual
from vlmtrain.models.vision_language_model import VisionLanguageModel, assemble

FUSIONS: dict[str, Callable[..., Fusion]] = {
    "flamingo": partial(GatedCrossAttention, block=BLOCKS["flamingo"], every_n_layers=2),
    "mllama": partial(GatedCrossAttention, block=BLOCKS["mllama"], every_n_layers=1),
    "deepstack": partial(DeepStack, num_layers=2),
    "interleave": Interleave,
}
SAMPLES: list[list[Part]] = [
    [Text("a long way to", False), Visual(2), Text(" the first and then to", False), Visual(), Text(" blue")],
    [Text("words alone", False), Text(" are short")],
    [Visual(), Text("is it", False), Text(" red")],
    [Visual(), Visual(), Text(" two")],
]
TILES, ITEMS = [2, 1, 1, 1, 1], [2, 0, 1, 2]


def make(fusion: str, tokenizer: str, packs: bool) -> VisionLanguageModel:
    language_model = make_language_model("llama", tokenizer)
    torch.manual_seed(2)
    model = assemble(
        VisionTransformer(16, 8, 24, 1, 2),
        language_model,
        LinearConnector,
        FUSIONS[fusion],
        packing=partial(with_packing, row_length=80) if packs else None,
    )
    if isinstance(model.fusion, GatedCrossAttention):
        open_gates(model.fusion, 0.7)
    return model.double()


def loss_and_gradients(model: VisionLanguageModel) -> tuple[Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (sum(TILES), 3, 16, 16), dtype=torch.uint8, generator=generator)
    text = model.layout().write(SAMPLES, model.placeholders_per_item)
    visual = model.encode(VisualBatch(pixels, TILES, ITEMS))
    found = model.target_states(visual, text)
    loss = F.cross_entropy(found.head(found.states), found.targets)
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_fusion_does_not_notice_that_samples_share_rows(fusion: str, byte_tokenizer: str) -> None:
    plain, packed = make(fusion, byte_tokenizer, False), make(fusion, byte_tokenizer, True)
    rows: list[int] = []
    packed.language_model.input_layers[0].register_forward_pre_hook(
        lambda layer, args, kwargs: rows.append(len(args[0] if args else kwargs["hidden_states"])), with_kwargs=True
    )
    (wanted, wanted_gradients), (loss, gradients) = loss_and_gradients(plain), loss_and_gradients(packed)
    assert rows and rows[0] < len(SAMPLES)
    torch.testing.assert_close(loss, wanted, atol=1e-10, rtol=0)
    assert gradients.keys() == wanted_gradients.keys() and len(gradients) > 4
    for name, gradient in wanted_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_an_image_is_heard_by_its_own_sample_alone(fusion: str, byte_tokenizer: str) -> None:
    model = make(fusion, byte_tokenizer, True)
    text = model.layout().write(SAMPLES, model.placeholders_per_item)
    pixels = torch.randint(
        0, 256, (sum(TILES), 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    visual = model.encode(VisualBatch(pixels, TILES, ITEMS))
    patches = visual.patches.detach().requires_grad_()
    found = model.target_states(type(visual)(patches, TILES, ITEMS), text)
    ends = torch.tensor(text.supervised_per_sample).cumsum(0).tolist()
    owners = [0, 0, 0, 2, 3, 3]  # whose each tile is
    for sample, (begin, end) in enumerate(zip([0, *ends], ends, strict=False)):
        (gradient,) = torch.autograd.grad(found.states[begin:end].pow(2).sum(), patches, retain_graph=True)
        loud = (gradient.abs().sum(dim=(1, 2)) > 0).tolist()
        assert not any(is_loud for is_loud, owner in zip(loud, owners, strict=True) if owner != sample)
        assert any(loud) == (sample in owners)
