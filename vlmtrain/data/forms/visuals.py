"""Which of a record's images are an item: what forms about images and forms about videos share."""

from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.layout import Part, Visual


def visuals_of(record: Record, max_frames: int) -> list[Part]:
    """Every image an item of its own; with `max_frames` above 1 all images are the frames of one video."""
    if max_frames > 1:
        return [video_of(record, max_frames)]
    return [Visual(images=(image,)) for image in range(len(record.images))]


def video_of(record: Record, max_frames: int) -> Visual:
    """The record's images as one item: all of them, or `max_frames` evenly spread ones; of one the middle one."""
    count = len(record.images)
    if count == 0:
        raise BrokenSample(record.key, "it has no frame")
    if count <= max_frames:
        return Visual(images=tuple(range(count)))
    return Visual(images=tuple((2 * place + 1) * count // (2 * max_frames) for place in range(max_frames)))


def check_max_frames(max_frames: int) -> int:
    """The value; ValueError below 1."""
    if max_frames < 1:
        raise ValueError(f"max_frames={max_frames}: an item has at least one image")
    return max_frames
