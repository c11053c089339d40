"""Pixels -> patches as models want them: no graph where nothing learns, one image a sample where they pair."""

import torch

from vlmtrain.batch import VisualBatch, VisualFeatures
from vlmtrain.encoders.base import VisionEncoder


def encode_images(encoder: VisionEncoder, visual: VisualBatch) -> VisualFeatures:
    """Without a graph where the encoder is frozen."""
    learns = any(parameter.requires_grad for parameter in encoder.parameters())
    with torch.set_grad_enabled(torch.is_grad_enabled() and learns):
        features: VisualFeatures = encoder(visual)
    return features


def encode_single_images(encoder: VisionEncoder, visual: VisualBatch, reader: str) -> VisualFeatures:
    """`encode_images`; ValueError that names `reader` where a sample has not exactly one image of one tile."""
    odd = [index for index, items in enumerate(visual.items_per_sample) if items != 1]
    if odd or any(tiles != 1 for tiles in visual.tiles_per_item):
        raise ValueError(
            f"{reader} takes one image of one tile per sample; got items per sample "
            f"{visual.items_per_sample} and tiles per item {visual.tiles_per_item}. Choose image-text pairs."
        )
    return encode_images(encoder, visual)
