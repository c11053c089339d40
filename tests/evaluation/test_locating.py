"""Boxes that are told, held against the true ones."""

import pytest

from vlmtrain.data.record import Record
from vlmtrain.evaluation.locating import Locating
from vlmtrain.evaluation.writing import Written

BOX = [0.0, 0.0, 0.5, 0.5]


def judged(*texts: str, others: tuple[str, ...] = ()) -> dict[str, float]:
    locating = Locating(num_places=5)
    judge = locating.writing.judge
    record = Record("r", [], [], {"questions": [{"text": "where is it?", "answer": "", "box": BOX}]})
    written = [Written(record, text, judge(text, record)) for text in texts]
    for each, other in zip(written, others, strict=False):
        each.control_verdict = judge(other, record)
    return locating.figures(written)


def test_figures_by_hand() -> None:
    exact, half, elsewhere = (
        "<place_0><place_0><place_2><place_2>",
        "<place_0><place_0><place_2><place_4>",
        "<place_2><place_2><place_4><place_4>",
    )
    found = judged(exact, half, elsewhere, "no idea", others=(elsewhere, exact))
    assert found["located"] == 0.5  # an overlap of exactly a half counts
    assert found["mean_overlap"] == pytest.approx(1.5 / 4)
    assert found["boxes_told"] == 0.75
    assert found["control_located"] == 0.5
    assert found["num_questions"] == 4


def test_without_a_control_there_is_no_figure_of_one() -> None:
    assert "control_located" not in judged("<place_0><place_0><place_2><place_2>")


def test_questions_without_boxes_are_named() -> None:
    record = Record("r7", [], [], {"questions": [{"text": "what is it?", "answer": "red"}]})
    with pytest.raises(ValueError, match="'r7' has none; choose data=scene_boxes"):
        Locating().writing.judge("red", record)


def test_a_split_without_records_is_told(make_model, make_tools, caplog):
    assert Locating()(make_model(), {"test": []}, make_tools()).metrics == {}
    assert "'test' holds no records to ask about" in caplog.text


@pytest.mark.parametrize("wrong", [{"splits": []}, {"limit": 0}, {"num_samples": -1}])
def test_settings_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="Locating wants"):
        Locating(**wrong)  # type: ignore[arg-type]
