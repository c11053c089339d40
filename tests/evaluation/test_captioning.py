from dataclasses import dataclass, field

import pytest
import torch

from vlmtrain.evaluation.captioning import Captioning
from vlmtrain.evaluation.word_overlap import WordOverlap


@dataclass
class ToyVerdict:
    correct: bool | None
    reason: str
    aspects: dict = field(default_factory=dict)
    groups: tuple = ()


def same_number(text, record):
    right = text == record.captions[0]
    groups = ("even",) if int(record.captions[0]) % 2 == 0 else ()
    return ToyVerdict(right, "right" if right else "another number", {"digits": (float(right), 1.0)}, groups)


def test_a_seeing_model_is_right_and_falls_to_chance_in_the_control(make_model, make_tools, records_of):
    sources = {"test": records_of(range(10)), "odd": records_of([1, 3, 5])}
    result = Captioning(same_number, ["test", "odd"])(make_model(), sources, make_tools(4))
    metrics = result.metrics
    assert metrics["test/caption_accuracy"] == metrics["test/digits"] == metrics["test/even/caption_accuracy"] == 1.0
    assert metrics["test/control_caption_accuracy"] == metrics["test/chance_caption_accuracy"] == 0.0
    assert metrics["test/num_captions"] == 10
    assert "odd/even/caption_accuracy" not in metrics
    sample = result.samples[1]
    assert (sample.text, sample.correct, sample.control_text, sample.control_correct) == ("1", True, "0", False)
    assert sample.control_image == bytes([0])


def test_a_blind_model_is_as_good_in_the_control(make_model, make_tools, records_of):
    model = make_model()
    model.is_blind = True
    metrics = Captioning(same_number, ["test"])(model, {"test": records_of([3, 3, 3, 4, 5])}, make_tools(5)).metrics
    assert metrics["test/caption_accuracy"] == pytest.approx(0.6)
    assert metrics["test/control_caption_accuracy"] > 0.3


def test_chance_is_what_the_captions_of_other_records_get(make_model, make_tools, records_of):
    """Six of ten records tell of a 7: the true caption of another image is right by chance with a known share."""
    records = [*records_of([7] * 6), *records_of(range(4))]
    records = [type(r)(str(i), bytes([i]), r.captions) for i, r in enumerate(records)]

    class Reads(type(make_model())):
        def write(self, visual, text, max_new_tokens):
            numbers = [int(records[int(place)].captions[0]) for place in visual.patches.flatten()]
            return torch.tensor(numbers).unsqueeze(1)

    model = Reads(torch.ones(1, 1, 1), torch.ones(1, 1))
    metrics = Captioning(same_number, ["test"])(model, {"test": records}, make_tools(5)).metrics
    assert metrics["test/caption_accuracy"] == 1.0
    assert metrics["test/chance_caption_accuracy"] == pytest.approx(30 / 90)


def test_the_same_image_again_is_no_control(make_model, make_tools, records_of):
    result = Captioning(same_number, ["test"])(make_model(), {"test": records_of([5, 5, 5])}, make_tools())
    assert "test/control_caption_accuracy" not in result.metrics
    assert result.samples[0].control_text is None


def test_word_overlap_reports_shares_and_no_accuracy(make_model, make_tools, records_of):
    result = Captioning(WordOverlap(), ["test"], limit=4)(make_model(), {"test": records_of(range(9))}, make_tools())
    assert result.metrics["test/word_f1"] == 1.0
    assert result.metrics["test/control_word_f1"] == 0.0
    assert result.metrics["test/num_captions"] == 4
    assert "test/caption_accuracy" not in result.metrics
    assert result.samples[0].correct is None


def test_without_control_nothing_is_written_twice(make_model, make_tools, records_of):
    model = make_model()
    calls = []
    write = model.write
    model.write = lambda *inputs: calls.append(1) or write(*inputs)
    metrics = Captioning(same_number, ["test"], control=False)(model, {"test": records_of(range(8))}, make_tools())
    assert len(calls) == 2
    assert not [name for name in metrics.metrics if "control" in name]


def test_faults_are_named(make_model, make_tools, records_of, caplog):
    with pytest.raises(ValueError, match=r"needs a model with .*write; Linear has none"):
        Captioning(same_number, ["test"])(torch.nn.Linear(1, 1), {"test": records_of([1])}, make_tools())
    assert Captioning(same_number)(make_model(), {"test": []}, make_tools()).metrics == {}
    assert "'test' holds no records" in caplog.text
    with pytest.raises(ValueError, match="no evaluation split 'tset'"):
        Captioning(same_number, ["tset"]).check(make_model(), {"test": []})
    with pytest.raises(ValueError, match="at least one split"):
        Captioning(same_number, [])
