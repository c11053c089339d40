"""Which words are hidden, what stands in their place, and that nothing but the text and the key decides it."""

from collections import Counter
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmtrain.batch import IGNORED_TARGET
from vlmtrain.language_models.tokenizers import load_tokenizer
from vlmtrain.layout import Hiding, Text, Visual
from vlmtrain.layouts.masked import MaskedPairLayout, choose_words

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "tri", "##angle", "##s", "a", "red", "of", "left", "is", "big"]
CAPTIONS = st.lists(st.sampled_from(["triangles", "triangle", "a", "red", "of", "left", "is"]), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> MaskedPairLayout:
    from transformers import BertTokenizerFast

    folder = tmp_path_factory.mktemp("words")
    BertTokenizerFast(vocab={word: index for index, word in enumerate(WORDS)}).save_pretrained(folder)
    return MaskedPairLayout(load_tokenizer(str(folder)), 16)


def nothing(tiles: int) -> int:
    return 0


def hidden(string: str, key: int = 0, share: float = 0.15) -> list:
    return [Visual(), Text(string, hiding=Hiding(share, key))]


@settings(max_examples=60, deadline=None)
@given(st.lists(CAPTIONS, min_size=1, max_size=4), st.integers(0, 2**63 - 1), st.floats(0.05, 1.0))
def test_whole_words_are_hidden_and_nothing_else_changes(layout, captions, key, share):
    strings = [" ".join(caption) for caption in captions]
    text = layout.write([hidden(string, key + row, share) for row, string in enumerate(strings)], nothing)
    masked = text.masked
    plain = layout.write([[Visual(), Text(string)] for string in strings], nothing)
    assert torch.equal(text.input_ids, plain.input_ids) and torch.equal(text.targets, plain.targets)
    is_hidden = masked.targets != IGNORED_TARGET
    assert torch.equal(masked.targets[is_hidden], text.input_ids[is_hidden]), "what stood there is to be predicted"
    assert torch.equal(masked.input_ids[~is_hidden], text.input_ids[~is_hidden])
    assert not set(text.input_ids[is_hidden].tolist()) & {0, 2, 3}, "no special token is hidden, no padding"
    assert masked.supervised_per_sample == is_hidden.sum(1).tolist() and masked.supervised == int(is_hidden.sum())
    assert torch.equal(masked.attention_mask, text.attention_mask)
    for row, words in enumerate(layout.words(strings)):
        whole = [place for _, place in words]
        for place in whole:
            assert len({bool(is_hidden[row, position]) for position in place}) == 1
        assert is_hidden[row].any() or not whole


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.floats(0.01, 1.0), st.integers(0, 2**32))
def test_about_the_share_of_all_tokens_and_one_word_at_least(lengths, share, key):
    ends = [sum(lengths[: index + 1]) for index in range(len(lengths))]
    words = [list(range(end - length, end)) for end, length in zip(ends, lengths, strict=True)]
    chosen = choose_words(words, share, Random(key))
    wanted = max(1, round(share * sum(lengths)))
    assert chosen == sorted(set(chosen)) and chosen
    assert len(chosen) <= max(wanted, max(lengths))
    for word in words:
        assert len(set(word) & set(chosen)) in (0, len(word)), "whole words"
    left = [word for word in words if not set(word) & set(chosen)]
    assert all(len(chosen) + len(word) > wanted for word in left), "no word that fits is passed over"


def test_eighty_ten_ten(layout):
    """Devlin et al.: of hidden tokens 80 % show the mask, 10 % any word, 10 % themselves."""
    shown = Counter()
    for key in range(1500):
        masked = layout.write([hidden("a red of left is big", key, 0.5)], nothing).masked
        row, column = (masked.targets != IGNORED_TARGET).nonzero(as_tuple=True)
        for token, target in zip(masked.input_ids[row, column], masked.targets[row, column], strict=True):
            shown["mask" if token == 4 else "itself" if token == target else "other"] += 1
            assert int(token) == 4 or int(token) > 4, "a word drawn at random is no special token"
    total = sum(shown.values())
    assert total == 4500
    chance_of_itself = 0.1 / 9  # of nine ordinary words any may be drawn, the hidden one too
    assert abs(shown["mask"] / total - 0.8) < 0.02
    assert abs(shown["itself"] / total - (0.1 + chance_of_itself)) < 0.02
    assert abs(shown["other"] / total - (0.1 - chance_of_itself)) < 0.02


def test_every_word_is_hidden_as_often(layout):
    often = Counter()
    for key in range(1200):
        masked = layout.write([hidden("a red of left is big", key)], nothing).masked
        often.update((masked.targets[0] != IGNORED_TARGET).nonzero().flatten().tolist())
    assert set(often) == {1, 2, 3, 4, 5, 6} and all(abs(count - 200) < 60 for count in often.values())


def test_what_is_hidden_depends_on_text_and_key_alone(layout):
    """Not on the batch, its padding or the state of any generator: so it is the same on any rank and after resuming."""
    captions = ["a big red triangle", "left of a triangle is a big triangle", "red"]
    together = layout.write([hidden(caption, key) for key, caption in enumerate(captions)], nothing).masked
    for key, caption in enumerate(captions):
        torch.manual_seed(key)
        alone = layout.write([hidden(caption, key)], nothing).masked
        length = alone.input_ids.shape[1]
        assert torch.equal(alone.input_ids[0], together.input_ids[key, :length])
        assert torch.equal(alone.targets[0], together.targets[key, :length])
    other = [layout.write([hidden(captions[1], key)], nothing).masked.targets[0].tolist() for key in range(20)]
    assert len({tuple(targets) for targets in other}) > 5, "another key hides other words"


def test_only_text_that_is_to_be_hidden_is(layout):
    parts = [Text("a red", supervised=False), *hidden("big triangle", share=1.0)]
    masked = layout.write([parts, [Text("left of")]], nothing).masked
    assert (masked.targets[0] != IGNORED_TARGET).tolist() == [False, False, False, True, True, True, False]
    assert (masked.targets[1] == IGNORED_TARGET).all() and masked.supervised_per_sample == [3, 0]
    assert layout.write([[Text("left of")]], nothing).masked is None


def test_what_the_limit_cuts_off_is_not_hidden(layout):
    long = " ".join(["red"] * 13 + ["triangles"])  # the last word begins on the last place before the separator
    text = layout.write([hidden(long, share=1.0)], nothing)
    assert text.truncated == 1 and text.input_ids.shape == (1, 16)
    assert (text.masked.targets[0] != IGNORED_TARGET).nonzero().flatten().tolist() == list(range(1, 15))
    assert int(text.masked.input_ids[0, 15]) == 3
    assert [word for word, _ in layout.words([long])[0]] == ["red"] * 13, "a word cut in two is none"


def test_one_word_of_each_row_is_put_behind_the_mask(layout):
    strings = ["a red triangle", "left of triangles"]
    words = layout.words(strings)
    assert words[0] == [("a", [1]), ("red", [2]), ("triangle", [3, 4])]
    assert words[1][2] == ("triangles", [3, 4, 5])
    masked = layout.hide_words(layout.write_whole(strings), [words[0][1][1], words[1][2][1]])
    assert masked.input_ids.tolist() == [[2, 8, 4, 5, 6, 3, 0], [2, 11, 10, 4, 4, 4, 3]]
    assert masked.targets[0].tolist() == [IGNORED_TARGET] * 2 + [9] + [IGNORED_TARGET] * 4
    assert masked.targets[1].tolist() == [IGNORED_TARGET] * 3 + [5, 6, 7] + [IGNORED_TARGET]
    assert masked.supervised_per_sample == [1, 3]
    assert layout.words([]) == []


def test_a_tokenizer_without_a_mask_is_named(byte_tokenizer):
    with pytest.raises(ValueError, match="has no mask token"):
        MaskedPairLayout(load_tokenizer(byte_tokenizer), 16)
