"""Puts batches together, so that groups of candidates do not depend on the batch size."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vlmtrain.batch import IGNORED_TARGET, Batch, TextBatch, VisualBatch
from vlmtrain.nn.canvas import share_canvas


def join_batches(batches: Sequence[Batch]) -> Batch:
    """All samples of `batches` in one; token rows are padded on the right to the longest."""
    if len(batches) == 1:
        return batches[0]
    pixels, sizes = share_canvas(
        [batch.visual.pixels for batch in batches], [size for batch in batches for size in batch.visual.tile_sizes]
    )
    return Batch(
        visual=VisualBatch(
            pixels,
            [tiles for batch in batches for tiles in batch.visual.tiles_per_item],
            [items for batch in batches for items in batch.visual.items_per_sample],
            sizes,
        ),
        text=join_texts([batch.text for batch in batches]),
        seed=batches[0].seed,
        sample_ids=[name for batch in batches for name in batch.sample_ids],
        origins=[origin for batch in batches for origin in batch.origins],
        weights=_join_weights(batches),
    )


def join_texts(texts: Sequence[TextBatch]) -> TextBatch:
    """All rows of `texts` in one, padded on the right to the longest; padding is False in every mask."""
    targets = [text.targets for text in texts if text.targets is not None]
    instructions = [text.instruction for text in texts if text.instruction is not None]
    masked = [text.masked for text in texts if text.masked is not None]
    return TextBatch(
        input_ids=_stack([text.input_ids for text in texts], 0),
        attention_mask=_stack([text.attention_mask for text in texts], False),
        visual_mask=_stack([text.visual_mask for text in texts], False),
        targets=_stack(targets, IGNORED_TARGET) if len(targets) == len(texts) else None,
        placeholders=sum(text.placeholders for text in texts),
        supervised=sum(text.supervised for text in texts),
        supervised_per_sample=[count for text in texts for count in text.supervised_per_sample],
        instruction=join_texts(instructions) if len(instructions) == len(texts) else None,
        masked=join_texts(masked) if len(masked) == len(texts) else None,
    )


def _join_weights(batches: Sequence[Batch]) -> list[float]:
    if not any(batch.weights for batch in batches):
        return []
    return [weight for batch in batches for weight in batch.weights or [1.0] * len(batch)]


def _stack(rows: Sequence[Tensor], padding: int | bool) -> Tensor:
    longest = max(block.shape[1] for block in rows)
    padded = [torch.nn.functional.pad(block, (0, longest - block.shape[1]), value=padding) for block in rows]
    return torch.cat(padded)
