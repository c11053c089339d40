"""Two towers that meet only in the loss."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import TextBatch, VisualBatch, VisualFeatures
from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.language_models.text_encoder import TextEncoder
from vlmtrain.layout import Layout
from vlmtrain.models.encode_images import encode_images
from vlmtrain.nn.pooling import ClassToken, Pooling
from vlmtrain.nn.projections import Plain
from vlmtrain.nn.temperature import set_back_scale

MAX_SIMILARITY_SCALE = 100.0  # CLIP, section 2.5: larger ones make training unstable


class DualEncoder(nn.Module):
    """CLIP: image and text vectors of one space.  EmbedsBoth.

    Args:
        encoder: the image tower; frozen (LiT), it runs without gradient.
        text_encoder: the text tower, which pools by itself.
        embedding_width: E.
        temperature: of the similarities at the start; `trainable: {log_scale: null}` keeps it there.
        pooling: how the image tower's states become one vector.
        visual_projection: from the image tower's width to E.
        text_projection: from the text tower's.
        max_scale: the scale, 1 / temperature, is not learned beyond it; None: as far as it goes (SigLIP).
    """

    def __init__(
        self,
        encoder: VisionEncoder,
        text_encoder: TextEncoder,
        embedding_width: int,
        temperature: float = 0.07,
        pooling: Callable[..., Pooling] = ClassToken,
        visual_projection: Callable[[int, int], nn.Module] = Plain,
        text_projection: Callable[[int, int], nn.Module] = Plain,
        max_scale: float | None = MAX_SIMILARITY_SCALE,
    ) -> None:
        super().__init__()
        if temperature <= 0 or (max_scale is not None and 1 / temperature > max_scale):
            raise ValueError(
                f"temperature {temperature} is a scale of {1 / temperature if temperature else math.inf:g}; give one "
                f"above 0, with a scale of at most max_scale {max_scale}."
            )
        self.embedding_width = embedding_width
        self.encoder = encoder
        self.text_encoder = text_encoder
        self.pooling = pooling(encoder.width, encoder.patches_per_tile)
        if self.pooling.needs_class_token and not getattr(encoder, "keep_class_token", False):
            raise ValueError(
                f"{type(self.pooling).__name__} reads a class token, and this {type(encoder).__name__} gives none; "
                "choose another pooling, or keep_class_token=true where the encoder has one."
            )
        self.visual_projection = visual_projection(encoder.width, embedding_width)
        self.text_projection = text_projection(text_encoder.width, embedding_width)
        self.max_scale = max_scale
        self.log_scale = nn.Parameter(torch.tensor(1 / temperature).log())

    def layout(self) -> Layout:
        return self.text_encoder.layout()

    def placeholders_per_item(self, tiles: int) -> int:
        return 0

    def encode(self, visual: VisualBatch) -> VisualFeatures:
        return encode_images(self.encoder, visual)

    def embed_visual(self, visual: VisualFeatures) -> Tensor:
        return F.normalize(self.project_visual(visual).float(), dim=-1).unsqueeze(1)

    def project_visual(self, visual: VisualFeatures) -> Tensor:
        """The vectors of the images [B, E] as they are before they get unit length."""
        if len(visual.patches) != len(visual.items_per_sample):
            raise ValueError(
                f"A dual encoder reads one tile per sample; this batch has {len(visual.patches)} tiles "
                f"for {len(visual.items_per_sample)} samples."
            )
        pooled = self.pooling(visual.patches, visual.patch_mask)
        projected: Tensor = self.visual_projection(pooled)
        return projected

    def embed_text(self, text: TextBatch) -> Tensor:
        return F.normalize(self.text_projection(self.text_encoder(text)).float(), dim=-1)

    def similarity_scale(self) -> Tensor:
        """The scale, within `max_scale`."""
        if self.max_scale is None:
            return self.log_scale.exp()
        return set_back_scale(self.log_scale, self.max_scale)
