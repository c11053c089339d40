"""Some samples of a batch, with their rows of text and their tiles."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TypeVar

import torch
from torch import Tensor

from vlmtrain.batch import IGNORED_TARGET, Batch, TextBatch, VisualBatch, VisualFeatures

Features = TypeVar("Features", bound=VisualFeatures)


def select_samples(batch: Batch, samples: Sequence[int]) -> Batch:
    """The samples of these indices, in that order."""
    return replace(
        batch,
        visual=select_visual(batch.visual, samples),
        text=select_rows(batch.text, samples),
        sample_ids=[batch.sample_ids[sample] for sample in samples] if batch.sample_ids else [],
        origins=[batch.origins[sample] for sample in samples] if batch.origins else [],
        weights=[batch.weights[sample] for sample in samples] if batch.weights else [],
    )


def select_rows(text: TextBatch, rows: Sequence[int] | Tensor) -> TextBatch:
    """The rows of a text batch, in that order and as often as they are named; asks the device how many placeholders
    they hold, and how many targets where the layout did not say of each row."""
    wanted = rows.tolist() if isinstance(rows, Tensor) else list(rows)
    where = torch.as_tensor(wanted, dtype=torch.long, device=text.input_ids.device)
    targets = None if text.targets is None else text.targets[where]
    visual_mask = text.visual_mask[where]
    supervised: list[int] = []
    if text.supervised_per_sample:
        supervised = [text.supervised_per_sample[row] for row in wanted]
    elif targets is not None:
        supervised = (targets != IGNORED_TARGET).sum(dim=1).tolist()
    return TextBatch(
        input_ids=text.input_ids[where],
        attention_mask=text.attention_mask[where],
        visual_mask=visual_mask,
        targets=targets,
        placeholders=int(visual_mask.sum()) if text.placeholders else 0,
        supervised=sum(supervised),
        supervised_per_sample=supervised,
        instruction=None if text.instruction is None else select_rows(text.instruction, wanted),
        masked=None if text.masked is None else select_rows(text.masked, wanted),
    )


def select_visual(visual: VisualBatch, samples: Sequence[int]) -> VisualBatch:
    """The pixels of these samples, in that order and as often as they are named."""
    items, tiles = _places(visual.items_per_sample, visual.tiles_per_item, samples)
    return VisualBatch(
        visual.pixels[torch.tensor(tiles, dtype=torch.long, device=visual.pixels.device)],
        [visual.tiles_per_item[item] for item in items],
        [visual.items_per_sample[sample] for sample in samples],
        None if visual.sizes is None else [visual.sizes[tile] for tile in tiles],
    )


def select_features(features: Features, samples: Sequence[int]) -> Features:
    """What an encoder made of these samples, in that order."""
    items, tiles = _places(features.items_per_sample, features.tiles_per_item, samples)
    where = torch.tensor(tiles, dtype=torch.long, device=features.patches.device)
    return replace(
        features,
        patches=features.patches[where],
        tiles_per_item=[features.tiles_per_item[item] for item in items],
        items_per_sample=[features.items_per_sample[sample] for sample in samples],
        patch_mask=None if features.patch_mask is None else features.patch_mask[where],
    )


def _places(
    items_per_sample: Sequence[int], tiles_per_item: Sequence[int], samples: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Indices of the items of `samples`, and of the tiles of those items."""
    items_of, tiles_of = _indices(items_per_sample), _indices(tiles_per_item)
    items = [item for sample in samples for item in items_of[sample]]
    return items, [tile for item in items for tile in tiles_of[item]]


def _indices(counts: Sequence[int]) -> list[range]:
    """Counts of things that stand one after the other -> the indices of each."""
    return [range(end - count, end) for count, end in zip(counts, accumulate(counts), strict=True)]
