"""Words hidden one at a time: what is right, against what it is held, and what is refused."""

from pathlib import Path

import pytest
from pairs_toy import COLOURS, ColourReader, make_layout, pairs_of, tools_of
from torch import nn

from vlmtrain.evaluation.masked_words import MaskedWords
from vlmtrain.layouts.pair import PairLayout


def asks_for(word: str) -> tuple[str, list[str]] | None:
    if word in COLOURS:
        return "colour", [word]
    return ("shape", ["circle", "disc"]) if word == "circle" else None


def test_accuracy_over_all_words_and_per_kind_with_another_image_beside_it(tmp_path: Path) -> None:
    layout = make_layout(tmp_path)
    model = ColourReader(layout).train()
    source = pairs_of(["red", "red", "blue", "green", "green", "blue"])
    found = MaskedWords(asks_for)(model, {"test": source}, tools_of(layout)).metrics
    assert found["test/masked_word_accuracy"] == found["test/colour/masked_word_accuracy"] == 1.0
    assert found["test/num_masked_words"] == 12
    # Batches of four and two; the image of the record before shows red for one red, and no other colour in its place.
    assert found["test/colour/control_masked_word_accuracy"] == pytest.approx(1 / 6)
    assert found["test/control_masked_word_accuracy"] == pytest.approx(7 / 12)
    assert found["test/colour/majority_masked_word_accuracy"] == pytest.approx(2 / 6)
    assert found["test/shape/majority_masked_word_accuracy"] == 1.0
    assert found["test/majority_masked_word_accuracy"] == pytest.approx(8 / 12)
    assert model.training and model.calls == [8, 8, 4, 4]


def test_a_word_of_several_tokens_is_right_only_as_a_whole_and_wrong_words_are_wrong(tmp_path: Path) -> None:
    layout = make_layout(tmp_path)
    source = pairs_of(["red", "blue"], shapes=["ring"])

    def shapes(word: str) -> tuple[str, list[str]] | None:
        return ("shape", [word]) if word == "ring" else None

    found = MaskedWords(shapes)(ColourReader(layout), {"test": source}, tools_of(layout)).metrics
    assert found["test/masked_word_accuracy"] == 0.0, "it says cir"
    whole = MaskedWords(lambda word: ("shape", [word]) if word == "circle" else None)
    source = pairs_of(["red", "blue"])
    assert whole(ColourReader(layout), {"test": source}, tools_of(layout)).metrics["test/masked_word_accuracy"] == 1.0


def test_a_record_alone_has_no_control(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    layout = make_layout(tmp_path)
    found = MaskedWords(asks_for)(ColourReader(layout), {"test": pairs_of(["red"])}, tools_of(layout)).metrics
    assert "test/control_masked_word_accuracy" not in found and found["test/masked_word_accuracy"] == 1.0
    nothing = MaskedWords(lambda word: None, limit=3)(
        ColourReader(layout), {"test": pairs_of(["red"])}, tools_of(layout)
    )
    assert nothing.metrics == {} and "holds a word to hide" in caplog.text


def test_what_cannot_be_is_refused_before_training(tmp_path: Path) -> None:
    layout = make_layout(tmp_path)
    model = ColourReader(layout)
    with pytest.raises(ValueError, match="no evaluation split 'tset'"):
        MaskedWords(asks_for, ["tset"]).check(model, {"test": []})
    with pytest.raises(ValueError, match=r"MaskedWords needs a model with .*hidden_states"):
        MaskedWords(asks_for).check(nn.Linear(1, 1), {"test": []})
    with pytest.raises(ValueError, match="limit >= 1"):
        MaskedWords(asks_for, limit=0)
    with pytest.raises(ValueError, match="hides words by a MaskedPairLayout; this model's is PairLayout"):
        MaskedWords(asks_for).check(ColourReader(PairLayout(layout.tokenizer, 16)), {"test": []})
