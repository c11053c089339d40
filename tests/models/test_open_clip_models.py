"""open_clip models load, train, and go back into a folder that open_clip reads with the same outputs."""

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from vlmtrain.batch import Batch, VisualBatch
from vlmtrain.layout import Text, Visual
from vlmtrain.models.capabilities import EmbedsBoth, EmbedsBothWithBias
from vlmtrain.models.dual_encoder import DualEncoder
from vlmtrain.models.open_clip import load_open_clip, save_open_clip
from vlmtrain.objectives.base import Context
from vlmtrain.objectives.contrastive import Contrastive
from vlmtrain.objectives.sigmoid_contrastive import SigmoidContrastive

open_clip = importlib.import_module("open_clip")  # after vlmtrain, whose hook lets torchvision be imported
VIT = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}
TEXT = {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
MODELS: dict[str, dict[str, Any]] = {
    "vit": {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": TEXT},
    "resnet": {"embed_dim": 16, "vision_cfg": RESNET, "text_cfg": TEXT, "custom_text": True},
    "siglip": {
        "embed_dim": 16,
        "vision_cfg": VIT,
        "text_cfg": {**TEXT, "no_causal_mask": True, "pool_type": "last"},
        "custom_text": True,
        "init_logit_bias": -10.0,
    },
}
CAPTIONS = ["a red circle", "blue", "what is it", "a star above a very small square"]


def save_random(folder: Path, architecture: dict[str, Any]) -> None:
    """A folder as open_clip has it."""
    torch.manual_seed(0)
    kind = open_clip.CustomTextCLIP if architecture.get("custom_text") else open_clip.CLIP
    model = kind(**{name: value for name, value in architecture.items() if name != "custom_text"})
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    folder.mkdir()
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    config = {"model_cfg": architecture, "preprocess_cfg": {"mean": [0.4] * 3, "std": [0.3] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))


def batch_for(model: DualEncoder) -> Batch:
    size = model.encoder.image_size
    pixels = torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8)
    samples = [[Visual(), Text(caption)] for caption in CAPTIONS]
    return Batch(VisualBatch(pixels, [1] * 4, [1] * 4), model.layout().write(samples, model.placeholders_per_item))


def difference(model: DualEncoder, folder: Path) -> float:
    """The largest between our outputs and those of open_clip's own model of `folder`."""
    theirs = open_clip.create_model(f"local-dir:{folder}").eval()
    model.eval()
    batch = batch_for(model)
    pixels = model.encoder.normalise(batch.visual.pixels)
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(CAPTIONS)
    assert torch.equal(tokens, batch.text.input_ids)
    with torch.no_grad():
        pairs = [
            (model.embed_visual(model.encode(batch.visual))[:, 0], theirs.encode_image(pixels, normalize=True)),
            (model.embed_text(batch.text), theirs.encode_text(tokens, normalize=True)),
            (model.similarity_scale(), theirs.logit_scale.exp()),
        ]
        if isinstance(model, EmbedsBothWithBias):
            pairs.append((model.similarity_bias(), theirs.logit_bias))
    assert theirs.visual.preprocess_cfg["mean"] == [0.4] * 3
    return max(float((ours - wanted).abs().max()) for ours, wanted in pairs)


@pytest.mark.parametrize("name", MODELS)
def test_it_loads_trains_and_goes_back(tmp_path: Path, name: str) -> None:
    save_random(tmp_path / "before", MODELS[name])
    model = load_open_clip(f"local-dir:{tmp_path / 'before'}")
    assert isinstance(model, EmbedsBoth)
    assert difference(model, tmp_path / "before") < 1e-6
    objective = SigmoidContrastive() if isinstance(model, EmbedsBothWithBias) else Contrastive()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()
    batch = batch_for(model)
    for _ in range(2):
        (total,) = objective(model, Context(model.encode(batch.visual), batch)).totals.values()
        optimizer.zero_grad()
        total.backward()
        assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
        optimizer.step()
    save_open_clip(model, tmp_path / "after")
    assert difference(model, tmp_path / "after") < 1e-6
    assert difference(load_open_clip(f"local-dir:{tmp_path / 'before'}"), tmp_path / "after") > 1e-3, "it has learned"


def test_t14_the_losses_are_those_of_open_clip() -> None:
    """ClipLoss and SigLipLoss on one process: loss and gradients by image, text, scale and bias."""
    generator = torch.Generator().manual_seed(0)

    class Given(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.images, self.texts = (torch.nn.Parameter(torch.randn(9, 6, generator=generator)) for _ in range(2))
            self.scale, self.bias = (torch.nn.Parameter(torch.tensor(value)) for value in (7.0, -3.0))

        def embed_visual(self, visual: object) -> torch.Tensor:
            return torch.nn.functional.normalize(self.images, dim=-1).unsqueeze(1)

        def embed_text(self, text: object) -> torch.Tensor:
            return torch.nn.functional.normalize(self.texts, dim=-1)

        def similarity_scale(self) -> torch.Tensor:
            return self.scale

        def similarity_bias(self) -> torch.Tensor:
            return self.bias

    given = Given()
    pixels, words = torch.zeros(9, 3, 2, 2, dtype=torch.uint8), torch.zeros(9, 1, dtype=torch.long)
    text = load_text(words)
    context = Context(None, Batch(VisualBatch(pixels, [1] * 9, [1] * 9), text))  # type: ignore[arg-type]
    vectors = given.embed_visual(None)[:, 0], given.embed_text(None)
    wanted = {
        Contrastive(): open_clip.ClipLoss()(*vectors, given.scale),
        SigmoidContrastive(chunk=4): open_clip.loss.SigLipLoss()(*vectors, given.scale, given.bias),
    }
    for objective, theirs in wanted.items():
        (total,) = objective(given, Context(context.features, context.batch)).totals.values()
        assert abs(total.item() / 9 - theirs.item()) < 1e-5
        ours = torch.autograd.grad(total / 9, list(given.parameters()), allow_unused=True)
        others = torch.autograd.grad(theirs, list(given.parameters()), allow_unused=True, retain_graph=True)
        for one, other in zip(ours, others, strict=True):
            assert (one is None) == (other is None)
            assert one is None or float((one - other).abs().max()) < 1e-5


def load_text(words: torch.Tensor) -> Any:
    from vlmtrain.batch import TextBatch

    mask = torch.ones_like(words, dtype=torch.bool)
    return TextBatch(words, mask, ~mask)


def test_a_name_is_counted_without_its_weights() -> None:
    with torch.device("meta"):
        model = load_open_clip("RN50", "openai")
    assert sum(parameter.numel() for parameter in model.parameters()) == 102_007_137


def test_what_open_clip_cannot_hold_is_named(byte_tokenizer: str, tmp_path: Path) -> None:
    from vlmtrain.encoders.vit import VisionTransformer
    from vlmtrain.language_models.text_encoder import BertTextEncoder

    own = DualEncoder(VisionTransformer(16, 8, 24, 2, 4), BertTextEncoder(byte_tokenizer, 32, 2, 4), 8)
    with pytest.raises(ValueError, match="VisionTransformer and BertTextEncoder"):
        save_open_clip(own, tmp_path)
    with pytest.raises(ValueError, match="coca"):
        load_open_clip("coca_ViT-B-32")
    with pytest.raises(ValueError, match="not known"):
        load_open_clip("ViT-B-33")


@pytest.mark.slow
def test_a_run_is_exported(train_experiment: Any, tmp_path: Path) -> None:
    save_random(tmp_path / "before", MODELS["vit"])
    chosen = ["model=open_clip", f"model.name=local-dir:{tmp_path / 'before'}"]
    trainable = "stages.contrastive.trainable={encoder: 1.0, text_encoder: 1.0, log_scale: 1.0}"
    run = train_experiment("clip", 3, *chosen, trainable, "optimizer.lr=1e-2")
    path = Path(__file__).parents[2] / "scripts" / "export_open_clip.py"
    spec = importlib.util.spec_from_file_location("export_open_clip", path)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.export(run, "contrastive", tmp_path / "after")
    before, after = (open_clip.create_model(f"local-dir:{tmp_path / name}") for name in ("before", "after"))
    assert not torch.equal(before.logit_scale, after.logit_scale)
    assert not torch.equal(before.visual.proj, after.visual.proj)
