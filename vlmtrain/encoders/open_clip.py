"""Image towers of open_clip behind the VisionEncoder seam."""

import open_clip
import torch
from torch import Tensor

from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.encoders.taps import blocks_read
from vlmtrain.nn.pretrained import builds_without_weights


class OpenClipEncoder(VisionEncoder):
    """The image tower of an open_clip model: its own vision transformer, or one of timm inside it.

    Args:
        name: of the model in open_clip, for example `ViT-B-32` or `EVA02-B-16`; `local-dir:FOLDER` for a folder.
        checkpoint: a file, or a tag of open_clip's published weights (from the hub); None makes random weights.
        tap: which layer's output; -1 is the last with its final norm, -2 the one before without norm.  Layers that
            nobody reads are cut off.
        keep_class_token: whether token 0 is the class token.
        precision: of the weights.
    """

    def __init__(
        self,
        name: str,
        checkpoint: str | None = None,
        tap: int = -1,
        keep_class_token: bool = True,
        precision: str = "fp32",
    ) -> None:
        weights = None if builds_without_weights() else checkpoint
        clip = open_clip.create_model(name, pretrained=weights, device=torch.get_default_device())
        tower = clip.visual
        super().__init__(tuple(tower.preprocess_cfg["mean"]), tuple(tower.preprocess_cfg["std"]))
        layers = getattr(tower, "trunk", tower)  # timm's model, where the tower is one of timm
        if not hasattr(layers, "prune_intermediate_layers") or not hasattr(tower, "forward_intermediates"):
            raise ValueError(f"The image tower of open_clip's {name} is no vision transformer; choose one that is.")
        self.model = tower.to({"fp32": torch.float32, "bf16": torch.bfloat16}[precision])
        self.source = f"{name} {checkpoint}" if checkpoint else "random"
        self.keep_class_token = keep_class_token
        self.image_size = _side(tower.image_size)
        blocks = tower.transformer.resblocks if layers is tower else layers.blocks
        self._reads_end = tap == -1
        self._layer = blocks_read(tap, len(blocks)) - 1
        norm = next(module for module in blocks.modules() if isinstance(module, torch.nn.LayerNorm))
        self.width = int(norm.normalized_shape[0])
        patch_size = layers.patch_embed.patch_size if layers is not tower else tower.patch_size
        layers.prune_intermediate_layers([self._layer], prune_norm=not self._reads_end, prune_head=True)
        if layers is not tower:
            tower.head = torch.nn.Identity()  # pools and projects for the contrastive loss
        self.patches_per_tile = (self.image_size // _side(patch_size)) ** 2 + int(keep_class_token)

    def enable_gradient_checkpointing(self) -> None:
        """Keep only the input of each block for the backward pass; open_clip's switch does not ask for the mode."""
        self.model.set_grad_checkpointing(True)

    def encode_tiles(self, pixels: Tensor) -> Tensor:
        output = self.model.forward_intermediates(
            pixels,
            indices=[self._layer],
            stop_early=True,
            normalize_intermediates=self._reads_end,
            intermediates_only=True,
            output_fmt="NLC",
            output_extra_tokens=True,
        )
        patches = output["image_intermediates"][0]
        if not self.keep_class_token:
            return patches
        return torch.cat([output["image_intermediates_prefix"][0][:, :1], patches], dim=1)


def _side(size: int | tuple[int, int]) -> int:
    return size if isinstance(size, int) else size[0]
