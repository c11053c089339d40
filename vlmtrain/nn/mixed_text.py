"""The text side of BLIP's mixture of encoder and decoder, MED (Li et al. 2022, section 3.1 and figure 2).

Three readings of one set of weights: without the image, with it, and with it from left to right.  Only the
self-attentions of the last are its own, as the paper finds best (section 4.4).
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from vlmtrain.nn.bert_weights import BertWeights
from vlmtrain.nn.grounded_text import BERT_EPS, GroundedText, grounded_layer, places_of
from vlmtrain.nn.packing import PackedRows
from vlmtrain.nn.post_norm import KeyValue, PostNormAttention, initialize_like_bert
from vlmtrain.nn.pretrained import builds_without_weights
from vlmtrain.nn.qformer import ImageMemory


class MixedText(GroundedText):
    """A BERT with a cross-attention in every layer, used or passed by, and a second set of self-attentions.

    Args:
        width: D.
        depth: layers.
        num_heads: of every attention.
        memory_width: of the patches, W.
        vocab_size: words, special tokens included.
        dropout: of attention weights and of what is added to the residual stream.
        bert: folder of a BERT to start from, both sets of self-attentions; cross-attention starts new.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        num_heads: int,
        memory_width: int,
        vocab_size: int,
        dropout: float = 0.0,
        bert: str | None = None,
    ) -> None:
        super().__init__(width, [memory_width] * depth, num_heads, vocab_size, dropout)
        self.causal_attentions = nn.ModuleList(
            PostNormAttention(width, width, num_heads, dropout, BERT_EPS) for _ in range(depth)
        )
        self.causal_attentions.apply(initialize_like_bert)
        if bert is not None and not builds_without_weights():
            weights = BertWeights(bert, "the mixture of encoder and decoder")
            weights.check_sizes(width, depth, num_heads, 4 * width)
            weights.copy_embeddings(self.words, self.positions, self.norm)
            for index, (layer, causal) in enumerate(zip(self.stack(), self.causal_stack(), strict=True)):
                weights.copy_attention(index, layer.self_attention)
                weights.copy_attention(index, causal)
                weights.copy_feed_forward(index, layer.feed_forward)
            weights.copy_head(self.head.dense, self.head.norm, self.head.bias)
            weights.tell({"text": self})

    def causal_stack(self) -> list[PostNormAttention]:
        """The decoder's self-attentions in order."""
        return cast(list[PostNormAttention], list(self.causal_attentions))

    def read_alone(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self._read(ImageMemory([None] * len(self.layers)), input_ids, attention_mask)

    def read_together(self, memory: ImageMemory, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self._read(memory, input_ids, attention_mask)

    def _read(self, memory: ImageMemory, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        rows = PackedRows.of(attention_mask)
        states = self.enter(input_ids, places_of(attention_mask), rows)
        return self.read_first(self.stack(), memory.layers, states, rows, attention_mask[:, None, None, :])

    def read_causally(
        self,
        memory: ImageMemory,
        input_ids: Tensor,
        attention_mask: Tensor,
        rows: PackedRows,
        kept: list[KeyValue] | None = None,
    ) -> tuple[Tensor, list[KeyValue]]:
        """Each token reads the image and the tokens before it -> states at the positions of `rows` [n, D].

        Args:
            memory: row r reads image r.
            input_ids: [R, T], the tokens that are new.
            attention_mask: [R, S] bool over the tokens of `kept` and the new ones.
            rows: which of the new ones are computed; no real one before a computed one may be left out.
            kept: what an earlier call gave for the S - T tokens before.
        """
        new = input_ids.shape[1]
        causal = torch.ones(new, attention_mask.shape[1], dtype=torch.bool, device=input_ids.device)
        mask = (causal.tril(attention_mask.shape[1] - new) & attention_mask[:, None, :]).unsqueeze(1)  # [R, 1, T, S]
        states = self.enter(input_ids, places_of(attention_mask)[:, -new:], rows)
        before: Sequence[KeyValue | None] = kept or [None] * len(self.layers)
        remembered = []
        for layer, attention, of_image, its in zip(
            self.stack(), self.causal_stack(), memory.layers, before, strict=True
        ):
            states, read = self.run(grounded_layer, layer, attention, states, rows, mask, of_image, its)
            remembered.append(read)
        return states, remembered
