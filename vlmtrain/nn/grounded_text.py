"""Text read by BERT layers, some of which can look at an image: what ALBEF's and BLIP's cross encoders share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.nn.checkpointing import RunsLayers
from vlmtrain.nn.packed_attention import joined, project_text, read_for_text
from vlmtrain.nn.packing import PackedRows
from vlmtrain.nn.post_norm import KeyValue, PostNormAttention, initialize_like_bert
from vlmtrain.nn.qformer import ImageKeyValue, ImageMemory, QFormerLayer
from vlmtrain.nn.qformer_text import TextHead

BERT_EPS, MAX_POSITIONS = 1e-12, 512


class GroundedText(RunsLayers, nn.Module, ABC):
    """Words, layers and BERT's masked-word head.  How the layers are arranged is for a subclass to say.

    Args:
        width: D.
        memory_widths: per layer the width of the patches it reads, None where it reads none.
        num_heads: of every attention.
        vocab_size: words, special tokens included.
        dropout: of attention weights and of what is added to the residual stream.
    """

    def __init__(
        self, width: int, memory_widths: Sequence[int | None], num_heads: int, vocab_size: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.width, self.num_heads, self.dropout = width, num_heads, dropout
        self.words = nn.Embedding(vocab_size, width)
        self.positions = nn.Embedding(MAX_POSITIONS, width)
        self.norm = nn.LayerNorm(width, eps=BERT_EPS)
        self.layers = nn.ModuleList(
            QFormerLayer(width, of_patches, num_heads, 4 * width, dropout, BERT_EPS) for of_patches in memory_widths
        )
        self.head = TextHead(width, vocab_size, BERT_EPS)
        self.apply(initialize_like_bert)

    @abstractmethod
    def read_alone(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Ids [R, T] without any image -> state of each row's first token [R, D]."""

    @abstractmethod
    def read_together(self, memory: ImageMemory, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Row r with image r of `memory` -> state of each row's first token [R, D]."""

    def read_hidden(self, memory: ImageMemory, input_ids: Tensor, attention_mask: Tensor, wanted: Tensor) -> Tensor:
        """Row r with image r of `memory` -> states of the positions `wanted` [R, T], row by row [s, D].

        All layers but the last read all words; the last computes nothing else.
        """
        rows, visible = PackedRows.of(attention_mask), attention_mask[:, None, None, :]
        states = self.enter(input_ids, places_of(attention_mask), rows)
        states = self.read_layers(self.stack()[:-1], memory.layers[:-1], states, rows, visible)
        return self.run(
            _some_of_layer, self.stack()[-1], states, rows, PackedRows.of(wanted), visible, memory.layers[-1]
        )

    def stack(self) -> list[QFormerLayer]:
        """The layers in order."""
        return cast(list[QFormerLayer], list(self.layers))

    def remember(self, patches: Tensor, patch_mask: Tensor | None = None) -> ImageMemory:
        """Patches [N, P, W], False on padding [N, P] -> keys and values of all layers.  Once per batch."""
        patches = patches.to(self.words.weight.dtype)
        blocks = [layer.cross_attention for layer in self.stack()]
        mask = None if patch_mask is None else patch_mask[:, None, None, :]
        return ImageMemory(
            [None if block is None else ImageKeyValue(*block.remember(patches), mask) for block in blocks]
        )

    def enter(self, input_ids: Tensor, places: Tensor, rows: PackedRows) -> Tensor:
        """Ids and their places in the text, both [R, T] -> packed states at the entrance of the first layer [n, D]."""
        if rows.length > MAX_POSITIONS:
            raise ValueError(f"text of {rows.length} tokens exceeds the {MAX_POSITIONS} positions; lower max_tokens")
        embedded = self.words(rows.pack(input_ids)) + self.positions(rows.pack(places))
        return F.dropout(self.norm(embedded), self.dropout, self.training)

    def logits(self, states: Tensor) -> Tensor:
        """[s, D] -> [s, vocabulary]"""
        return self.head(states, self.words.weight)

    def read_layers(
        self,
        layers: Sequence[QFormerLayer],
        memory: Sequence[ImageKeyValue | None],
        states: Tensor,
        rows: PackedRows,
        visible: Tensor,
    ) -> Tensor:
        """Packed text [n, D] through `layers`, each with its own image memory or none -> [n, D]."""
        for layer, of_image in zip(layers, memory, strict=True):
            states = self.run(bidirectional_layer, layer, states, rows, visible, of_image)
        return states

    def read_first(
        self,
        layers: Sequence[QFormerLayer],
        memory: Sequence[ImageKeyValue | None],
        states: Tensor,
        rows: PackedRows,
        visible: Tensor,
    ) -> Tensor:
        """Like `read_layers`, but -> states of the first tokens [R, D]: the last layer computes nothing else."""
        states = self.read_layers(layers[:-1], memory[:-1], states, rows, visible)
        return self.run(_first_of_layer, layers[-1], states, rows, visible, memory[-1])


def bidirectional_layer(
    layer: QFormerLayer, text: Tensor, rows: PackedRows, visible: Tensor, of_image: ImageKeyValue | None
) -> Tensor:
    """Packed text [n, D] reads itself where visible [R, 1, 1, T], then the image if there is one -> [n, D]."""
    return grounded_layer(layer, layer.self_attention, text, rows, visible, of_image)[0]


def grounded_layer(
    layer: QFormerLayer,
    attention: PostNormAttention,
    text: Tensor,
    rows: PackedRows,
    mask: Tensor,
    of_image: ImageKeyValue | None,
    before: KeyValue | None = None,
) -> tuple[Tensor, KeyValue]:
    """One layer with `attention` as its self-attention: packed text [n, D] -> [n, D], and the keys and values it read.

    `before` is what was kept of the same rows' earlier tokens; mask [R, 1, 1 | T, S] spans it and the text.
    """
    own = project_text(attention, text, rows)
    memory = own if before is None else joined(before, own)
    text = read_for_text(attention, text, rows, memory, mask)
    if of_image is not None:
        assert layer.cross_attention is not None
        text = read_for_text(layer.cross_attention, text, rows, KeyValue(*of_image[:2]), of_image.mask)
    return layer.feed_forward(text), memory


def _first_of_layer(
    layer: QFormerLayer, text: Tensor, rows: PackedRows, visible: Tensor, of_image: ImageKeyValue | None
) -> Tensor:
    """Packed text [n, D] -> what the layer makes of each row's first token [R, D]."""
    memory = project_text(layer.self_attention, text, rows)
    first = layer.self_attention(rows.pad(text)[:, :1], memory, visible)
    if of_image is not None:
        assert layer.cross_attention is not None
        first = layer.cross_attention(first, KeyValue(*of_image[:2]), of_image.mask)
    return layer.feed_forward(first).squeeze(1)


def _some_of_layer(
    layer: QFormerLayer,
    text: Tensor,
    rows: PackedRows,
    wanted: PackedRows,
    visible: Tensor,
    of_image: ImageKeyValue | None,
) -> Tensor:
    """Packed text [n, D] -> what the layer makes of the positions of `wanted` [s, D]."""
    memory = project_text(layer.self_attention, text, rows)
    some = read_for_text(layer.self_attention, wanted.pack(rows.pad(text)), wanted, memory, visible)
    if of_image is not None:
        assert layer.cross_attention is not None
        some = read_for_text(layer.cross_attention, some, wanted, KeyValue(*of_image[:2]), of_image.mask)
    return layer.feed_forward(some)


def places_of(attention_mask: Tensor) -> Tensor:
    """[R, T] bool -> which word of its text each token is, wherever the padding stands [R, T]."""
    return (attention_mask.cumsum(1) - 1).clamp(min=0)
