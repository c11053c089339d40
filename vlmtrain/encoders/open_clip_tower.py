"""A whole image tower of open_clip, with its own pooling and projection: vision transformer, ResNet or timm's."""

from typing import Any

from torch import Tensor, nn

from vlmtrain.encoders.base import VisionEncoder


class OpenClipTower(VisionEncoder):
    """One vector per image, as open_clip makes it for its loss.  For single patches there is OpenClipEncoder.

    Args:
        visual: `visual` of an open_clip model.
        width: of the space that it projects to.
        source: where it comes from.
        architecture: `model_cfg` of the whole open_clip model, to be saved with it again.
    """

    keep_class_token = True  # the vector stands where others have their class token

    def __init__(self, visual: nn.Module, width: int, source: str, architecture: dict[str, Any]) -> None:
        settings: dict[str, Any] = visual.preprocess_cfg  # type: ignore[assignment]
        super().__init__(tuple(settings["mean"]), tuple(settings["std"]))
        size: Any = visual.image_size
        self.image_size = size if isinstance(size, int) else size[0]
        self.model = visual
        self.width, self.patches_per_tile = width, 1
        self.source = source
        self.architecture = architecture

    def encode_tiles(self, pixels: Tensor) -> Tensor:
        vectors: Tensor = self.model(pixels)
        return vectors.unsqueeze(1)

    def enable_gradient_checkpointing(self) -> None:
        """Keep only the input of each block for the backward pass."""
        self.model.set_grad_checkpointing(True)  # type: ignore[operator]
