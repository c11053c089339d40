"""Learned vectors before everything that a frozen language model reads."""

import torch

from vlmtrain.language_models.base import LanguageModel
from vlmtrain.language_models.new_tokens import pretrained_model, with_new_tokens
from vlmtrain.layout import Text
from vlmtrain.nn.pretrained import builds_without_weights


def with_soft_prompt(language_model: LanguageModel, num_tokens: int = 20, start: str | None = None) -> LanguageModel:
    """`language_model` with a soft prompt (Lester et al. 2021, arXiv 2104.08691): rows of tokens that stand before
    every sample, images included, in training and in generation alike, and are all that trains.

    Args:
        language_model: changed in place.
        num_tokens: length of the prompt; it does not count against `max_tokens`.
        start: text whose embeddings the prompt begins as, repeated or cut to length; None: tokens drawn by chance.
    """
    if num_tokens < 1:
        raise ValueError(f"A soft prompt of {num_tokens} vectors is none; give num_tokens=20, say.")
    with_new_tokens(language_model, read=[f"<soft_{number}>" for number in range(num_tokens)])
    if builds_without_weights():
        return language_model
    layout = language_model.layout()
    extended = pretrained_model(language_model).get_input_embeddings()
    if start is None:
        ids = torch.randint(0, extended.first, (num_tokens,)).tolist()
    else:
        ids = layout.tokenizer(start, add_special_tokens=False).input_ids
    if not ids:
        raise ValueError(f"start={start!r} is no text; give words, or null for tokens drawn by chance.")
    with torch.no_grad():
        extended.rows.copy_(extended.base.weight[[ids[index % len(ids)] for index in range(num_tokens)]])
    layout.opening = list(range(extended.first, extended.first + num_tokens))
    written = layout.write_prompts([[Text("a", supervised=False)]], lambda tiles: tiles)
    if written.input_ids[0, :num_tokens].tolist() != layout.opening:
        raise ValueError(f"{type(layout).__name__} writes no opening, so a soft prompt has no place in its rows.")
    return language_model
