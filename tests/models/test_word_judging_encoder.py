"""A text fits its image no better than its worst word does."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from vlmtrain.batch import TextBatch, VisualBatch
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.layout import Text, Visual
from vlmtrain.models.capabilities import JudgesWords
from vlmtrain.models.word_judging_encoder import WordJudgingEncoder
from vlmtrain.nn.grounded_text import GroundedText
from vlmtrain.nn.mixed_text import MixedText
from vlmtrain.nn.split_text import SplitText

TEXTS = {
    "split": partial(SplitText, width=16, text_depth=1, fusion_depth=2, num_heads=2),
    "mixed": partial(MixedText, width=16, depth=2, num_heads=2),
}
WORDS = ("a red circle above a blue one", "blue", "what is red")


def make(tokenizer: str, text: Callable[..., GroundedText] = TEXTS["split"]) -> WordJudgingEncoder:
    torch.manual_seed(0)
    model = WordJudgingEncoder(VisionTransformer(16, 8, 12, 2, 2), text, tokenizer, max_tokens=40)
    for parameter in model.parameters():
        if parameter.ndim:
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


def images(count: int) -> VisualBatch:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return VisualBatch(pixels, [1] * count, [1] * count)


def captions(model: WordJudgingEncoder, *words: str) -> TextBatch:
    return model.layout().write([[Visual(), Text(each)] for each in words], model.placeholders_per_item)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_pair_is_the_smooth_minimum_of_its_words(text: Callable[..., GroundedText], masking_tokenizer: str) -> None:
    model = make(masking_tokenizer, text)
    assert isinstance(model, JudgesWords)
    rows, features, order = captions(model, *WORDS), model.encode(images(3)), torch.tensor([2, 0, 0])
    judged = model.judge_words(features, rows, order)
    assert torch.equal(judged.word_mask, rows.attention_mask) and not rows.attention_mask.all()
    for row, mask in enumerate(rows.attention_mask):
        words = judged.words[row, mask]
        torch.testing.assert_close(judged.pairs[row], -words.neg().exp().sum().log())
        assert judged.pairs[row] <= words.min()
    assert torch.equal(model.match(features, rows, order), judged.pairs)


def test_each_row_is_judged_by_its_own_words_and_its_own_image(masking_tokenizer: str) -> None:
    model = make(masking_tokenizer)
    rows, features = captions(model, *WORDS), model.encode(images(3))
    one = model.judge_words(features, rows, torch.tensor([0, 1, 2]))
    other = model.judge_words(features, rows, torch.tensor([1, 1, 2]))
    assert not torch.allclose(one.words[0], other.words[0]) and torch.equal(one.words[1:], other.words[1:])
    alone = model.judge_words(features, captions(model, WORDS[1]), torch.tensor([1]))
    torch.testing.assert_close(alone.pairs[0], one.pairs[1])
    torch.testing.assert_close(alone.words[0], one.words[1, : alone.words.shape[1]])


def test_what_is_asked_of_words_trains_the_text_and_no_shared_space(masking_tokenizer: str) -> None:
    model = make(masking_tokenizer)
    judged = model.judge_words(model.encode(images(3)), captions(model, *WORDS), torch.arange(3))
    (judged.words.sum() + judged.pairs.sum()).backward()
    trained = {name.split(".")[0] for name, value in model.named_parameters() if value.grad is not None}
    assert trained == {"encoder", "text", "match_head"}
