"""Vision models of transformers behind the VisionEncoder seam: CLIP, SigLIP, DINOv2, ViT and their like."""

from typing import Any

import torch
from torch import Tensor, nn

from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.encoders.hugging_face_loading import (
    PRECISIONS,
    cut_to,
    find_normalisation,
    find_vision_config,
    load_vision_model,
    read_layers,
)
from vlmtrain.encoders.taps import Tap
from vlmtrain.nn.checkpointing import Checkpointable
from vlmtrain.nn.residual_blocks import residual_blocks


class HuggingFaceEncoder(Checkpointable, VisionEncoder):
    """A vision transformer by folder or hub name; of a two-tower model such as CLIP, the vision tower.

    Args:
        source: folder or hub name; None makes random weights.
        architecture: fields of the vision model's config.json, `model_type` among them.  Needed without `source`;
            with it, they stand for it on the meta device, where nothing is loaded.
        tap: which layer's output; -1 is the last one as the model gives it (with its final norm where it has one),
            -2 the one before, without norm; of several the outputs stand side by side.  Layers that nobody reads are
            cut off.
        keep_class_token: whether token 0 is the class token or the first patch.  Registers are always dropped.
        image_size: side of the tiles in pixels, if not that of pretraining; positions are then interpolated.
        revision: of `source` on the hub.
        precision: of the weights.
        norms_end: of the last layer, pass every token through `post_layernorm`, which CLIP in transformers gives its
            class token only.  For dual encoders; needs tap=-1.
    """

    def __init__(
        self,
        source: str | None = None,
        architecture: dict[str, Any] | None = None,
        tap: Tap = -1,
        keep_class_token: bool = True,
        image_size: int | None = None,
        revision: str | None = None,
        precision: str = "fp32",
        norms_end: bool = False,
    ) -> None:
        config = find_vision_config(source, architecture, revision)
        super().__init__(*find_normalisation(source, revision))
        self.source = source or "random"
        self.model = load_vision_model(source, config, revision, PRECISIONS[precision])
        self.keep_class_token = keep_class_token
        self.image_size = image_size or config.image_size
        self._resizes = self.image_size != config.image_size
        self._num_registers = getattr(config, "num_register_tokens", 0)
        self._has_class_token = any(name.endswith(("cls_token", "class_embedding")) for name in self.model.state_dict())
        if keep_class_token and not self._has_class_token:
            raise ValueError(f"{type(self.model).__name__} has no class token; set keep_class_token=false.")
        num_patches = (self.image_size // config.patch_size) ** 2
        self.patches_per_tile = num_patches + int(keep_class_token)
        self._num_tokens = num_patches + int(self._has_class_token) + self._num_registers
        self.taps = cut_to(tap, self.model)
        self.width = config.hidden_size * len(self.taps.layers)
        if norms_end and (tap != -1 or not hasattr(self.model, "post_layernorm")):
            raise ValueError(f"norms_end needs tap=-1, not {tap}, and a model with post_layernorm such as CLIP's.")
        self._norms_end = norms_end

    def wrapping_units(self) -> nn.ModuleList:
        return residual_blocks(self.model)

    def encode_tiles(self, pixels: Tensor) -> Tensor:
        options = {"interpolate_pos_encoding": True} if self._resizes else {}
        tokens = read_layers(self.model, self.taps, self.is_checkpointed, {"pixel_values": pixels, **options})
        if self._norms_end:
            tokens = self.model.post_layernorm(tokens)
        if tokens.shape[1] != self._num_tokens and not self.training:  # in training, some may be left out
            raise ValueError(
                f"{type(self.model).__name__} gave {tokens.shape[1]} tokens, {self._num_tokens} were expected."
            )
        patches = tokens[:, int(self._has_class_token) + self._num_registers :]
        return torch.cat([tokens[:, :1], patches], dim=1) if self.keep_class_token else patches
