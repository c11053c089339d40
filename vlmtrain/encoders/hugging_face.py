"""Vision models of transformers behind the VisionEncoder seam: CLIP, SigLIP, DINOv2, ViT and their like."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.utils import cached_file

from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.encoders.taps import blocks_read
from vlmtrain.nn.checkpointing import checkpointed
from vlmtrain.nn.pretrained import builds_without_weights, is_local
from vlmtrain.nn.residual_blocks import residual_blocks

HALF = (0.5, 0.5, 0.5)


class HuggingFaceEncoder(VisionEncoder):
    """A vision transformer by folder or hub name; of a two-tower model such as CLIP, the vision tower.

    Args:
        source: folder or hub name; None makes random weights.
        architecture: fields of the vision model's config.json, `model_type` among them.  Needed without `source`;
            with it, they stand for it on the meta device, where nothing is loaded.
        tap: which layer's output; -1 is the last one as the model gives it (with its final norm where it has one),
            -2 the one before, without norm.  Layers that nobody reads are cut off.
        keep_class_token: whether token 0 is the class token or the first patch.  Registers are always dropped.
        image_size: side of the tiles in pixels, if not that of pretraining; positions are then interpolated.
        revision: of `source` on the hub.
        precision: of the weights.
    """

    def __init__(
        self,
        source: str | None = None,
        architecture: dict[str, Any] | None = None,
        tap: int = -1,
        keep_class_token: bool = True,
        image_size: int | None = None,
        revision: str | None = None,
        precision: str = "fp32",
    ) -> None:
        config = _vision_config(source, architecture, revision)
        super().__init__(*_normalisation(source, revision))
        self.source = source or "random"
        self.model = _load(source, config, revision, {"fp32": torch.float32, "bf16": torch.bfloat16}[precision])
        self.keep_class_token = keep_class_token
        self.width = config.hidden_size
        self.image_size = image_size or config.image_size
        self._resizes = self.image_size != config.image_size
        self._checkpoints = False
        self._num_registers = getattr(config, "num_register_tokens", 0)
        self._has_class_token = any(name.endswith(("cls_token", "class_embedding")) for name in self.model.state_dict())
        if keep_class_token and not self._has_class_token:
            raise ValueError(f"{type(self.model).__name__} has no class token; set keep_class_token=false.")
        num_patches = (self.image_size // config.patch_size) ** 2
        self.patches_per_tile = num_patches + int(keep_class_token)
        self._num_tokens = num_patches + int(self._has_class_token) + self._num_registers
        blocks = residual_blocks(self.model)
        self._reads_end = tap == -1
        del blocks[blocks_read(tap, len(blocks)) :]
        _drop_unread(self.model, self._reads_end)

    def enable_gradient_checkpointing(self) -> None:
        """Keep only the input of each block for the backward pass, also where the encoder is frozen."""
        self._checkpoints = True

    def encode_tiles(self, pixels: Tensor) -> Tensor:
        options = {"interpolate_pos_encoding": True} if self._resizes else {}
        blocks = residual_blocks(self.model)
        tapped: list[Tensor] = []
        handle = blocks[-1].register_forward_hook(lambda module, arguments, output: tapped.append(_first(output)))
        try:
            with checkpointed(blocks, self._checkpoints):
                output = self.model(pixel_values=pixels, **options)
        finally:
            handle.remove()
        tokens = output.last_hidden_state if self._reads_end else tapped[0]
        if tokens.shape[1] != self._num_tokens:
            raise ValueError(
                f"{type(self.model).__name__} gave {tokens.shape[1]} tokens, {self._num_tokens} were expected."
            )
        patches = tokens[:, int(self._has_class_token) + self._num_registers :]
        return torch.cat([tokens[:, :1], patches], dim=1) if self.keep_class_token else patches


def _first(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def _where(source: str, revision: str | None) -> dict[str, Any]:
    return {"revision": revision, "local_files_only": is_local(source), "trust_remote_code": False}


def _vision_config(
    source: str | None, architecture: Mapping[str, Any] | None, revision: str | None
) -> PretrainedConfig:
    if source is not None and not (architecture and builds_without_weights()):
        config = AutoConfig.from_pretrained(source, **_where(source, revision))
    elif architecture is None or "model_type" not in architecture:
        raise ValueError("Give source (a name or folder), or architecture (fields of a config.json with model_type).")
    else:
        config = AutoConfig.for_model(**architecture)
    return getattr(config, "vision_config", config)


def _load(source: str | None, config: PretrainedConfig, revision: str | None, dtype: torch.dtype) -> PreTrainedModel:
    if source is None or builds_without_weights():
        return AutoModel.from_config(config, dtype=dtype, trust_remote_code=False)
    return AutoModel.from_pretrained(source, config=config, dtype=dtype, **_where(source, revision))


def _drop_unread(model: nn.Module, reads_end: bool) -> None:
    """Take out what never reaches our output: its parameters would be counted, moved and wait for gradient in vain."""
    for module in (model, *model.children()):
        for name in ("pooler", "head", "mask_token"):
            if isinstance(getattr(module, name, None), nn.Module | nn.Parameter):
                setattr(module, name, None)
        if hasattr(module, "use_head"):
            module.__dict__["use_head"] = False
        for name in () if reads_end else ("layernorm", "post_layernorm"):
            if isinstance(getattr(module, name, None), nn.Module):
                setattr(module, name, nn.Identity())


def _normalisation(
    source: str | None, revision: str | None
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    if source is None or builds_without_weights():
        return HALF, HALF
    path = cached_file(
        source,
        "preprocessor_config.json",
        revision=revision,
        local_files_only=is_local(source),
        _raise_exceptions_for_missing_entries=False,
    )
    if path is None:
        raise ValueError(f"{source}: no preprocessor_config.json, so how pixels are normalised is unknown; add one.")
    preprocessing = json.loads(Path(path).read_text())
    return tuple(preprocessing["image_mean"]), tuple(preprocessing["image_std"])
