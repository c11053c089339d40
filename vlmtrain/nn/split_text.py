"""ALBEF's text: the lower layers read text alone, the upper ones with the image (Li et al. 2021, section 3.1)."""

from torch import Tensor

from vlmtrain.nn.bert_weights import BertWeights
from vlmtrain.nn.grounded_text import GroundedText, places_of
from vlmtrain.nn.packing import PackedRows
from vlmtrain.nn.pretrained import builds_without_weights
from vlmtrain.nn.qformer import ImageMemory


class SplitText(GroundedText):
    """One BERT cut in two.

    Args:
        width: D.
        text_depth: layers that see no image; their first token is the text's embedding.
        fusion_depth: layers above them, each with a cross-attention.
        num_heads: of every attention.
        memory_width: of the patches, W.
        vocab_size: words, special tokens included.
        dropout: of attention weights and of what is added to the residual stream.
        bert: folder of a BERT of all layers to start from; cross-attention starts new.
    """

    def __init__(
        self,
        width: int,
        text_depth: int,
        fusion_depth: int,
        num_heads: int,
        memory_width: int,
        vocab_size: int,
        dropout: float = 0.0,
        bert: str | None = None,
    ) -> None:
        if text_depth < 1 or fusion_depth < 1:
            raise ValueError(f"text_depth {text_depth} and fusion_depth {fusion_depth}: give at least one layer each")
        super().__init__(width, [None] * text_depth + [memory_width] * fusion_depth, num_heads, vocab_size, dropout)
        self.text_depth = text_depth
        if bert is not None and not builds_without_weights():
            weights = BertWeights(bert, "the split text encoder")
            weights.check_sizes(width, len(self.layers), num_heads, 4 * width)
            weights.copy_embeddings(self.words, self.positions, self.norm)
            for index, layer in enumerate(self.stack()):
                weights.copy_attention(index, layer.self_attention)
                weights.copy_feed_forward(index, layer.feed_forward)
            weights.copy_head(self.head.dense, self.head.norm, self.head.bias)
            weights.tell({"text": self})

    def read_alone(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        rows = PackedRows.of(attention_mask)
        states = self.enter(input_ids, places_of(attention_mask), rows)
        lower = self.stack()[: self.text_depth]
        return self.read_first(lower, [None] * len(lower), states, rows, attention_mask[:, None, None, :])

    def read_together(self, memory: ImageMemory, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        rows = PackedRows.of(attention_mask)
        states = self.enter(input_ids, places_of(attention_mask), rows)
        return self.read_first(self.stack(), memory.layers, states, rows, attention_mask[:, None, None, :])
