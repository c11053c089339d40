"""Gathering a global batch from micro-batches whose texts are of different lengths."""

from dataclasses import replace

import torch
from training_toy import toy_batch

from vlmtrain.batch import IGNORED_TARGET
from vlmtrain.training.accelerator import build_accelerator
from vlmtrain.training.survey import gather_everyone


def test_texts_are_padded_alike_and_stand_in_sample_order() -> None:
    cuts = [toy_batch([0, 1], 0), toy_batch([3, 4], 0)]  # of 1, 2, 4 and 5 tokens
    whole = toy_batch([0, 1, 3, 4], 0)
    names = [{"text": torch.arange(2.0) + 2 * index} for index in range(2)]
    everyone = gather_everyone(build_accelerator("fp32"), names, [batch.text for batch in cuts])
    assert everyone.embeddings["text"].tolist() == [0, 1, 2, 3]
    assert torch.equal(everyone.text.input_ids, whole.text.input_ids)
    assert torch.equal(everyone.text.attention_mask, whole.text.attention_mask)
    assert everyone.text.targets is not None and torch.equal(everyone.text.targets, whole.text.targets)
    assert everyone.text.targets[0, 1] == IGNORED_TARGET
    assert everyone.text.supervised == whole.text.supervised and everyone.text.attention_mask.dtype == torch.bool


def test_prompts_of_a_connector_are_gathered_like_any_rows() -> None:
    cuts = [toy_batch([0, 1], 0).text, toy_batch([3, 4], 0).text]
    told = [
        replace(text, instruction=replace(other, targets=None))
        for text, other in zip(cuts, reversed(cuts), strict=True)
    ]
    names = [{"text": torch.arange(2.0)} for _ in range(2)]
    everyone = gather_everyone(build_accelerator("fp32"), names, told)
    whole = toy_batch([3, 4, 0, 1], 0).text
    assert everyone.text.instruction is not None and everyone.text.instruction.targets is None
    assert torch.equal(everyone.text.instruction.input_ids, whole.input_ids)
    assert torch.equal(everyone.text.instruction.attention_mask, whole.attention_mask)
