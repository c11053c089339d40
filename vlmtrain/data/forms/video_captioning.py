"""Videos and captions."""

from vlmtrain.data.forms.captioning import Captioning
from vlmtrain.data.forms.visuals import check_max_frames, video_of
from vlmtrain.data.record import Record
from vlmtrain.layout import Part


class VideoCaptioning(Captioning):
    """The record's images as one item, the frames of a video; a prompt if there is one; one of the captions.

    Of more than `max_frames` frames so many are taken, evenly spread; of `max_frames=1` the middle one: what a model
    makes of that shows what the motion is worth.
    """

    def __init__(self, max_frames: int = 8, prompt: str = "") -> None:
        super().__init__(prompt)
        self.max_frames = check_max_frames(max_frames)

    def prompt_parts(self, record: Record) -> list[Part]:
        return [video_of(record, self.max_frames), *super().prompt_parts(record)[1:]]
