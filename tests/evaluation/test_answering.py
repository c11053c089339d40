import pytest

from vlmtrain.evaluation.answering import Answering, judge_answer, normalize_answer


class Source(list):
    def read(self, index):
        return self[index]


@pytest.fixture
def asked(records_of):
    """The toy model answers with the image's number: even numbers are asked for that, odd ones for something else."""

    def make(numbers, kinds=None):
        records = Source(records_of(numbers))
        for place, (record, number) in enumerate(zip(records, numbers, strict=True)):
            kind = {} if kinds is None else {"kind": kinds[place]}
            answer = f"{number}." if number % 2 == 0 else "odd"
            object.__setattr__(record, "extra", {"questions": [{"text": "which?", "answer": answer, **kind}]})
        return records

    return make


def test_answers_are_counted_per_kind_with_both_yardsticks(make_model, make_tools, asked):
    numbers = [2, 4, 6, 2, 1, 3]
    sources = {"test": asked(numbers, ["even"] * 4 + ["odd"] * 2)}
    result = Answering()(make_model(), sources, make_tools(3))
    metrics = result.metrics
    assert metrics["test/accuracy"] == pytest.approx(4 / 6)
    assert metrics["test/even/accuracy"] == 1.0 and metrics["test/odd/accuracy"] == 0.0
    assert metrics["test/control_accuracy"] == metrics["test/even/control_accuracy"] == 0.0
    assert metrics["test/even/majority_accuracy"] == 0.5 and metrics["test/odd/majority_accuracy"] == 1.0
    assert metrics["test/majority_accuracy"] == pytest.approx((2 + 2) / 6), "the commonest of each kind"
    assert metrics["test/num_questions"] == 6
    sample = result.samples[0]
    assert (sample.task, sample.prompt, sample.text, sample.references) == ("answering", "which?", "2", ["2."])
    assert sample.correct and sample.control_text == "6" and sample.control_correct is False


def test_a_blind_model_is_as_good_with_other_images(make_model, make_tools, asked):
    model = make_model()
    model.is_blind = True  # it says 3
    records = asked([2, 4, 6, 8])
    for record in records[:2]:
        record.extra["questions"][0]["answer"] = "3"
    metrics = Answering()(model, {"test": records}, make_tools(4)).metrics
    assert metrics["test/accuracy"] == metrics["test/control_accuracy"] == metrics["test/majority_accuracy"] == 0.5


def test_answers_that_are_named_get_shares_of_their_own(make_model, make_tools, asked):
    model = make_model()
    model.is_blind = True  # it says 3
    records = asked([2, 4, 6, 8])
    for record in records[:1]:
        record.extra["questions"][0]["answer"] = "3"
    metrics = Answering(answers=["3", "4", "nobody's"])(model, {"test": records}, make_tools(4)).metrics
    assert metrics["test/3/accuracy"] == metrics["test/3/control_accuracy"] == 1.0
    assert metrics["test/4/accuracy"] == 0.0
    assert not any(name.startswith("test/nobody") for name in metrics), "a share of nothing"


def test_several_right_answers(records_of):
    record = records_of([1])[0]
    object.__setattr__(record, "extra", {"questions": [{"text": "?", "answers": ["Red", "crimson"]}]})
    assert judge_answer("crimson", record).correct and judge_answer("red", record).correct
    assert not judge_answer("Red crimson", record).correct


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("The  Red\nstar.", "red star"),
        ("A", "a"),
        ("", ""),
        ("“Two”", "two"),
        ("\uff2e\uff2f", "no"),
        ("left-hand", "left hand"),
    ],
)
def test_normalization(text, same):
    assert normalize_answer(text) == same == normalize_answer(same)


def test_faults_are_named(make_model, records_of, asked, make_tools, caplog):
    with pytest.raises(ValueError, match="'r0' of split 'test' has none"):
        Answering().check(make_model(), {"test": Source(records_of([1, 2]))})
    with pytest.raises(ValueError, match="no evaluation split 'tset'"):
        Answering(["tset"]).check(make_model(), {"test": asked([2])})
    with pytest.raises(ValueError, match="max_new_tokens=0"):
        Answering(max_new_tokens=0)
    assert Answering()(make_model(), {"test": Source()}, make_tools()).metrics == {}
    assert "no records to ask about" in caplog.text
