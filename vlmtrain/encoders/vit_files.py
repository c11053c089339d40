"""A VisionTransformer as a folder in Hugging Face layout, and back.

With learned 1-D positions the folder is what `transformers.ViTModel.from_pretrained` reads; other positions get the
model type `vlmtrain_vit` and keep their own names under `positions.`.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vlmtrain.encoders.hybrid_vit import HybridVisionTransformer
from vlmtrain.encoders.taps import Tap
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.encoders.vit_positions import Learned1D, Learned2D, Positions, RelativeBias1D, RelativeBias2D

STEMS: dict[str, type[VisionTransformer]] = {"linear": VisionTransformer, "convolutional": HybridVisionTransformer}
POSITIONS: dict[str, type[Positions]] = {
    choice.__name__: choice for choice in (Learned1D, Learned2D, RelativeBias1D, RelativeBias2D)
}
# our name of a weight in a block -> the name in the folder
_BLOCK_NAMES = {
    "attention_norm": "layernorm_before",
    "attention.to_out": "attention.output.dense",
    "mlp_norm": "layernorm_after",
    "mlp.0": "intermediate.dense",
    "mlp.2": "output.dense",
}
# names that transformers >= 5 writes -> the names that every version reads
_NEW_NAMES = {
    "layers.": "encoder.layer.",
    ".q_proj.": ".attention.query.",
    ".k_proj.": ".attention.key.",
    ".v_proj.": ".attention.value.",
    ".o_proj.": ".output.dense.",
    ".mlp.fc1.": ".intermediate.dense.",
    ".mlp.fc2.": ".output.dense.",
}


def save_pretrained(encoder: VisionTransformer, folder: str | Path) -> None:
    """Write config.json, model.safetensors and preprocessor_config.json."""
    if encoder.taps.layers != (encoder.depth,):
        raise ValueError(
            "Only an encoder that is read at its last layer, and there only, has all parts; save one with tap=-1."
        )
    config = _config(encoder)  # refuses before anything is written
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(_to_folder_names(encoder), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    size = {"height": encoder.image_size, "width": encoder.image_size}
    preprocessing = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "size": size,
        "image_mean": [round(value / 255, 8) for value in encoder.pixel_mean.flatten().tolist()],
        "image_std": [round(value / 255, 8) for value in encoder.pixel_std.flatten().tolist()],
        "rescale_factor": 1 / 255,
        "resample": 3,  # bicubic
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing, indent=2) + "\n")


def pretrained(
    source: str, tap: Tap = -1, keep_class_token: bool = True, image_size: int | None = None
) -> VisionTransformer:
    """The encoder that `save_pretrained`, or transformers with a ViTModel, wrote into folder `source`.

    `image_size` is the side of the tiles if not that of pretraining; positions are then interpolated.
    """
    folder = Path(source)
    if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
        raise ValueError(f"{source}: no config.json and model.safetensors there; give the folder of a saved encoder.")
    config = json.loads((folder / "config.json").read_text())
    _check(config, source)
    encoder = STEMS[config.get("stem", "linear")](
        image_size=config["image_size"],
        patch_size=config["patch_size"],
        width=config["hidden_size"],
        depth=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        positions=POSITIONS[config.get("positions", "Learned1D")],
        keep_class_token=keep_class_token,
        tap=tap,
    )
    encoder.source = source
    for module in encoder.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = config.get("layer_norm_eps", 1e-12)
    preprocessor = folder / "preprocessor_config.json"
    if preprocessor.is_file():
        _set_normalisation(encoder, json.loads(preprocessor.read_text()))
    if encoder.class_token.device.type != "meta":
        _load(encoder, load_file(folder / "model.safetensors"), source)
    if image_size is not None:
        encoder.resize(image_size)
    return encoder


def _config(encoder: VisionTransformer) -> dict[str, object]:
    positions = type(encoder.positions).__name__
    stem = _stem(encoder)
    native = positions == "Learned1D" and stem == "linear"
    return {
        "model_type": "vit" if native else "vlmtrain_vit",
        "architectures": ["ViTModel"] if native else ["VisionTransformer"],
        "hidden_size": encoder.width,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.num_heads,
        "intermediate_size": 4 * encoder.width,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": encoder.norm.eps if isinstance(encoder.norm, torch.nn.LayerNorm) else 1e-6,
        "image_size": encoder.image_size,
        "patch_size": encoder.patch_size,
        "num_channels": 3,
        "qkv_bias": True,
        **({} if native else {"positions": positions, "stem": stem}),
    }


def _stem(encoder: VisionTransformer) -> str:
    for name, kind in STEMS.items():
        if type(encoder) is kind:
            return name
    known = ", ".join(kind.__name__ for kind in STEMS.values())
    raise ValueError(f"{type(encoder).__name__} has no place in such a folder, which holds one of {known}.")


def _check(config: Mapping[str, object], source: str) -> None:
    wanted: dict[str, object] = {"hidden_act": "gelu", "qkv_bias": True, "num_channels": 3}
    wanted["intermediate_size"] = 4 * config["hidden_size"]  # type: ignore[operator]
    wrong = {name: config[name] for name, value in wanted.items() if config.get(name, value) != value}
    if config.get("model_type") not in ("vit", "vlmtrain_vit") or wrong:
        raise ValueError(
            f"{source}: model_type {config.get('model_type')!r} with {wrong or 'these settings'} is not a native "
            "VisionTransformer; load it with vlmtrain.encoders.hugging_face.HuggingFaceEncoder."
        )
    for key, known in (("stem", set(STEMS)), ("positions", set(POSITIONS))):
        if key in config and config[key] not in known:
            raise ValueError(f"{source}/config.json: {key} {config[key]!r} is none of {', '.join(sorted(known))}.")


def _set_normalisation(encoder: VisionTransformer, preprocessing: Mapping[str, list[float]]) -> None:
    for buffer, name in ((encoder.pixel_mean, "image_mean"), (encoder.pixel_std, "image_std")):
        buffer.copy_(255.0 * torch.tensor(preprocessing[name]).view(1, 3, 1, 1))


def _to_folder_names(encoder: VisionTransformer) -> dict[str, Tensor]:
    weights = {}
    for name, weight in encoder.state_dict().items():
        for folder_name, part in _folder_names(name, weight):
            weights[folder_name] = part.contiguous().cpu().clone()
    return weights


def _folder_names(name: str, weight: Tensor) -> list[tuple[str, Tensor]]:
    """Where one weight of ours goes; the fused projection of query, key and value is three weights there."""
    top = {
        "class_token": "embeddings.cls_token",
        "patch_projection.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_projection.bias": "embeddings.patch_embeddings.projection.bias",
        "norm.weight": "layernorm.weight",
        "norm.bias": "layernorm.bias",
    }
    if name == "positions.vectors":
        return [("embeddings.position_embeddings", weight.unsqueeze(0))]
    if not name.startswith("blocks."):
        return [(top.get(name, name), weight)]
    _, index, rest = name.split(".", 2)
    module, kind = rest.rsplit(".", 1)
    prefix = f"encoder.layer.{index}."
    if module == "attention.to_query_key_value":
        names = [f"{prefix}attention.attention.{role}.{kind}" for role in ("query", "key", "value")]
        return list(zip(names, weight.chunk(3), strict=True))
    return [(f"{prefix}{_BLOCK_NAMES[module]}.{kind}", weight)]


def _load(encoder: VisionTransformer, stored: Mapping[str, Tensor], source: str) -> None:
    found = {_old_name(name): weight for name, weight in stored.items()}
    weights, missing = {}, []
    for name, weight in encoder.state_dict().items():
        names = [folder_name for folder_name, _ in _folder_names(name, weight)]
        missing += [folder_name for folder_name in names if folder_name not in found]
        if not missing:
            parts = [found[folder_name] for folder_name in names]
            weights[name] = torch.cat(parts) if len(parts) > 1 else parts[0].view_as(weight)
    if missing:
        raise ValueError(f"{source}/model.safetensors lacks {', '.join(missing[:5])} ({len(missing)} in all).")
    encoder.load_state_dict(weights)


def _old_name(name: str) -> str:
    name = name.removeprefix("vit.")
    if name.startswith("layers."):
        for new, old in _NEW_NAMES.items():
            name = name.replace(new, old, 1)
    return name
