"""Plain text documents."""

import pickle
from pathlib import Path

import pytest

from vlmtrain.data.record import BrokenSample
from vlmtrain.data.scenes.text import document
from vlmtrain.data.sources.documents import Documents, MadeDocuments


def test_reads_jsonl_and_txt(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one\\ntwo"}\n\n{"text": "three"}\n')
    (tmp_path / "a.txt").write_text("one\n\nzwölf\n")
    lines = pickle.loads(pickle.dumps(Documents(str(tmp_path / "a.jsonl"))))
    assert [lines.read(index).captions for index in range(len(lines))] == [["one\ntwo"], ["three"]]
    plain = Documents(str(tmp_path / "a.txt"))
    assert [plain.read(index).captions for index in range(len(plain))] == [["one"], ["zwölf"]]
    assert plain.read(0).image == b"" and plain.key(1) == "a/1"
    assert plain.fingerprint != lines.fingerprint


def test_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file"):
        Documents(str(tmp_path / "a.txt"))
    with pytest.raises(ValueError, match=r"\.jsonl with"):
        Documents(str(tmp_path / "a.csv"))
    (tmp_path / "a.txt").write_text("\n")
    with pytest.raises(ValueError, match="no document"):
        Documents(str(tmp_path / "a.txt"))
    (tmp_path / "a.jsonl").write_text("{broken\n")
    with pytest.raises(BrokenSample, match="not valid JSON"):
        Documents(str(tmp_path / "a.jsonl")).read(0)


def test_made_documents_are_the_same_each_time() -> None:
    source = pickle.loads(pickle.dumps(MadeDocuments(document, 0, 20)))
    later = MadeDocuments(document, 0, 5, first=15)
    assert source.read(15).captions == later.read(0).captions
    assert source.key(15) == later.key(0)
    assert source.fingerprint == MadeDocuments(document, 0, 20).fingerprint
    assert len({source.fingerprint, later.fingerprint, MadeDocuments(document, 1, 20).fingerprint}) == 3
    with pytest.raises(IndexError):
        later.read(5)
