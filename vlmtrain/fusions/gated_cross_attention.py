"""New layers between those of a frozen language model, which read the images (Flamingo, arXiv:2204.14198)."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from einops import rearrange
from torch import Tensor, nn

from vlmtrain.batch import TextBatch, VisualTokens
from vlmtrain.fusions.before_layers import BeforeLayersFusion
from vlmtrain.fusions.gated_block import GatedBlock
from vlmtrain.fusions.visual_memory import VisualMemory, visual_memory
from vlmtrain.language_models.base import LanguageModel
from vlmtrain.nn.autocast import in_own_precision
from vlmtrain.nn.checkpointing import Checkpointable, checkpointed
from vlmtrain.nn.cross_attention import Remembered


@dataclass(frozen=True)
class Reading:
    """One text being read."""

    memory: VisualMemory
    autocast: Callable[[], torch.autocast]  # as it is around the language model, which may have switched it off
    remembered: dict[str, Remembered] = field(default_factory=dict)  # per block, from the first pass of a generation


class GatedCrossAttention(Checkpointable, BeforeLayersFusion[Reading]):
    """A gated block before every n-th layer; each position reads the last item at or before it, and nothing else.

    With n = 4 the blocks stand before layers 3, 7, 11... counted from 0, as in OpenFlamingo and Llama-3.2-Vision;
    Flamingo's paper says only how often, IDEFICS begins before layer 0.  Blocks are named after those layers.

    An item takes up one position of the text.  What the language model reads there is its own embedding of the
    placeholder plus a trained vector that starts at 0: OpenFlamingo's trained `<image>` embedding, without a new token.

    Args:
        language_width: D.
        block: makes a GatedBlock from `width`.
        every_n_layers: n.
    """

    def __init__(self, language_width: int, block: Callable[..., GatedBlock], every_n_layers: int = 4) -> None:
        super().__init__()
        if every_n_layers < 1:
            raise ValueError(f"every_n_layers {every_n_layers}: give at least 1, a block before every layer.")
        self.language_width = language_width
        self.every_n_layers = every_n_layers
        self.make_block = partial(block, width=language_width)
        self.blocks = nn.ModuleDict()
        self.placeholder_offset = nn.Parameter(torch.zeros(language_width))

    def install(self, language_model: LanguageModel) -> None:
        depth = len(language_model.input_layers)
        layers = range(self.every_n_layers - 1, depth, self.every_n_layers)
        if not layers:
            raise ValueError(
                f"every_n_layers {self.every_n_layers} puts no block into a language model of {depth} layers; "
                f"set model.fusion.every_n_layers to {depth} or less."
            )
        self.blocks.update({str(layer): self.make_block() for layer in layers})
        self.act_before(language_model, layers)

    def wrapping_units(self) -> Iterable[nn.Module]:
        return self.blocks.values()

    def placeholders(self, visual_tokens: int) -> int:
        return 1

    @contextmanager
    def entering(self, language_model: LanguageModel, text: TextBatch, visual: VisualTokens) -> Iterator[Tensor]:
        words = language_model.embed(text.input_ids)
        embeddings = words + (text.visual_mask.unsqueeze(-1) * self.placeholder_offset).to(words.dtype)
        kind = words.device.type
        autocast = partial(
            torch.autocast, kind, torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind)
        )
        with self.reading(Reading(visual_memory(text, visual), autocast)):
            yield embeddings

    def change(self, layer: int, hidden: Tensor, state: Reading) -> Tensor:
        name, memory = str(layer), state.memory
        block, samples, rows = self.blocks[name], len(memory.tokens), len(hidden)
        assert rows % samples == 0, f"{rows} rows of text for {samples} samples"
        if hidden.shape[-1] != self.language_width:
            raise ValueError(
                f"This language model's layers are {hidden.shape[-1]} wide and its embeddings {self.language_width} "
                "(it projects them); gated cross-attention needs both alike.  Choose another language model."
            )
        # beams of a sample see the same items: they become further positions of one row, and nothing is repeated
        x = rearrange(hidden, "(b beams) t d -> b (beams t) d", b=samples)
        visible = memory.visible_to(hidden.shape[1]).repeat(1, rows // samples, 1)
        with (
            state.autocast(),
            in_own_precision(hidden.device, self.placeholder_offset.dtype),
            checkpointed([block], self.is_checkpointed),
        ):
            x, remembered = block(x, memory.tokens, visible, state.remembered.get(name))
        if not torch.is_grad_enabled():
            state.remembered[name] = remembered
        return rearrange(x, "b (beams t) d -> (b beams) t d", t=hidden.shape[1])
