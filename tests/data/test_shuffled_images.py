"""Other samples' images."""

import pytest

from vlmtrain.data.record import Record
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
        return Record(str(index), bytes([index]), [f"text {index}"])


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
