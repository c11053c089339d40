"""Gives each sample of a batch another sample's image: the control that shows whether a model looks at all."""

from dataclasses import replace
from itertools import accumulate

import torch

from vlmtrain.batch import Batch, VisualBatch


def swap_images(visual: VisualBatch) -> tuple[VisualBatch, list[int]]:
    """Sample i gets the images of sample i - 1, the first those of the last; and of whom each row now has them.

    The token rows stay as they are, hence all samples must take the same room in the text.  ValueError otherwise.
    """
    tiles_of_sample = _tiles_of_samples(visual)
    if any(tiles != tiles_of_sample[0] for tiles in tiles_of_sample):
        raise ValueError(
            "Images can be swapped only between samples with equally many images and tiles, but this batch has "
            f"{sorted({tuple(tiles) for tiles in tiles_of_sample})} tiles per sample. "
            "Turn the control off for this data."
        )
    num_samples = len(tiles_of_sample)
    lengths = [sum(tiles) for tiles in tiles_of_sample]
    starts = [0, *accumulate(lengths)]
    giver = [(row - 1) % num_samples for row in range(num_samples)]
    order = [tile for row in giver for tile in range(starts[row], starts[row + 1])]
    pixels = visual.pixels[torch.tensor(order, dtype=torch.long, device=visual.pixels.device)]
    sizes = None if visual.sizes is None else [visual.sizes[tile] for tile in order]
    return replace(visual, pixels=pixels, sizes=sizes), giver


def swap_batch_images(batch: Batch) -> Batch:
    """`batch` with every sample's images replaced by its neighbour's."""
    return replace(batch, visual=swap_images(batch.visual)[0])


def _tiles_of_samples(visual: VisualBatch) -> list[list[int]]:
    ends = list(accumulate(visual.items_per_sample))
    return [visual.tiles_per_item[end - items : end] for items, end in zip(visual.items_per_sample, ends, strict=True)]
