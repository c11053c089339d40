"""Few-shot tasks that need the shots, and the prompts that hold them."""

from collections import Counter
from pathlib import Path

import pytest

from vlmtrain.data.forms.interleaved import Interleaved
from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.data.scene_shots import SceneShots
from vlmtrain.data.scenes.shots import ATTRIBUTES, MADE_UP, MakeShots
from vlmtrain.data.scenes.things import Scene
from vlmtrain.data.shots import LastShots, WithShots
from vlmtrain.data.sources.base import Source
from vlmtrain.layout import Text, Visual


@pytest.mark.parametrize("task", ["attributes", "names"])
def test_the_same_seed_and_index_give_the_same_bytes(task: str) -> None:
    make = MakeShots(3, task)  # type: ignore[arg-type]
    assert make(1, "train", 7, 24) == make(1, "train", 7, 24) != make(1, "train", 8, 24)


def test_a_document_names_one_attribute_and_every_attribute_has_its_documents() -> None:
    kinds = Counter[str]()
    for index in range(60):
        line = MakeShots()(0, "train", index, 16).line
        kind, told = line["questions"][0]["kind"], [text for text in line["texts"] if text]
        things = [Scene.from_json(scene).things for scene in line["scenes"]]
        assert [len(each) for each in things] == [1] * 5
        assert told == [f" {getattr(each[0], kind)}" for each in things]
        assert line["questions"][0]["answer"] == told[-1].strip() == line["captions"][0]
        kinds[kind] += 1
    assert set(kinds) == set(ATTRIBUTES) and min(kinds.values()) > 5


@pytest.mark.parametrize("num_shots", [2, 4, 5])
def test_names_are_of_two_shapes_both_shown_and_others_in_every_document(num_shots: int) -> None:
    last = Counter[str]()
    for index in range(30):
        line = MakeShots(num_shots, "names")(0, "train", index, 16).line
        answers = [text.removeprefix("this is a ") for text in line["texts"] if text]
        shapes = [Scene.from_json(scene).things[0].shape for scene in line["scenes"]]
        assert len({*zip(shapes, answers, strict=True)}) == len({*shapes}) == len({*answers}) <= 2
        assert len({*shapes[:-1]}) == 2 and answers[-1] in answers[:-1], "both names are among the examples"
        last[answers[-1]] += 1
    assert len(last) > 6 and set(last) <= set(MADE_UP)


def test_the_same_questions_with_and_without_examples(tmp_path: Path) -> None:
    data = SceneShots(str(tmp_path), 0, 3, 4, 1, "names", (0, 2, 4))
    assert list(data.evaluation) == ["0_shots", "2_shots", "4_shots"]
    for shots, source in zip((0, 2, 4), data.evaluation.values(), strict=True):
        assert isinstance(source, Source)
        for index in range(4):
            record, whole = source.read(index), data.evaluation["4_shots"].read(index)
            assert record.images == whole.images[4 - shots :] and record.extra["questions"] == whole.extra["questions"]
            prompt = Interleaved().prompt_parts(record)
            assert [type(part) for part in prompt] == [Visual, Text] * (shots + 1)
            assert [part.string for part in prompt[1:-1:2]] == [
                text for text in whole.extra["texts"][2 * (4 - shots) : -1] if text
            ]
            assert prompt[-1] == Text("this is a", supervised=False)
    fingerprints = {source.fingerprint for source in data.evaluation.values()}
    assert len(fingerprints) == 3
    with pytest.raises(BrokenSample, match="holds 4 examples, 9 are wanted"):
        LastShots(data.train, 9).read(0)


class Asked:
    """Record n has image n, asks "n?" and answers "n"; every fifth is broken."""

    name, fingerprint = "asked", "f"

    def __init__(self, count: int, with_questions: bool) -> None:
        self.count, self.with_questions = count, with_questions

    def __len__(self) -> int:
        return self.count

    def key(self, index: int) -> str:
        return f"k{index}"

    def read(self, index: int) -> Record:
        if index % 5 == 4:
            raise BrokenSample(self.key(index), "planted")
        questions = [{"text": f"{index}?", "answer": f"{index}"}]
        return Record(
            self.key(index),
            [bytes([index])],
            [f"caption {index}"],
            {"questions": questions} if self.with_questions else {},
        )


@pytest.mark.parametrize("with_questions", [True, False])
def test_t48_prompts_of_0_to_32_shots_of_other_records(with_questions: bool) -> None:
    support = Asked(60, with_questions)
    for shots in (0, 1, 4, 32):
        source = WithShots(support, support, shots, seed=3)
        for index in (0, 7):
            record = source.read(index)
            numbers = [image[0] for image in record.images]
            assert len(numbers) == len({*numbers}) == shots + 1 and numbers[-1] == index
            told = [f"{n}? {n}" if with_questions else f"caption {n}" for n in numbers[:-1]]
            wanted = [part for n, text in enumerate(told) for part in (Visual(images=(n,)), Text(text))]
            asked = [Text(f"{index}?", supervised=False)] if with_questions else []
            assert Interleaved().prompt_parts(record) == [*wanted, Visual(images=(shots,)), *asked]
            assert source.read(index) == record, "the same examples every time"
    with pytest.raises(ValueError, match="32 shots cannot be drawn from the 20 records"):
        WithShots(support, Asked(20, True), 32)
    with pytest.raises(BrokenSample, match="no 17 examples"):
        WithShots(support, Asked(20, True), 17).read(0)


@pytest.mark.parametrize("wrong", [{"task": "numbers"}, {"shots": []}, {"shots": [-1]}])
def test_wrong_arguments_are_named(wrong: dict, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SceneShots(str(tmp_path), **wrong)
