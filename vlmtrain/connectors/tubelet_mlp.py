"""What stands at one place in consecutive frames, side by side, through an MLP: a token tells what happens there.

Tubelets are ViViT's (Arnab et al. 2021, arXiv:2103.15691, section 3.2), there of pixels and before the encoder.
Qwen2-VL joins two frames so, and repeats an image to have two (Wang et al. 2024, arXiv:2409.12191, section 2.1).
"""

from dataclasses import replace

import torch
from torch import Tensor

from vlmtrain.batch import TextBatch, VisualFeatures, VisualTokens
from vlmtrain.connectors.pooled_mlp import PooledMLP


class TubeletMLP(PooledMLP):
    """Squares of patches, the same in each of `num_frames` frames, become one visual token; an image is its own sequel.

    The last frame of an item is repeated until there are whole tubelets.

    Args:
        encoder_width: W, of the patches.
        patches_per_tile: P, of a square grid; a class token is dropped.
        language_width: D of the language model.
        num_frames: of a tubelet.
        window: side of the squares, whose mean is taken.
        num_layers: linear layers, with GELU between them.
    """

    def __init__(
        self,
        encoder_width: int,
        patches_per_tile: int,
        language_width: int,
        num_frames: int = 2,
        window: int = 2,
        num_layers: int = 2,
    ) -> None:
        if num_frames < 1:
            raise ValueError(f"num_frames {num_frames}: a tubelet has at least one frame.")
        super().__init__(num_frames * encoder_width, patches_per_tile, language_width, window, num_layers)
        self.num_frames = num_frames

    def tokens_per_item(self, tiles: int) -> int:
        return self._tubelets(tiles) * self.tokens_per_tile

    def forward(self, features: VisualFeatures, text: TextBatch | None = None) -> VisualTokens:
        return super().forward(replace(features, patches=self.join_frames(features)), text)

    def join_frames(self, features: VisualFeatures) -> Tensor:
        """[N, P, W] -> [tubelets of all items, P, num_frames * W]"""
        chosen: list[int] = []
        first = 0
        for tiles in features.tiles_per_item:
            frames = self._tubelets(tiles) * self.num_frames
            chosen += [first + min(frame, tiles - 1) for frame in range(frames)]
            first += tiles
        frames_in_order = features.patches[torch.tensor(chosen, dtype=torch.long, device=features.patches.device)]
        return torch.cat([frames_in_order[place :: self.num_frames] for place in range(self.num_frames)], dim=-1)

    def _tubelets(self, tiles: int) -> int:
        return -(-tiles // self.num_frames)
