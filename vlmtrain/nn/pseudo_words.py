"""Words that no vocabulary holds, put among the input embeddings of a model that somebody else wrote."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def putting_in(table: nn.Embedding, words: Tensor, places: Tensor) -> Iterator[None]:
    """A block in which `table` gives words[b] where places[b] is True, and its own rows everywhere else.

    words [B, D], places [B, T] bool.  A forward hook, as fusions use: the model keeps its modules and names, positions
    are added as ever, and gradient reaches the words.
    """
    looked_up = 0

    def put(module: nn.Module, args: tuple[Tensor, ...], embeddings: Tensor) -> Tensor:
        nonlocal looked_up
        looked_up += 1
        assert embeddings.shape[:2] == places.shape, f"{list(embeddings.shape)} of places {list(places.shape)}"
        return torch.where(places.unsqueeze(-1), words.unsqueeze(1).to(embeddings.dtype), embeddings)

    handle = table.register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()
    assert looked_up == 1, f"the table was read {looked_up} times"
