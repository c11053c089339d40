"""Gives each sample of a batch another sample's images: the control that shows whether a model looks at all."""

from collections import defaultdict
from dataclasses import replace
from itertools import accumulate

from vlmtrain.batch import Batch, VisualBatch
from vlmtrain.selection import select_samples, select_visual


def swap_images(visual: VisualBatch) -> tuple[VisualBatch, list[int]]:
    """Each sample gets the images of the one before it that takes the same room; and of whom each row now has them.

    The token rows stay as they are, hence images move only between samples with equally many images and tiles, the
    first of which gets those of the last.  A sample that is alone in its room keeps its own and is its own giver.
    """
    tiles_of_sample = _tiles_of_samples(visual)
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row, tiles in enumerate(tiles_of_sample):
        alike[tiles].append(row)
    giver = list(range(len(tiles_of_sample)))
    for rows in alike.values():
        for place, row in enumerate(rows):
            giver[row] = rows[place - 1]
    return select_visual(visual, giver), giver


def swap_batch_images(batch: Batch) -> Batch | None:
    """`batch` with every sample's images replaced by another's, less those for which there is none; None if no row."""
    visual, givers = swap_images(batch.visual)
    swapped = replace(batch, visual=visual)
    rows = [row for row, giver in enumerate(givers) if giver != row]
    if not rows or len(rows) == len(batch):
        return swapped if rows else None
    return select_samples(swapped, rows)


def _tiles_of_samples(visual: VisualBatch) -> list[tuple[int, ...]]:
    ends = accumulate(visual.items_per_sample)
    return [
        tuple(visual.tiles_per_item[end - items : end])
        for items, end in zip(visual.items_per_sample, ends, strict=True)
    ]
