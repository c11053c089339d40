"""Models of open_clip as dual encoders, and back into a folder that open_clip loads."""

import json
import math
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor

from vlmtrain.encoders.open_clip_tower import OpenClipTower
from vlmtrain.language_models.open_clip_tower import OpenClipTextTower
from vlmtrain.models.dual_encoder import MAX_SIMILARITY_SCALE, DualEncoder
from vlmtrain.models.sigmoid_dual_encoder import SigmoidDualEncoder
from vlmtrain.nn.pretrained import builds_without_weights
from vlmtrain.nn.projections import Unchanged

SAVED_PREPROCESSING = ("mean", "std", "interpolation", "resize_mode", "fill_color")


def load_open_clip(name: str, checkpoint: str | None = None) -> DualEncoder:
    """An open_clip model by name; one with a bias on its similarities becomes a SigmoidDualEncoder.

    Args:
        name: of the model in open_clip, for example `ViT-B-32` or `RN50`; `local-dir:FOLDER` for a folder, weights
            included; `hf-hub:OWNER/NAME` from the hub.
        checkpoint: a file, or a tag of open_clip's published weights (from the hub); None makes random weights.
    """
    architecture = open_clip.get_model_config(name)
    if architecture is None or "multimodal_cfg" in architecture:
        why = "writes captions too; see vlmtrain.models.coca" if architecture else "is not known"
        raise ValueError(f"open_clip's {name} {why}; for other names, see open_clip.list_models().")
    counts_only = builds_without_weights()
    clip = open_clip.create_model(
        name,
        pretrained=None if counts_only else checkpoint,
        load_weights=not counts_only,
        device=torch.get_default_device(),
        force_custom_text=True,
    )
    width, source = int(architecture["embed_dim"]), f"{name} {checkpoint or ''}".strip()
    tokenizer = None if counts_only else open_clip.get_tokenizer(name)
    encoder = OpenClipTower(clip.visual, width, source, architecture)
    text_encoder = OpenClipTextTower(clip.text, width, source, tokenizer)
    projections = {"visual_projection": Unchanged, "text_projection": Unchanged}
    model: DualEncoder
    if clip.logit_bias is None:
        model = DualEncoder(encoder, text_encoder, width, **projections)  # type: ignore[arg-type]
        highest = math.log(MAX_SIMILARITY_SCALE)
        model.log_scale = torch.nn.Parameter(clip.logit_scale.detach().reshape(()).clamp(max=highest))
        return model
    model = SigmoidDualEncoder(encoder, text_encoder, width, **projections)  # type: ignore[arg-type]
    model.log_scale = torch.nn.Parameter(clip.logit_scale.detach().reshape(()).clone())
    model.bias = torch.nn.Parameter(clip.logit_bias.detach().reshape(()).clone())
    return model


def save_open_clip(model: DualEncoder, folder: str | Path) -> None:
    """Write what `open_clip.create_model("local-dir:FOLDER")` loads, with the same outputs."""
    encoder, text_encoder = model.encoder, model.text_encoder
    if not isinstance(encoder, OpenClipTower) or not isinstance(text_encoder, OpenClipTextTower):
        raise ValueError(
            f"open_clip has no place for {type(encoder).__name__} and {type(text_encoder).__name__}; both towers must "
            "come from load_open_clip."
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(_state(model, encoder, text_encoder), folder / "open_clip_model.safetensors")
    preprocessing: dict[str, Any] = encoder.model.preprocess_cfg  # type: ignore[assignment]
    kept = {name: preprocessing[name] for name in SAVED_PREPROCESSING if name in preprocessing}
    config = {"model_cfg": encoder.architecture, "preprocess_cfg": kept}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    inner = getattr(text_encoder.tokenizer, "tokenizer", None)
    if inner is not None:
        inner.save_pretrained(folder)


def _state(model: DualEncoder, encoder: OpenClipTower, text_encoder: OpenClipTextTower) -> dict[str, Tensor]:
    """Under open_clip's names; a plain CLIP has its text tower's weights beside `visual`, not below `text`."""
    architecture = encoder.architecture
    is_apart = bool(architecture.get("custom_text")) or "hf_model_name" in architecture["text_cfg"]
    prefix = "text." if is_apart else ""
    state = {f"visual.{name}": value for name, value in encoder.model.state_dict().items()}
    state |= {f"{prefix}{name}": value for name, value in text_encoder.model.state_dict().items()}
    shape = (1,) if architecture.get("nonscalar_logit_scale") else ()
    state["logit_scale"] = model.log_scale.reshape(shape)
    if isinstance(model, SigmoidDualEncoder):
        state["logit_bias"] = model.bias.reshape(shape)
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}
