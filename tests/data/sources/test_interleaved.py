"""Documents on disk."""

import json
from pathlib import Path

import pytest

from vlmtrain.data.documents import Documents
from vlmtrain.data.record import BrokenSample
from vlmtrain.data.sources.base import Source
from vlmtrain.data.sources.interleaved import InterleavedDocuments


def write(folder: Path, *lines: dict) -> str:
    for name in ("1.jpg", "2.jpg"):
        (folder / name).write_bytes(name.encode())
    (folder / "documents.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder)


GOOD = {"images": ["1.jpg", None, "2.jpg", None], "texts": [None, "one", None, "two"], "source": "web"}


def test_a_document_is_read_in_order(tmp_path: Path) -> None:
    source = InterleavedDocuments(write(tmp_path, GOOD, {"id": "b", "images": [None], "texts": ["plain"]}))
    assert isinstance(source, Source) and len(source) == 2
    record = source.read(0)
    assert (record.key, record.images, record.captions) == ("documents/0", [b"1.jpg", b"2.jpg"], ["one", "two"])
    assert record.extra == {"texts": [None, "one", None, "two"], "source": "web"}
    assert source.key(1) == "b" and source.read(1).images == [], "a text without images"
    assert source.fingerprint == InterleavedDocuments(str(tmp_path / "documents.jsonl")).fingerprint


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"images": ["1.jpg"], "texts": [None, "one"]}, '"images" has 1 places and "texts" 2'),
        ({"images": ["1.jpg", None], "texts": [None, None]}, "place 2 has neither"),
        ({"images": ["1.jpg"], "texts": ["one"]}, "place 1 has image and text"),
        ({"images": [], "texts": []}, "the document is empty"),
        ({"images": "1.jpg", "texts": ["one"]}, "must be lists"),
        ({"texts": ["one"]}, "must be lists"),
        ({"images": [None], "texts": [3]}, "must be a string"),
        ({"images": ["../1.jpg"], "texts": [None]}, "outside the folder"),
        ({"images": ["https://a/1.jpg"], "texts": [None]}, "download it first"),
    ],
)
def test_what_is_wrong_with_a_line_is_named_at_the_start(tmp_path: Path, line: dict, reason: str) -> None:
    with pytest.raises(ValueError, match="line 2: .*" + reason):
        InterleavedDocuments(write(tmp_path, GOOD, line))


def test_a_missing_image_breaks_its_document_only(tmp_path: Path) -> None:
    source = InterleavedDocuments(write(tmp_path, {"images": ["3.jpg", None], "texts": [None, "x"]}, GOOD))
    with pytest.raises(BrokenSample, match=r"'documents/0': 3.jpg: there is no such file"):
        source.read(0)
    assert source.read(1).captions == ["one", "two"]


def test_a_share_is_held_out(tmp_path: Path) -> None:
    data = Documents(write(tmp_path, *[{**GOOD, "id": str(number)} for number in range(40)]), held_out=0.25)
    held_out = {data.evaluation["held_out"].key(index) for index in range(len(data.evaluation["held_out"]))}
    assert 0 < len(held_out) < 20 and len(data.train) + len(held_out) == 40
    assert not held_out & {data.train.key(index) for index in range(len(data.train))}
    with pytest.raises(ValueError, match=r"there is no .*documents\.jsonl"):
        Documents(str(tmp_path / "elsewhere"))
