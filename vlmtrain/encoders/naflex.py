"""SigLIP 2 NaFlex: a vision transformer over patches of any grid (Tschannen et al. 2025, section 3.2)."""

import math
from typing import Any

import torch
from torch import Tensor

from vlmtrain.encoders.flexible import CutPatches, FlexibleEncoder
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
from vlmtrain.nn.tile_sizes import WholePatches, naflex_grid


class NaFlexEncoder(Checkpointable, FlexibleEncoder):
    """Positions are interpolated to the grid of each tile.

    Args:
        source: folder or hub name of a SigLIP 2 model with flexible patches; None makes random weights.
        architecture: fields of the vision model's config.json, `model_type` among them.  Needed without `source`;
            with it, they stand for it on the meta device, where nothing is loaded.
        max_patches: budget of a tile.
        tap: which layer's output; -1 is the last with its norm.  Layers that nobody reads are cut off.
        revision: of `source` on the hub.
        precision: of the weights.
    """

    def __init__(
        self,
        source: str | None = None,
        architecture: dict[str, Any] | None = None,
        max_patches: int = 256,
        tap: Tap = -1,
        revision: str | None = None,
        precision: str = "fp32",
    ) -> None:
        config = find_vision_config(source, architecture, revision)
        super().__init__(*find_normalisation(source, revision))
        if max_patches < 1:
            raise ValueError(f"max_patches {max_patches}: a tile has at least one patch.")
        self.source = source or "random"
        self.model = load_vision_model(source, config, revision, PRECISIONS[precision])
        self.patch_size: int = config.patch_size
        self.patches_per_tile = max_patches
        self.image_size = self.patch_size * math.isqrt(max_patches)
        self.taps = cut_to(tap, self.model)
        self.width = config.hidden_size * len(self.taps.layers)

    def tile_sizes(self) -> WholePatches:
        return WholePatches(self.patch_size, self.patches_per_tile, naflex_grid)

    def encode_patches(self, cut: CutPatches) -> Tensor:
        inputs = {
            "pixel_values": cut.values,
            "pixel_attention_mask": cut.mask,
            "spatial_shapes": torch.tensor(
                cut.grids, device="cpu"
            ),  # read as numbers: on a device it would be waited for
        }
        return read_layers(self.model, self.taps, self.is_checkpointed, inputs)
