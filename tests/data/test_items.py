"""Records of several images: which of them an item is, and how many tiles it has."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmtrain.data.collate import Collator
from vlmtrain.data.forms.base import max_frames_of
from vlmtrain.data.forms.captioning import Captioning
from vlmtrain.data.loading import prepare
from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.layout import Text, Visual


def number_transform(data: bytes, key: int | None) -> torch.Tensor:
    """One pixel that is the image's number; image n comes in n tiles, if n is above 100 in one."""
    tiles = data[0] if data[0] < 100 else 1
    return torch.full((tiles, 3, 1, 1), data[0], dtype=torch.uint8)


items = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=3).map(tuple), max_size=5)


@given(items)
def test_parts_and_items_agree(structure: list[tuple[int, ...]]) -> None:
    record = Record("r", [bytes([number]) for number in (1, 2, 3, 101, 102)], [])
    parts = [part for images in structure for part in (Visual(images=images), Text("x"))]
    prepared = prepare(record, parts, number_transform, 7)
    visuals = [part for part in prepared.parts if isinstance(part, Visual)]
    assert [part.images for part in visuals] == structure
    assert [part.tiles for part in visuals] == [len(item) for item in prepared.items]
    for images, item in zip(structure, prepared.items, strict=True):
        numbers = [record.images[image][0] for image in images]
        tiles = numbers * (numbers[0] if numbers[0] < 100 else 1) if len(numbers) == 1 else numbers
        assert item[:, 0, 0, 0].tolist() == tiles, "all tiles of an image; of a video one per frame"


def test_frames_of_a_video_are_cut_alike_and_images_of_a_document_each_by_itself() -> None:
    keys: list[int | None] = []

    def transform(data: bytes, key: int | None) -> torch.Tensor:
        keys.append(key)
        return torch.zeros(3, 1, 1, dtype=torch.uint8)

    record = Record("r", [b"a", b"b", b"c"], [])
    prepare(record, [Visual(images=(0, 1, 2))], transform, 5)
    prepare(record, [Visual(), Visual(images=(1,)), Visual(images=(2,))], transform, 5)
    prepare(record, [Visual(images=(1, 2))], transform, None)
    assert keys[:3] == [5] * 3 and keys[3] == 5 and len(set(keys[3:6])) == 3 and keys[6:] == [None, None]


def test_a_form_that_asks_for_an_image_too_many_is_named() -> None:
    with pytest.raises(BrokenSample, match="asks for image 2, it has 1 images"):
        prepare(Record("r", [b"a"], []), [Visual(images=(1,))], number_transform, 0)


def test_more_frames_than_the_collator_was_made_for_are_named(layout: object) -> None:
    prepared = prepare(Record("r", [b"a", b"b"], []), [Visual(images=(0, 1)), Text("x")], number_transform, 0)
    collator = Collator(layout, lambda tiles: tiles, max_frames_of(Captioning()))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"2 tiles or frames.*max_frames"):
        collator.placeholders_per_item(prepared.parts[0].tiles)  # type: ignore[union-attr]
