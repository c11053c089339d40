"""Two towers that meet only in the loss."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import TextBatch, VisualBatch, VisualFeatures
from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.language_models.text_encoder import TextEncoder
from vlmtrain.layout import Layout
from vlmtrain.nn.pooling import ClassToken, Pooling

MAX_SIMILARITY_SCALE = 100.0  # CLIP, section 2.5: larger ones make training unstable


class DualEncoder(nn.Module):
    """CLIP: image and text vectors of one space.  EmbedsBoth.

    `pooling` is how the image tower's states become one vector; the text tower brings its own.
    """

    def __init__(
        self,
        encoder: VisionEncoder,
        text_encoder: TextEncoder,
        embedding_width: int,
        temperature: float = 0.07,
        pooling: Callable[[], Pooling] = ClassToken,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.text_encoder = text_encoder
        self.pooling = pooling()
        self.visual_projection = nn.Linear(encoder.width, embedding_width, bias=False)
        self.text_projection = nn.Linear(text_encoder.width, embedding_width, bias=False)
        nn.init.normal_(self.visual_projection.weight, std=encoder.width**-0.5)
        nn.init.normal_(self.text_projection.weight, std=text_encoder.width**-0.5)
        self.log_scale = nn.Parameter(torch.tensor(1 / temperature).log())

    def layout(self) -> Layout:
        return self.text_encoder.layout()

    def placeholders_per_item(self, tiles: int) -> int:
        return 0

    def encode(self, visual: VisualBatch) -> VisualFeatures:
        return self.encoder(visual)

    def embed_visual(self, visual: VisualFeatures) -> Tensor:
        if len(visual.patches) != len(visual.items_per_sample):
            raise ValueError(
                f"A dual encoder reads one tile per sample; this batch has {len(visual.patches)} tiles "
                f"for {len(visual.items_per_sample)} samples."
            )
        return F.normalize(self.visual_projection(self.pooling(visual.patches)), dim=-1).unsqueeze(1)

    def embed_text(self, text: TextBatch) -> Tensor:
        return F.normalize(self.text_projection(self.text_encoder(text)), dim=-1)

    def similarity_scale(self) -> Tensor:
        return self.log_scale.exp().clamp(max=MAX_SIMILARITY_SCALE)
