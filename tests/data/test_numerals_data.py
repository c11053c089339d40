"""Drawn numerals, and the real digits that they prepare for."""

import io
import pickle
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from vlmtrain.data.handwritten_digits import HandwrittenDigits
from vlmtrain.data.numerals.draw import INKS, SIDES
from vlmtrain.data.numerals.strokes import NAMES
from vlmtrain.data.numerals_data import Numerals, captions_of
from vlmtrain.language_models.tokenizers import load_tokenizer


def grey(image: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(image)) as opened:
        return np.asarray(opened.convert("L")).astype(int)


def test_class_names_are_in_no_caption_of_that_wording() -> None:
    asked = {template.format(name) for template in Numerals.templates for name in NAMES}
    captions = {
        caption for number in range(10) for ink in INKS for pen in ("thin", "thick")
        for caption in captions_of(number, ink, pen)
    }  # fmt: skip
    assert not asked & captions
    assert not any(f"digit {name}" in caption for caption in captions for name in NAMES)
    assert any("digit" in caption for caption in captions), "the word alone is known"


def test_the_tokenizer_of_the_experiment_spells_every_name() -> None:
    from vlmtrain.config.embedded import resolve_source

    tokenizer = load_tokenizer(resolve_source("embedded:opt_scenes"))
    for name in NAMES:
        text = f"a picture of the digit {name}"
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True).strip() == text


def test_numerals_come_evenly_differ_and_are_the_same_each_time() -> None:
    data = Numerals(num_train=20, num_test=10)
    records = [data.train.read(index) for index in range(20)]
    assert set(Counter(record.extra["class"] for record in records).values()) == {2}
    assert len({record.image for record in records}) == 20
    assert [pickle.loads(pickle.dumps(data.train)).read(index) for index in range(20)] == records
    assert not {record.image for record in records} & {data.evaluation["test"].read(i).image for i in range(10)}
    for record in records:
        pixels = grey(record.image)
        assert pixels.shape[0] == pixels.shape[1] and pixels.shape[0] in SIDES
        assert pixels.max() - pixels.min() > 30, "the ink is seen"


def test_digits_are_those_of_scikit_learn_each_once() -> None:
    data = HandwrittenDigits(num_shots=2)
    loaded, source = load_digits(), data.evaluation["handwritten"]
    assert len(data.train) == 20 and len(data.train) + len(source) == 1797
    assert not {data.train.key(i) for i in range(20)} & {source.key(i) for i in range(len(source))}
    assert Counter(data.train.read(i).extra["class"] for i in range(20)) == dict.fromkeys(NAMES, 2)
    record = source.read(100)
    index = int(record.key.removeprefix("scan-"))
    assert record.extra["class"] == NAMES[loaded.target[index]]
    np.testing.assert_allclose(grey(record.image), loaded.images[index] * 255 / 16, atol=1)
    assert len(HandwrittenDigits().evaluation["handwritten"]) == 1797


def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        HandwrittenDigits(-1)
    monkeypatch.setitem(__import__("sys").modules, "sklearn", None)
    with pytest.raises(ValueError, match=r"vlmtrain\[evaluation\]"):
        HandwrittenDigits()
