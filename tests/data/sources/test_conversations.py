"""Conversations on disk, and the form that learns them."""

import json
import pickle
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmtrain.data.conversations import Conversations as OwnConversations
from vlmtrain.data.forms.captioning import Captioning
from vlmtrain.data.forms.conversation import Conversation
from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.data.sources.base import Source
from vlmtrain.data.sources.conversations import Conversations
from vlmtrain.layout import Text, Visual


def turns(*values: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[place % 2], "value": value} for place, value in enumerate(values)]


GOOD = {"id": "a", "image": "1.jpg", "conversations": turns("<image>\nWhat is it?", "A dog.", "Sure?", "Ünd wie.")}
PLAIN = {"conversations": turns("Hello", "Hi!")}


def write(folder: Path, entries: list[dict], name: str = "chat.json") -> str:
    for number in (1, 2):
        (folder / f"{number}.jpg").write_bytes(str(number).encode())
    lines = "\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    text = lines if name.endswith("l") else json.dumps(entries, ensure_ascii=False, indent=1)
    (folder / name).write_text(text)
    return str(folder / name)


@pytest.mark.parametrize("name", ["chat.json", "chat.jsonl"])
def test_entries_are_read_from_both_kinds_of_file(tmp_path: Path, name: str) -> None:
    two = {"id": 7, "image": ["1.jpg", "2.jpg"], "conversations": turns("<image> or <image>?", "both")}
    source = pickle.loads(pickle.dumps(Conversations(write(tmp_path, [GOOD, PLAIN, two], name))))
    assert isinstance(source, Source) and [source.key(index) for index in range(3)] == ["a#0", "#1", "7#2"]
    assert [source.read(index).images for index in range(3)] == [[b"1"], [], [b"1", b"2"]]
    record = source.read(0)
    assert record.extra["turns"] == ["<image>\nWhat is it?", "A dog.", "Sure?", "Ünd wie."]
    assert record.extra["questions"] == [{"text": "What is it?", "answer": "A dog."}]
    assert Captioning().parts(record, 0) == [Visual(), Text("A dog.")]


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=9), min_size=1, max_size=6), st.sampled_from([None, 2]))
def test_every_entry_of_a_list_is_found_whatever_stands_in_it(texts: list[str], indent: int | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "chat.json")
        entries = [{"id": "x", "conversations": turns("a" + text.replace("<", ""), "b")} for text in texts]
        file.write_text(f" \n{json.dumps(entries, ensure_ascii=False, indent=indent)}\n", encoding="utf-8")
        source = Conversations(str(file))
        read = [source.read(index).extra["turns"][0] for index in range(len(source))]
        assert read == [entry["conversations"][0]["value"] for entry in entries]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({**GOOD, "image": None}, "hold 1 <image> and it names 0 images"),
        ({**GOOD, "image": ["1.jpg", "2.jpg"]}, "hold 1 <image> and it names 2 images"),
        ({**PLAIN, "image": "1.jpg"}, "hold 0 <image> and it names 1 images"),
        ({"image": "1.jpg", "conversations": turns("what?", "this: <image>")}, "turn 2 is an answer and holds <image>"),
        ({"conversations": turns("only asked")}, "as many of each; this is 1 turns"),
        ({"conversations": []}, "this is 0 turns"),
        ({"id": 3}, "this is no list"),
        ({"conversations": [*turns("a")] * 2}, "turn 2 must be"),
        ({"image": "../1.jpg", "conversations": turns("<image>", "x")}, "outside the folder"),
    ],
)
def test_wrong_entries_are_named_at_the_start(tmp_path: Path, entry: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=f"entry 2: .*{reason}"):
        Conversations(write(tmp_path, [GOOD, entry]))


@pytest.mark.parametrize("text", ["{}", "[{}", '[{"a": 1} {"b": 2}]', "[1", "", "[nonsense]"])
def test_what_is_no_list_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "chat.json").write_text(text)
    with pytest.raises(ValueError, match=r"chat\.json"):
        Conversations(str(tmp_path / "chat.json"))


def test_images_may_lie_elsewhere_and_a_share_is_held_out(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/9.jpg").write_bytes(b"9")
    path = write(tmp_path, [{**GOOD, "image": "9.jpg", "id": str(number)} for number in range(30)])
    data = OwnConversations(path, str(tmp_path / "photos"), held_out=0.2)
    assert data.train.read(0).images == [b"9"] and len(data.train) + len(data.evaluation["held_out"]) == 30
    with pytest.raises(BrokenSample, match=r"9\.jpg: there is no such file"):
        Conversations(path).read(0)
    with pytest.raises(ValueError, match="there is no folder of images"):
        Conversations(path, str(tmp_path / "nowhere"))


def record(images: int, *values: str) -> Record:
    return Record("r", [b"x"] * images, [], {"turns": list(values)})


def test_only_answers_are_learned_and_images_stand_where_the_message_says() -> None:
    parts = Conversation(system="Be kind.").parts(record(2, "<image>\nwhat?", "one", "and <image>?", " two "), 0)
    assert parts == [
        Text("Be kind. USER: ", False),
        Visual(images=(0,)),
        Text("\nwhat? ASSISTANT:", False),
        Text(" one"),
        Text("USER: and ", False),
        Visual(images=(1,)),
        Text("? ASSISTANT:", False),
        Text(" two"),
    ]
    prompt = Conversation("{message}").prompt_parts(record(1, "<image>", "one"))
    assert prompt == [Visual()]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (record(1, "what?", "x"), "hold 0 <image> and it has 1 images"),
        (record(0, "<image>", "x"), "hold 1 <image> and it has 0"),
        (record(33, "<image>" * 32, "x"), "hold 32 <image> and it has 33"),
        (record(0, "a", " "), "all answers are empty"),
        (record(0, "a"), "no .turns."),
        (Record("r", [], ["x"]), "no .turns."),
    ],
)
def test_what_does_not_fit_is_named(wrong: Record, reason: str) -> None:
    with pytest.raises(BrokenSample, match=reason):
        Conversation().parts(wrong, 0)


def test_a_template_without_a_message_is_named() -> None:
    with pytest.raises(ValueError, match="template='USER:'"):
        Conversation("USER:")
