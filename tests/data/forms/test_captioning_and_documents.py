"""What records become."""

import pytest

from vlmtrain.data.forms.captioning import Captioning
from vlmtrain.data.forms.text_documents import TextDocuments
from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.layout import Text, Visual


def test_captioning_puts_image_prompt_and_one_caption_in_order() -> None:
    record = Record("a", [], ["one", " two "])
    assert Captioning().parts(record, 0) == [Visual(), Text("one")]
    assert Captioning("say:").parts(record, 1) == [Visual(), Text("say:", supervised=False), Text("two")]
    assert Captioning("say:").prompt_parts(record) == [Visual(), Text("say:", supervised=False)]
    assert Captioning().prompt_parts(record) == [Visual()]


def test_every_caption_gets_its_turn() -> None:
    record = Record("a", [], ["one", "two", "three"])
    chosen = {Captioning().parts(record, key)[-1] for key in range(9)}
    assert chosen == {Text("one"), Text("two"), Text("three")}


@pytest.mark.parametrize("captions", [[], [""], [" \n", "\t"]])
def test_empty_caption_breaks_the_sample(captions: list[str]) -> None:
    with pytest.raises(BrokenSample, match=r"'a'.*caption"):
        Captioning().parts(Record("a", [], captions), 0)
    with pytest.raises(BrokenSample, match="empty"):
        TextDocuments().parts(Record("a", [], captions), 0)


def test_an_empty_caption_among_others_is_passed_over() -> None:
    assert {Captioning().parts(Record("a", [], ["", "x"]), key)[-1] for key in range(4)} == {Text("x")}


def test_documents_have_no_visual_part() -> None:
    record = Record("a", [], ["a text"])
    assert TextDocuments().parts(record, 3) == [Text("a text")]
    assert TextDocuments().prompt_parts(record) == []


def test_a_document_keeps_the_blank_before_it_and_not_the_one_behind() -> None:
    """Byte pairs write a word with a blank before it and one without differently; notes begin with a blank."""
    record = Record("a", [], [" large red</s>a large red star \n"])
    assert TextDocuments("</s>").parts(record, 0) == [
        Text(" large red</s>", supervised=False),
        Text("a large red star"),
    ]
