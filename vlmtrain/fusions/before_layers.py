"""What fusions share that act inside the language model: hooks before its layers, and a state while text is read."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Generic, TypeVar

from torch import Tensor

from vlmtrain.fusions.base import Fusion
from vlmtrain.language_models.base import LanguageModel
from vlmtrain.nn.hidden_states import change_before

State = TypeVar("State")


class BeforeLayersFusion(Fusion, Generic[State]):
    """A fusion that changes hidden states before some layers of the language model, which itself stays as it is.

    Subclasses call `act_before` in `install`, run `entering` inside `reading`, and implement `change`.  Outside of
    `entering` the language model is what it was without the fusion.
    """

    def __init__(self) -> None:
        super().__init__()
        self._state: State | None = None

    def act_before(self, language_model: LanguageModel, layers: Iterable[int]) -> None:
        """Have `change` called before these layers, counted from 0."""
        all_layers = language_model.input_layers
        for layer in layers:
            change_before(all_layers[layer], partial(self._change_while_reading, language_model, layer))

    @contextmanager
    def reading(self, state: State) -> Iterator[None]:
        """A block in which `change` is called, with `state`."""
        assert self._state is None, "one text is being read already"
        self._state = state
        try:
            yield
        finally:
            self._state = None

    @abstractmethod
    def change(self, layer: int, hidden: Tensor, state: State) -> Tensor:
        """Hidden states [R, t, D] as `layer` shall receive them.

        R is a multiple of B: under beam search the beams of a sample are consecutive rows.  t is T in the first pass;
        1 in later ones with a cache, where the position is one that was generated.
        """

    def _change_while_reading(self, language_model: LanguageModel, layer: int, hidden: Tensor) -> Tensor:
        if self._state is None:
            return hidden
        shared = language_model.shared_rows
        if shared is None:
            return self.change(layer, hidden, self._state)
        return shared.pack(self.change(layer, shared.unpack(hidden), self._state))
