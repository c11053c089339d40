"""Some samples of a batch: what they had in it, they have alone, and nothing of anybody else."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmtrain.batch import IGNORED_TARGET, Batch, TextBatch, VisualBatch, VisualFeatures
from vlmtrain.selection import select_features, select_rows, select_samples

STRUCTURES = st.lists(st.lists(st.integers(1, 3), max_size=3), min_size=1, max_size=6)


def batch_of(structure: list[list[int]]) -> Batch:
    """Samples with these tiles per item; every tile and every row is told by its number."""
    tiles = [count for sample in structure for count in sample]
    pixels = torch.arange(sum(tiles)).view(-1, 1, 1, 1).repeat(1, 3, 2, 2)
    ids = torch.arange(len(structure)).view(-1, 1).repeat(1, 4)
    mask = torch.ones_like(ids, dtype=torch.bool)
    blank = torch.arange(4) < (torch.arange(len(structure)) % 3).unsqueeze(1)
    per_sample = [row % 4 for row in range(len(structure))]
    targets = ids.where(torch.arange(4) < torch.tensor(per_sample).unsqueeze(1), IGNORED_TARGET)
    text = TextBatch(ids, mask, blank, targets, int(blank.sum()), sum(per_sample), supervised_per_sample=per_sample)
    text = replace(text, masked=replace(text, input_ids=ids + 100), instruction=TextBatch(ids + 200, mask, ~mask))
    names = [f"n{row}" for row in range(len(structure))]
    sizes = [(1 + tile % 2, 2) for tile in range(sum(tiles))]
    visual = VisualBatch(pixels, tiles, [len(sample) for sample in structure], sizes)
    return Batch(visual, text, 7, names, [name[-1:] for name in names], [1.0 + row for row in range(len(names))])


@given(STRUCTURES, st.data())
@settings(deadline=None)
def test_samples_keep_what_is_theirs(structure: list[list[int]], data: st.DataObject) -> None:
    batch = batch_of(structure)
    samples = data.draw(st.lists(st.integers(0, len(structure) - 1), max_size=8))
    part = select_samples(batch, samples)
    assert len(part) == len(samples) and part.seed == 7
    assert part.text.input_ids[:, 0].tolist() == samples
    assert part.text.masked is not None and part.text.masked.input_ids[:, 0].tolist() == [100 + s for s in samples]
    assert part.text.instruction is not None
    assert part.text.instruction.input_ids[:, 0].tolist() == [200 + sample for sample in samples]
    assert part.sample_ids == [f"n{sample}" for sample in samples] and part.weights == [1.0 + s for s in samples]
    assert part.origins == [batch.origins[sample] for sample in samples]
    assert part.text.supervised_per_sample == [sample % 4 for sample in samples]
    assert part.text.supervised == int((part.text.targets != IGNORED_TARGET).sum())
    assert part.text.placeholders == int(part.text.visual_mask.sum())
    starts = [sum(map(sum, structure[:sample])) for sample in range(len(structure))]
    tiles = [starts[sample] + tile for sample in samples for tile in range(sum(structure[sample]))]
    assert part.visual.pixels[:, 0, 0, 0].tolist() == tiles
    assert part.visual.sizes == [(1 + tile % 2, 2) for tile in tiles]
    assert part.visual.tiles_per_item == [count for sample in samples for count in structure[sample]]
    assert part.visual.items_per_sample == [len(structure[sample]) for sample in samples]
    patches = batch.visual.pixels[:, 0].float()
    features = VisualFeatures(
        patches, batch.visual.tiles_per_item, batch.visual.items_per_sample, patches[:, :, 0] % 2 == 0
    )
    chosen = select_features(features, samples)
    assert chosen.patches[:, 0, 0].tolist() == tiles and chosen.tiles_per_item == part.visual.tiles_per_item
    assert chosen.patch_mask is not None and chosen.patch_mask[:, 0].tolist() == [tile % 2 == 0 for tile in tiles]


def test_features_stay_what_they_are_and_keep_their_gradient() -> None:
    from vlmtrain.models.reused_features import ReusedFeatures

    patches = torch.ones(3, 2, 4, requires_grad=True)
    chosen = select_features(ReusedFeatures(patches, [1, 1, 1], [1, 1, 1]), [2])
    assert isinstance(chosen, ReusedFeatures) and chosen.patch_mask is None
    chosen.patches.sum().backward()
    assert patches.grad is not None and patches.grad[:, 0, 0].tolist() == [0, 0, 1]


def test_rows_that_nobody_counted_are_counted() -> None:
    ids = torch.tensor([[1, 2], [3, 4]])
    text = TextBatch(ids, ids > 0, ids > 9, torch.tensor([[1, 2], [3, IGNORED_TARGET]]), supervised=3)
    part = select_rows(text, torch.tensor([1, 1, 0]))
    assert part.supervised_per_sample == [1, 1, 2] and part.supervised == 4


def test_what_a_batch_does_not_have_its_part_has_not() -> None:
    ids = torch.ones(2, 1, dtype=torch.long)
    text = TextBatch(ids, ids > 0, ids > 9)
    part = select_samples(Batch(VisualBatch(torch.zeros(2, 3, 1, 1), [1, 1], [1, 1]), text), [1])
    assert (part.sample_ids, part.origins, part.weights, part.visual.sizes) == ([], [], [], None)
    assert part.text.targets is part.text.masked is part.text.instruction is None
    with pytest.raises(IndexError):
        select_samples(Batch(VisualBatch(torch.zeros(2, 3, 1, 1), [1, 1], [1, 1]), text), [2])
