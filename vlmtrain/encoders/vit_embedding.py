"""The embedding of a saved ViT and none of its blocks: patches for a transformer that starts from these blocks."""

from torch import Tensor, nn

from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.encoders.vit_files import pretrained


class VitEmbedding(VisionEncoder):
    """Patches as the first block of a ViT reads them: projected by its stem, whatever that is, with the vector of their
    place, and the class token at index 0.

    With linear patches this is what `vilt_patches.ViltPatches` starts from; a ViT of convolutional stem has no other
    way into a model of one transformer.

    Args:
        source: folder of a saved ViT (`vit_files.pretrained`).
    """

    def __init__(self, source: str) -> None:
        vit = pretrained(source)
        super().__init__((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        vit.blocks, vit.norm = nn.ModuleList(), nn.Identity()
        self.vit, self.source = vit, source
        self.width, self.patches_per_tile, self.image_size = vit.width, vit.patches_per_tile, vit.image_size
        self.keep_class_token = True

    def normalise(self, pixels: Tensor) -> Tensor:
        return self.vit.normalise(pixels)

    def encode_tiles(self, pixels: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, 1 + P, W]"""
        tokens, _ = self.vit.embed_patches(pixels)
        return tokens
