"""One of a record's captions."""

from vlmtrain.data.record import BrokenSample, Record


def drawn_caption(record: Record, key: int) -> str:
    """The one that the key draws, without blanks around it; BrokenSample where there is none but empty ones."""
    captions = [caption.strip() for caption in record.captions if caption.strip()]
    if not captions:
        raise BrokenSample(record.key, "it has no caption, or only empty ones")
    return captions[key % len(captions)]
