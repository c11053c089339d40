"""Image towers of open_clip behind the VisionEncoder seam."""

import open_clip
import torch
from torch import Tensor

from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.encoders.taps import Tap, choose_taps
from vlmtrain.nn.pretrained import builds_without_weights


class OpenClipEncoder(VisionEncoder):
    """The image tower of an open_clip model: its own vision transformer, or one of timm inside it.

    Args:
        name: of the model in open_clip, for example `ViT-B-32` or `EVA02-B-16`; `local-dir:FOLDER` for a folder.
        checkpoint: a file, or a tag of open_clip's published weights (from the hub); None makes random weights.
        tap: which layer's output; -1 is the last with its final norm, -2 the one before without norm; of several the
            outputs stand side by side.  Layers that nobody reads are cut off.
        keep_class_token: whether token 0 is the class token.
        precision: of the weights.
    """

    def __init__(
        self,
        name: str,
        checkpoint: str | None = None,
        tap: Tap = -1,
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
        self.taps = choose_taps(tap, len(blocks))
        norm = next(module for module in blocks.modules() if isinstance(module, torch.nn.LayerNorm))
        self.width = int(norm.normalized_shape[0]) * len(self.taps.layers)
        patch_size = layers.patch_embed.patch_size if layers is not tower else tower.patch_size
        last = self.taps.num_blocks - 1
        layers.prune_intermediate_layers([last], prune_norm=not self.taps.reads_end, prune_head=True)
        if layers is not tower:
            tower.head = torch.nn.Identity()  # pools and projects for the contrastive loss
        self.patches_per_tile = (self.image_size // _side(patch_size)) ** 2 + int(keep_class_token)

    def enable_gradient_checkpointing(self) -> None:
        """Keep only the input of each block for the backward pass; open_clip's switch does not ask for the mode."""
        self.model.set_grad_checkpointing(True)

    def _final_norm(self) -> torch.nn.Module:
        trunk = getattr(self.model, "trunk", None)
        return self.model.ln_post if trunk is None else trunk.norm

    def encode_tiles(self, pixels: Tensor) -> Tensor:
        layers = sorted(self.taps.layers)
        output = self.model.forward_intermediates(
            pixels,
            indices=[layer - 1 for layer in layers],
            stop_early=True,
            intermediates_only=True,
            output_fmt="NLC",
            output_extra_tokens=True,
        )
        states = {}
        read = zip(layers, output["image_intermediates"], output["image_intermediates_prefix"], strict=True)
        for layer, patches, prefix in read:
            tokens = torch.cat([prefix[:, :1], patches], dim=1) if self.keep_class_token else patches
            states[layer] = self._final_norm()(tokens) if layer == self.taps.depth else tokens
        return self.taps.join(states)


def _side(size: int | tuple[int, int]) -> int:
    return size if isinstance(size, int) else size[0]
