"""Visual tokens in stacks: fewer positions, and several layers that tokens enter at (DeepStack, arXiv:2406.04334)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmtrain.batch import TextBatch, VisualTokens
from vlmtrain.fusions.before_layers import BeforeLayersFusion
from vlmtrain.language_models.base import LanguageModel


@dataclass(frozen=True)
class Stacks:
    """What is still to enter."""

    added: dict[int, Tensor]  # layer -> [B, T, D], zeros where there is text
    begun: set[int] = field(default_factory=set)  # layers that the prompt has passed


class DeepStack(BeforeLayersFusion[Stacks]):
    """Each placeholder holds a stack of neighbouring visual tokens: the first is the input, the others are added to
    the hidden states before layers 1, 2...

    With `num_layers` 1 it is Interleave; with more, an item takes up so many times fewer positions.
    """

    def __init__(self, language_width: int, num_layers: int = 4) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers {num_layers}: tokens enter at one layer at least.")
        self.num_layers = num_layers

    def install(self, language_model: LanguageModel) -> None:
        depth = len(language_model.input_layers)
        if depth < self.num_layers:
            raise ValueError(
                f"num_layers {self.num_layers} of a language model of {depth} layers; "
                f"set model.fusion.num_layers to {depth} or less."
            )
        self.act_before(language_model, range(1, self.num_layers))

    def placeholders(self, visual_tokens: int) -> int:
        return -(-visual_tokens // self.num_layers)

    @contextmanager
    def entering(self, language_model: LanguageModel, text: TextBatch, visual: VisualTokens) -> Iterator[Tensor]:
        announced, made = sum(visual.tokens_per_item), len(visual.embeddings)
        stacks = sum(self.placeholders(count) for count in visual.tokens_per_item)
        if stacks != text.placeholders or announced != made:
            raise ValueError(
                f"The text leaves room for {text.placeholders} stacks of visual tokens, the connector announced "
                f"{stacks} ({announced} tokens) and made {made} tokens.  "
                "Does the collator ask this model's `placeholders_per_item`?"
            )
        words, places = language_model.embed(text.input_ids), text.visual_mask.unsqueeze(-1)
        first, *others = self._stack(visual).to(words.dtype).unbind(1)
        nothing = torch.zeros_like(words)
        added = {layer: nothing.masked_scatter(places, tokens) for layer, tokens in enumerate(others, 1)}
        with self.reading(Stacks(added)):
            yield words.masked_scatter(places, first)

    def change(self, layer: int, hidden: Tensor, state: Stacks) -> Tensor:
        added, length = state.added[layer], hidden.shape[1]
        if length == 1 and layer in state.begun:
            return hidden  # a generated position
        state.begun.add(layer)
        assert length >= added.shape[1], f"{length} of {added.shape[1]} positions: prompts are read in one piece"
        beams = len(hidden) // len(added)
        grown = F.pad(added, (0, 0, 0, length - added.shape[1]))
        return hidden + grown.repeat_interleave(beams, dim=0).to(hidden.dtype)

    def _stack(self, visual: VisualTokens) -> Tensor:
        """[V, D] -> [positions, num_layers, D], the last stack of an item filled up with zeros."""
        filled, token = [], 0
        for count in visual.tokens_per_item:
            missing = self.placeholders(count) * self.num_layers - count
            filled += [*range(token, token + count), *[-1] * missing]
            token += count
        embeddings = visual.embeddings
        with_zeros = torch.cat([embeddings, embeddings.new_zeros(1, embeddings.shape[-1])])
        index = torch.tensor(filled, dtype=torch.long) % (token + 1)  # -1 is the row of zeros
        return with_zeros.index_select(0, index.to(embeddings.device)).unflatten(0, (-1, self.num_layers))
