"""How alike images and texts are: shared by the contrastive objective and the drawing of hard negatives."""

from typing import cast

import torch
from torch import Tensor, nn

from vlmtrain.models.capabilities import EmbedsBoth
from vlmtrain.objectives.base import Context

VISUAL, TEXT = "visual_embeddings", "text_embeddings"  # names in Everyone.embeddings and in Context.once


def embeddings(model: nn.Module, context: Context) -> tuple[Tensor, Tensor]:
    """Unit vectors of this micro-batch, made once for all objectives: images [B, Q, E], texts [B, E]."""
    embedder = cast(EmbedsBoth, model)
    images = context.once(VISUAL, lambda: embedder.embed_visual(context.features))
    texts = context.once(TEXT, lambda: embedder.embed_text(context.batch.text))
    return images, texts


def named_embeddings(model: nn.Module, context: Context) -> dict[str, Tensor]:
    """`embeddings` for a survey."""
    return dict(zip((VISUAL, TEXT), embeddings(model, context), strict=True))


def similarity(images: Tensor, texts: Tensor) -> Tensor:
    """Cosine of the best query: [B, Q, E], [C, E] -> [B, C], in fp32 whatever the autocast."""
    with torch.autocast(images.device.type, enabled=False):
        return torch.einsum("bqe,ce->bqc", images.float(), texts.float()).amax(dim=1)
