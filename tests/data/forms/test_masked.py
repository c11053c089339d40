"""The form that has words hidden: when, with which keys, around which forms."""

import pytest

from vlmtrain.data.forms.captioning import Captioning
from vlmtrain.data.forms.masked import Masked
from vlmtrain.data.forms.video_captioning import VideoCaptioning
from vlmtrain.data.record import Record
from vlmtrain.layout import Text, Visual


def record(key: str = "a") -> Record:
    return Record(key, [b""], ["a red circle"])


def test_what_is_learned_is_hidden_in_part_and_a_prompt_is_not() -> None:
    visual, prompt, caption = Masked(Captioning("a picture of"), share=0.3).parts(record(), 7)
    assert visual == Visual() and isinstance(prompt, Text) and prompt.hiding is None
    assert isinstance(caption, Text) and caption.string == "a red circle" and caption.hiding is not None
    assert caption.hiding.share == 0.3
    assert Masked(Captioning()).prompt_parts(record()) == Captioning().prompt_parts(record())


def test_the_key_is_that_of_the_sample_and_of_nothing_else() -> None:
    def key(sample: int, name: str = "a") -> int:
        part = Masked(Captioning()).parts(record(name), sample)[-1]
        assert isinstance(part, Text) and part.hiding is not None
        return part.hiding.key

    assert key(7) == key(7)
    assert len({key(7), key(8), key(0), key(0, "b")}) == 4  # in evaluation, all samples have the key 0


def test_it_takes_as_many_frames_as_its_form() -> None:
    assert Masked(VideoCaptioning(max_frames=5)).max_frames == 5 and Masked(Captioning()).max_frames == 1


@pytest.mark.parametrize("share", [0.0, 1.1, -1.0])
def test_a_share_that_hides_nothing_or_too_much_is_named(share: float) -> None:
    with pytest.raises(ValueError, match="share is"):
        Masked(Captioning(), share)
