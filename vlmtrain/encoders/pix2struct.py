"""The image encoder of Pix2Struct (Lee et al. 2022, section 2), which ScreenAI's patching follows."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Pix2StructForConditionalGeneration, Pix2StructVisionModel

from vlmtrain.encoders.flexible import CutPatches, FlexibleEncoder
from vlmtrain.encoders.hugging_face_loading import cut_to, find_vision_config, read_layers
from vlmtrain.encoders.taps import Tap
from vlmtrain.nn.checkpointing import Checkpointable
from vlmtrain.nn.pretrained import builds_without_weights, is_local
from vlmtrain.nn.tile_sizes import WholePatches, pix2struct_grid

ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


class Pix2StructEncoder(Checkpointable, FlexibleEncoder):
    """A vision transformer over patches of any grid, each told its row and column.

    Every tile is normalised by its own mean and deviation, padding left out.

    Args:
        source: folder or hub name of a whole Pix2Struct model; None makes random weights.
        architecture: fields of the vision model's config.json, `model_type` among them.  Needed without `source`;
            with it, they stand for it on the meta device, where nothing is loaded.
        max_patches: budget of a tile.
        tap: which layer's output; -1 is the last with its norm.  Layers that nobody reads are cut off.
        revision: of `source` on the hub.
    """

    def __init__(
        self,
        source: str | None = None,
        architecture: dict[str, Any] | None = None,
        max_patches: int = 2048,
        tap: Tap = -1,
        revision: str | None = None,
    ) -> None:
        config = find_vision_config(source, architecture, revision)
        super().__init__(ZERO, ONE)
        self.source = source or "random"
        self.model = _load(source, config, revision)
        # rows and columns travel in the same tensor as the pixels and would not survive being rounded to bf16
        self.model.embeddings.patch_projection.register_forward_pre_hook(_in_precision_of_weights)
        if not 0 < max_patches < config.seq_len:
            raise ValueError(f"max_patches {max_patches}: this model knows 1 to {config.seq_len - 1} rows and columns.")
        self.patch_size = math.isqrt(config.patch_embed_hidden_size // 3)
        self.patches_per_tile = max_patches
        self.image_size = self.patch_size * math.isqrt(max_patches)
        self.taps = cut_to(tap, self.model)
        self.width = config.hidden_size * len(self.taps.layers)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Not yet: what is padding is known only when the patches are cut."""
        return pixels.float()

    def tile_sizes(self) -> WholePatches:
        return WholePatches(self.patch_size, self.patches_per_tile, pix2struct_grid)

    def encode_patches(self, cut: CutPatches) -> Tensor:
        ids = torch.stack([cut.rows, cut.columns], dim=-1) + 1  # 0 stands for padding
        values = torch.cat([ids.float(), standardised(cut)], dim=-1) * cut.mask.unsqueeze(-1)
        inputs = {"flattened_patches": values, "attention_mask": cut.mask}
        return read_layers(self.model, self.taps, self.is_checkpointed, inputs)


def standardised(cut: CutPatches) -> Tensor:
    """Values less the mean of their tile, over its deviation; what stands on padding does not matter."""
    values, real = cut.values.float(), cut.mask.unsqueeze(-1)
    counts = cut.mask.sum(dim=1).view(-1, 1, 1) * values.shape[-1]
    mean = values.sum(dim=(1, 2), keepdim=True) / counts
    squares = ((values - mean) * real).square().sum(dim=(1, 2), keepdim=True)
    deviation = (squares / (counts - 1)).sqrt()
    return (values - mean) / torch.maximum(deviation, counts**-0.5)


def _load(source: str | None, config: Any, revision: str | None) -> Pix2StructVisionModel:
    if source is None or builds_without_weights():
        return Pix2StructVisionModel(config)
    whole = Pix2StructForConditionalGeneration.from_pretrained(
        source, revision=revision, local_files_only=is_local(source), trust_remote_code=False, dtype=torch.float32
    )
    return whole.encoder


def _in_precision_of_weights(module: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
    return (given[0].to(next(module.parameters()).dtype),)
