"""Other samples' images."""

import pytest

from vlmtrain.data.asking import OneByOne
from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.data.shuffled_images import ShuffledImages
from vlmtrain.data.sources.base import Source


class Numbered:
    name = "numbered"
    fingerprint = "f"

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def key(self, index: int) -> str:
        return str(index)

    def read(self, index: int) -> Record:
        return Record(str(index), [bytes([index])], [f"text {index}"])


@pytest.mark.parametrize("count", [2, 3, 10, 11])
def test_every_image_goes_to_another_sample_and_texts_stay(count: int) -> None:
    source = Numbered(count)
    shuffled: Source = ShuffledImages(source)
    records = [shuffled.read(index) for index in range(count)]
    assert [record.captions for record in records] == [[f"text {index}"] for index in range(count)]
    assert [record.key for record in records] == [str(index) for index in range(count)]
    assert sorted(record.image for record in records) == [bytes([index]) for index in range(count)]
    assert all(record.image != bytes([index]) for index, record in enumerate(records))
    assert len(shuffled) == count and shuffled.fingerprint != source.fingerprint


def test_one_sample_cannot_be_shuffled() -> None:
    with pytest.raises(ValueError, match="numbered has 1 sample"):
        ShuffledImages(Numbered(1))


class Several(Numbered):
    """Record n asks two questions about n % 4 images of its own."""

    def read(self, index: int) -> Record:
        images = [bytes([index, place]) for place in range(index % 4)]
        return Record(str(index), images, [], {"questions": [{"text": "a?"}, {"text": "b?"}]})


def test_records_keep_their_number_of_images_and_get_none_of_their_own() -> None:
    shuffled = ShuffledImages(Several(9))
    for index in range(9):
        images = shuffled.read(index).images
        assert len(images) == index % 4 and all(image[0] != index for image in images)


def test_the_same_image_asked_about_again_is_no_other_image() -> None:
    """Half of the way on in a source of two passes lies the same record."""
    shuffled = ShuffledImages(OneByOne(Asked(6), 2))
    assert all(shuffled.read(index).images != [bytes([index % 6])] for index in range(12))


class Asked(Numbered):
    def read(self, index: int) -> Record:
        return Record(str(index), [bytes([index])], [], {"questions": [{"text": "a?"}, {"text": "b?"}]})


def test_a_source_without_other_images_is_named() -> None:
    class Same(Numbered):
        def read(self, index: int) -> Record:
            return Record(str(index), [b"same"], [])

    with pytest.raises(BrokenSample, match="hold not 1 other images"):
        ShuffledImages(Same(3)).read(0)
