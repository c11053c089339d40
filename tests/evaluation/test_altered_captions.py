"""True captions against altered ones: what counts, and what is refused."""

from pathlib import Path

import pytest
import torch
from pairs_toy import COLOURS, ColourReader, Pair, make_layout, pairs_of, tools_of

from vlmtrain.evaluation.altered_captions import AlteredCaptions


def another_colour(record: Pair) -> str | None:
    """Green ones cannot be altered."""
    colour = COLOURS[record.image[0]]
    return None if colour == "green" else record.captions[0].replace(colour, "green")


def test_decisions_on_true_altered_and_other_captions(tmp_path: Path) -> None:
    layout = make_layout(tmp_path)
    source = pairs_of(["red", "red", "green", "blue", "green", "green"])
    found = AlteredCaptions(another_colour)(ColourReader(layout), {"test": source}, tools_of(layout)).metrics
    assert found["test/matching_accuracy"] == found["test/true_preferred"] == 1.0
    assert found["test/num_altered"] == 3
    # Of red, red and blue the caption before is blue's (the last of the batch), red's and green's.
    assert found["test/random_matching_accuracy"] == pytest.approx((1 + 2 / 3) / 2)


@pytest.mark.parametrize("said", [1.0, -1.0, 0.0])
def test_who_always_says_the_same_gets_half_and_prefers_nothing(tmp_path: Path, said: float) -> None:
    layout = make_layout(tmp_path)

    class Constant(ColourReader):
        def match(self, visual, text, image_of_row):
            return torch.full((len(image_of_row),), said)

    found = AlteredCaptions(another_colour)(
        Constant(layout), {"test": pairs_of(["red", "blue"])}, tools_of(layout)
    ).metrics
    assert found["test/matching_accuracy"] == found["test/chance_matching_accuracy"] == 0.5
    assert found["test/true_preferred"] == 0.0


def test_what_cannot_be_is_refused_and_nothing_to_alter_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    layout = make_layout(tmp_path)
    model = ColourReader(layout)
    assert AlteredCaptions(another_colour)(model, {"test": pairs_of(["green"])}, tools_of(layout)).metrics == {}
    assert "could be altered" in caplog.text
    with pytest.raises(ValueError, match="no evaluation split 'tset'"):
        AlteredCaptions(another_colour, ["tset"]).check(model, {"test": []})
    with pytest.raises(ValueError, match="limit >= 1"):
        AlteredCaptions(another_colour, limit=0)
