"""Backbones of timm behind the VisionEncoder seam, EVA-ViT-g of BLIP-2 among them."""

import math
from pathlib import Path

import timm
import torch
from einops import rearrange
from torch import Tensor

from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.encoders.taps import Tap, choose_taps
from vlmtrain.nn.pretrained import builds_without_weights

AXES = {"NCHW": "n w rows columns", "NHWC": "n rows columns w"}  # of the last feature map, as timm names them


class TimmEncoder(VisionEncoder):
    """A timm model by name: vision transformers at any layer, convolutional networks at their last feature map.

    Args:
        name: of the model in timm, for example `eva_giant_patch14_224.clip_ft_in1k`.
        is_pretrained: whether timm loads its published weights (from the hub).
        checkpoint: a file of weights instead, in timm's layout.
        tap: which layer's output; -1 is the last with its final norm, -2 the one before without norm; of several the
            outputs stand side by side.  Layers that nobody reads are cut off.  Convolutional networks know only -1.
        keep_class_token: whether token 0 is the class token.  Registers are always dropped.
        image_size: side of the tiles in pixels, if not that of pretraining.
        precision: of the weights.
    """

    def __init__(
        self,
        name: str,
        is_pretrained: bool = False,
        checkpoint: str | None = None,
        tap: Tap = -1,
        keep_class_token: bool = True,
        image_size: int | None = None,
        precision: str = "fp32",
    ) -> None:
        if is_pretrained and checkpoint is not None:
            raise ValueError("is_pretrained and checkpoint exclude each other: both are weights.")
        if checkpoint is not None and not Path(checkpoint).is_file():
            raise ValueError(f"checkpoint {checkpoint}: no such file.")
        settings = timm.get_pretrained_cfg(name)
        if settings is None:
            raise ValueError(
                f"timm has no model {name}; try one of {', '.join(timm.list_models(f'*{name[:8]}*')[:5])}."
            )
        super().__init__(tuple(settings.mean), tuple(settings.std))
        size = {} if image_size is None or settings.fixed_input_size is False else {"img_size": image_size}
        self.model = timm.create_model(
            name,
            pretrained=(is_pretrained or checkpoint is not None) and not builds_without_weights(),
            pretrained_cfg_overlay=None if checkpoint is None else {"file": checkpoint},  # resizes positions to `size`
            num_classes=0,
            **size,
        ).to({"fp32": torch.float32, "bf16": torch.bfloat16}[precision])
        self.source = checkpoint or (name if is_pretrained else "random")
        self.width = self.model.num_features
        self.image_size = image_size or settings.input_size[-1]
        self.keep_class_token = keep_class_token
        self._is_transformer = hasattr(self.model, "blocks") and hasattr(self.model, "num_prefix_tokens")
        self._take_transformer(tap) if self._is_transformer else self._take_convolutional(name, tap)

    def _take_transformer(self, tap: Tap) -> None:
        if self.keep_class_token and not self.model.num_prefix_tokens:
            raise ValueError("This timm model has no class token; set keep_class_token=false.")
        self.taps = choose_taps(tap, len(self.model.blocks))
        self.width *= len(self.taps.layers)
        last = self.taps.num_blocks - 1
        self.model.prune_intermediate_layers([last], prune_norm=not self.taps.reads_end, prune_head=True)
        rows, columns = self.model.patch_embed.grid_size  # a hybrid cuts them from a smaller map
        self.patches_per_tile = rows * columns + int(self.keep_class_token)

    def _take_convolutional(self, model_name: str, tap: Tap) -> None:
        if tap != -1 or self.keep_class_token:
            raise ValueError(f"{model_name} is no vision transformer: it needs tap=-1 and keep_class_token=false.")
        for name in ("head", "fc", "classifier"):  # pools, and norms what is pooled; the map is read before
            if isinstance(getattr(self.model, name, None), torch.nn.Module):
                setattr(self.model, name, torch.nn.Identity())
        self._axes = AXES[getattr(self.model, "output_fmt", "NCHW")]
        self.patches_per_tile = math.ceil(self.image_size / self.model.feature_info[-1]["reduction"]) ** 2

    def first_block(self) -> torch.nn.Module:
        if not self._is_transformer:
            raise ValueError(f"{self.source} is no vision transformer: it has no blocks that read tokens.")
        block: torch.nn.Module = self.model.blocks[0]
        return block

    def enable_gradient_checkpointing(self) -> None:
        """Keep only the input of each block for the backward pass; timm's switch does not ask for the mode."""
        self.model.set_grad_checkpointing(True)

    def encode_tiles(self, pixels: Tensor) -> Tensor:
        if not self._is_transformer:
            return rearrange(self.model.forward_features(pixels), f"{self._axes} -> n (rows columns) w")
        layers = sorted(self.taps.layers)
        read = self.model.forward_intermediates(
            pixels,
            indices=[layer - 1 for layer in layers],
            stop_early=True,
            output_fmt="NLC",
            intermediates_only=True,
            return_prefix_tokens=self.keep_class_token,  # some models have none
        )
        states = {}
        for layer, found in zip(layers, read, strict=True):
            tokens = torch.cat([found[1][:, :1], found[0]], dim=1) if self.keep_class_token else found
            states[layer] = self.model.norm(tokens) if layer == self.taps.depth else tokens
        return self.taps.join(states)
