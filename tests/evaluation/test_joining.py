from dataclasses import replace
from itertools import accumulate

import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmtrain.batch import Batch, TextBatch, VisualBatch
from vlmtrain.evaluation.joining import join_batches
from vlmtrain.evaluation.swapping import swap_batch_images, swap_images
from vlmtrain.selection import select_samples


def make_batch(structure: list[list[int]], length: int, first: int) -> Batch:
    """Samples with the given tiles per item; every tile and token is a number of its own."""
    tiles = [count for sample in structure for count in sample]
    pixels = (first + torch.arange(sum(tiles))).view(-1, 1, 1, 1).repeat(1, 3, 2, 2)
    ids = first + torch.arange(len(structure) * length).view(len(structure), length)
    mask = torch.ones_like(ids, dtype=torch.bool)
    text = TextBatch(ids, mask, ~mask, ids.clone(), 0, ids.numel())
    names = [str(first + row) for row in range(len(structure))]
    return Batch(VisualBatch(pixels, tiles, [len(sample) for sample in structure]), text, sample_ids=names)


structures = st.lists(st.lists(st.integers(1, 3), max_size=2), min_size=1, max_size=4)


@given(structures, structures, st.integers(1, 4), st.integers(1, 4), st.data())
def test_taking_rows_undoes_joining(one, other, length, other_length, data):
    first, second = make_batch(one, length, 1), make_batch(other, other_length, 100)
    joined = join_batches([first, second])
    assert len(joined) == len(one) + len(other)
    back = select_samples(joined, range(len(one), len(joined)))
    assert back.visual.tiles_per_item == second.visual.tiles_per_item
    assert back.visual.items_per_sample == second.visual.items_per_sample
    assert torch.equal(back.visual.pixels, second.visual.pixels)
    assert torch.equal(back.text.input_ids[:, :other_length], second.text.input_ids)
    assert not back.text.attention_mask[:, other_length:].any()
    assert back.text.supervised == second.text.supervised
    assert back.sample_ids == second.sample_ids


@given(st.lists(st.integers(1, 2), max_size=2), st.integers(1, 5))
def test_swapping_moves_every_image_by_one_sample(sample, num_samples):
    visual = make_batch([sample] * num_samples, 1, 0).visual
    swapped, givers = swap_images(visual)
    per_sample = sum(sample)
    assert givers == [(row - 1) % num_samples for row in range(num_samples)]
    assert torch.equal(swapped.pixels, visual.pixels.roll(per_sample, dims=0))


def test_sizes_and_prompts_go_along():
    """Tiles of different size share the larger canvas; the prompts of a connector are rows like any other."""
    batches = []
    for height, width, length in ((2, 4, 3), (3, 1, 5)):
        made = make_batch([[1], [1]], length, 10 * height)
        pixels = torch.full((2, 3, height, width), height, dtype=torch.uint8)
        text = replace(made.text, instruction=make_batch([[1], [1]], length + 1, 100 * height).text)
        batches.append(replace(made, visual=replace(made.visual, pixels=pixels), text=text))
    joined = join_batches(batches)
    assert joined.visual.pixels.shape == (4, 3, 3, 4) and joined.visual.sizes == [(2, 4), (2, 4), (3, 1), (3, 1)]
    assert joined.visual.pixels.sum() == 2 * (2 * 24) + 3 * (2 * 9)
    assert joined.text.instruction.input_ids.shape == (4, 6)
    back = select_samples(joined, range(2, 4))
    assert back.visual.sizes == [(3, 1), (3, 1)]
    assert torch.equal(back.text.instruction.input_ids, batches[1].text.instruction.input_ids)
    mixed = replace(joined.visual, sizes=[(2, 4), (3, 1), (1, 1), (2, 2)])
    assert swap_images(mixed)[0].sizes == [(2, 2), (2, 4), (3, 1), (1, 1)]


@given(st.lists(st.lists(st.integers(1, 2), max_size=2), min_size=1, max_size=7))
def test_images_move_only_between_samples_that_take_the_same_room(structure):
    """Every row keeps its number of tiles; it has its own images only if no other row has the same structure."""
    visual = make_batch(structure, 1, 0).visual
    swapped, givers = swap_images(visual)
    starts = [0, *accumulate(sum(sample) for sample in structure)]
    numbers = swapped.pixels[:, 0, 0, 0].tolist()
    for row, giver in enumerate(givers):
        assert structure[giver] == structure[row]
        assert numbers[starts[row] : starts[row + 1]] == list(range(starts[giver], starts[giver + 1]))
        assert (giver == row) == (structure.count(structure[row]) == 1)


def test_a_batch_of_swapped_images_leaves_out_who_has_no_partner():
    swapped = swap_batch_images(make_batch([[1], [2], [1, 1], [1]], 2, 0))
    assert swapped.text.supervised_per_sample == [2, 2] and swapped.text.supervised == 4
    assert swapped.sample_ids == ["0", "3"] and swapped.visual.pixels[:, 0, 0, 0].tolist() == [5, 0]
    assert swap_batch_images(make_batch([[1], [2]], 1, 0)) is None


def test_hidden_words_go_along():
    def hidden(batch):
        text = batch.text
        masked = TextBatch(text.input_ids + 1000, text.attention_mask, text.visual_mask, text.input_ids, 0, 1)
        return replace(batch, text=replace(text, masked=masked))

    first, second = hidden(make_batch([[1], [1]], 2, 1)), hidden(make_batch([[1]], 3, 100))
    joined = join_batches([first, second])
    assert joined.text.masked.input_ids.tolist() == [[1001, 1002, 0], [1003, 1004, 0], [1100, 1101, 1102]]
    last = select_samples(joined, [2]).text.masked
    assert last.input_ids.tolist() == [[1100, 1101, 1102]] and last.targets.tolist() == [[100, 101, 102]]
    assert last.supervised_per_sample == [3]
    assert join_batches([first, make_batch([[1]], 3, 100)]).text.masked is None
