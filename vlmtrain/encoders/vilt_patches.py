"""Raw patches as ViLT takes them (Kim et al. 2021, sections 3.1 and 4.1): a ViT's embedding, and none of its blocks."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vlmtrain.batch import VisualBatch, VisualFeatures
from vlmtrain.encoders.flexible import CutPatches, FlexibleEncoder
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.encoders.vit_files import pretrained
from vlmtrain.nn.autocast import in_own_precision
from vlmtrain.nn.initial_std import initial_std
from vlmtrain.nn.pretrained import builds_without_weights
from vlmtrain.nn.tile_sizes import ShorterSide, TileSizes

HALF = (0.5, 0.5, 0.5)


class ViltPatches(FlexibleEncoder):
    """A class token, and a projection of each patch plus the vector of its place.

    Places are those of a square of `image_size`, and are interpolated for tiles of other proportions, as in ViLT; the
    paper's random choice of 200 patches of large images is not made, `longest` bounds them instead.

    Args:
        image_size: what the shorter side of an image becomes, and the side of the square that positions are learned on.
        patch_size: of a patch in pixels.
        width: of the vectors.
        longest: the most that the longer side may be; None: images become squares.
        vit: folder of a ViT of this patch size and width to start from, as published; its positions are interpolated
            where it was trained on another size.  None: random weights.
    """

    def __init__(
        self, image_size: int, patch_size: int, width: int, longest: int | None = None, vit: str | None = None
    ) -> None:
        super().__init__(HALF, HALF)
        if image_size % patch_size or (longest or image_size) < image_size:
            raise ValueError(
                f"image_size {image_size} must be a multiple of patch_size {patch_size}, "
                f"and longest ({longest}) must not be less."
            )
        self.image_size, self.patch_size, self.width = image_size, patch_size, width
        self.longest, self.keep_class_token = longest or image_size, True
        self.side = image_size // patch_size
        self.patches_per_tile = 1 + self.side * (self.longest // patch_size)
        self.project = nn.Linear(3 * patch_size**2, width)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1 + self.side**2, width))
        nn.init.trunc_normal_(self.project.weight, std=initial_std(self.project.in_features))
        nn.init.zeros_(self.project.bias)
        nn.init.trunc_normal_(self.positions, std=0.02)

        if vit is not None:
            self.source = vit
        if vit is not None and not builds_without_weights():
            self._start_from(pretrained(vit, image_size=image_size), vit)

    def _start_from(self, vit: VisionTransformer, folder: str) -> None:
        if (vit.patch_size, vit.width) != (self.patch_size, self.width) or not isinstance(
            vit.patch_projection, nn.Conv2d
        ):
            raise ValueError(
                f"the ViT in {folder} has patches of {vit.patch_size} px and width {vit.width}, ViltPatches "
                f"{self.patch_size} and {self.width}; give it the ViT's sizes, or another ViT with linear patches."
            )
        with torch.no_grad():
            kernel = rearrange(vit.patch_projection.weight, "w colour rows columns -> w (rows columns colour)")
            self.project.weight.copy_(kernel)
            self.project.bias.copy_(torch.as_tensor(vit.patch_projection.bias))
            self.class_token.copy_(vit.class_token)
            self.positions.copy_(vit.positions.get_parameter("vectors"))
        self.pixel_mean.copy_(vit.pixel_mean)
        self.pixel_std.copy_(vit.pixel_std)

    def tile_sizes(self) -> TileSizes:
        return ShorterSide(self.patch_size, self.image_size, self.longest)

    def forward(self, visual: VisualBatch) -> VisualFeatures:
        if not len(visual.pixels):
            return self.see_nothing(visual)
        features = super().forward(visual)
        with in_own_precision(visual.pixels.device, self.dtype):
            first = (self.class_token + self.positions[0]).expand(len(features.patches), -1, -1)
            patches = torch.cat([first, features.patches], dim=1)
        is_alike = len(set(visual.tile_sizes)) == 1  # then nothing is padded
        mask = None if is_alike or features.patch_mask is None else F.pad(features.patch_mask, (1, 0), value=True)
        return VisualFeatures(patches, visual.tiles_per_item, visual.items_per_sample, mask)

    def encode_patches(self, cut: CutPatches) -> Tensor:
        tables = {grid: self._places(grid) for grid in sorted(set(cut.grids))}
        length = cut.values.shape[1]
        places = [F.pad(tables[grid], (0, 0, 0, length - len(tables[grid]))) for grid in cut.grids]
        return self.project(cut.values) + torch.stack(places)

    def _places(self, grid: tuple[int, int]) -> Tensor:
        """[rows * columns, W]"""
        if grid == (self.side, self.side):
            return self.positions[1:]
        square = rearrange(self.positions[1:], "(rows columns) w -> 1 w rows columns", rows=self.side)
        stretched = F.interpolate(square, grid, mode="bilinear", align_corners=True)
        return rearrange(stretched, "1 w rows columns -> (rows columns) w")
