"""Sequence packing of a language model that was built without."""

from functools import partial

import torch

from vlmtrain.batch import IGNORED_TARGET
from vlmtrain.language_models.base import LanguageModel
from vlmtrain.language_models.pretrained import PretrainedLanguageModel
from vlmtrain.language_models.probes import ATTEMPT_FAILED, random_tokens, try_out
from vlmtrain.language_models.rows import PackedSamples
from vlmtrain.nn.pretrained import builds_without_weights

_LENGTHS = (7, 3, 2)  # of samples to try: the shorter two share a row


def with_packing(language_model: LanguageModel, row_length: int = 0) -> LanguageModel:
    """`language_model`, in whose training several samples of a micro-batch share a row; losses and gradients stay.

    Rows are as long as the longest sample, or `row_length` where that is more: longer rows waste less on padding, and
    attention has more pairs to pass over.  ValueError where the architecture lets neighbours hear each other: it is
    tried on a few tokens.
    """
    if not isinstance(language_model, PretrainedLanguageModel) or row_length < 0:
        raise ValueError(
            f"Packing is for language models of transformers and rows of 0 positions or more; got "
            f"{type(language_model).__name__} and row_length={row_length}."
        )
    packed = PackedSamples(row_length)
    if not builds_without_weights():
        try_out(language_model.model, partial(_check, language_model, packed))
    language_model.rows = packed
    return language_model


@torch.no_grad()
def _check(language_model: PretrainedLanguageModel, packed: PackedSamples) -> None:
    plain, was_training = language_model.rows, language_model.training
    ids = random_tokens(language_model.model, len(_LENGTHS), max(_LENGTHS))
    mask = torch.stack([torch.arange(ids.shape[1]) < length for length in _LENGTHS]).to(ids.device)
    targets = ids.masked_fill(~mask, IGNORED_TARGET)
    embeddings = language_model.embed(ids)
    language_model.eval()
    try:
        wanted = language_model.states(embeddings, mask, targets)[mask].float()
        language_model.rows = packed
        gap = (language_model.states(embeddings, mask, targets)[mask].float() - wanted).abs().max() / wanted.abs().max()
        fault = (
            "" if gap <= (1e-4 if language_model.dtype == torch.float32 else 5e-2) else f"states are off by {gap:.1%}"
        )
    except ATTEMPT_FAILED as error:
        fault = f"it fails ({error})"
    finally:
        language_model.rows = plain
        language_model.train(was_training)
    if fault:
        raise ValueError(
            f"{type(language_model.model).__name__} cannot have samples share a row: {fault}.  Leave packing out "
            "(model/packing=none), or choose a model of plain attention with positions that can be told (Llama, "
            "Qwen, OPT, T5...)."
        )
