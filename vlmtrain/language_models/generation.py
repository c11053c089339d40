"""Letting `generate` of transformers begin with embeddings."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor
from transformers import PreTrainedModel


@contextmanager
def reading_embeddings(model: PreTrainedModel) -> Iterator[None]:
    """In this block `model.generate` takes `inputs_embeds`, also where its class forgot to say that it does.

    transformers looks for the name in a signature, and Bamba, Zamba2 and Falcon-H1 hand it on in **kwargs.  Whether
    they do it right is for `check_generation` to say.
    """
    prepare = model.prepare_inputs_for_generation
    if "inputs_embeds" in inspect.signature(prepare).parameters:
        yield
        return

    # transformers reads this signature, and takes what forward takes if there is a parameter called kwargs
    def with_embeddings(input_ids: Tensor, inputs_embeds: Tensor | None = None, **kwargs: object) -> object:
        return prepare(input_ids, inputs_embeds=inputs_embeds, **kwargs)

    model.__dict__["prepare_inputs_for_generation"] = with_embeddings
    try:
        yield
    finally:
        del model.__dict__["prepare_inputs_for_generation"]
