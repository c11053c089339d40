"""CoCa's text decoder: below, text by itself with a class token at its end; above, text that looks at an image."""

import torch
from torch import Tensor, nn

from vlmtrain.nn.checkpointing import Checkpointable, checkpointed
from vlmtrain.nn.pre_norm import CrossBlock, SelfBlock, causal


class TwoPartDecoder(Checkpointable, nn.Module):
    """Yu et al. 2022 (arXiv:2205.01917), section 3.2: unimodal layers, then as many pairs of self- and cross-attention.

    Causal throughout.  The class token stands behind the text, at a position of its own whatever the text's length, so
    that it has read all of it and no word has read the class token.

    Args:
        vocab_size: words.
        width: D.
        depth: unimodal layers.
        multimodal_depth: pairs of layers above.
        num_heads: of every attention.
        max_tokens: longest text.
    """

    def __init__(
        self, vocab_size: int, width: int, depth: int, multimodal_depth: int, num_heads: int, max_tokens: int
    ) -> None:
        super().__init__()
        self.width, self.max_tokens = width, max_tokens
        self.words = nn.Embedding(vocab_size, width)
        self.class_token = nn.Parameter(torch.empty(width))
        self.positions = nn.Parameter(torch.empty(max_tokens + 1, width))  # the last one is the class token's
        self.unimodal = nn.ModuleList(SelfBlock(width, num_heads, depth) for _ in range(depth))
        self.class_norm = nn.LayerNorm(width)
        self.multimodal = nn.ModuleList(SelfBlock(width, num_heads, multimodal_depth) for _ in range(multimodal_depth))
        self.looks = nn.ModuleList(CrossBlock(width, num_heads, multimodal_depth) for _ in range(multimodal_depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab_size, bias=False)
        nn.init.normal_(self.words.weight, std=0.02)
        nn.init.normal_(self.class_token, std=0.01)
        nn.init.normal_(self.positions, std=0.01)
        nn.init.normal_(self.head.weight, std=width**-0.5)

    def read(self, input_ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Text by itself: class vectors [B, D] and states of the words [B, T, D].  Padding may stand on either side."""
        places = (mask.cumsum(dim=1) - 1).clamp(min=0)
        if input_ids.shape[1] > self.max_tokens:
            raise ValueError(f"a row of {input_ids.shape[1]} tokens; this decoder has positions for {self.max_tokens}")
        words = self.words(input_ids) + self.positions[places]
        class_token = (self.class_token + self.positions[-1]).expand(len(words), 1, -1)
        x = torch.cat([words, class_token], dim=1)
        counted = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        visible = causal(x.shape[1], x.device) & counted.unsqueeze(1)
        with checkpointed(self.unimodal, self.is_checkpointed):
            for block in self.unimodal:
                x = block(x, visible)
        return self.class_norm(x[:, -1]), x[:, :-1]

    def look(self, states: Tensor, mask: Tensor, memory: Tensor) -> Tensor:
        """States of the words [B, T, D] read an image [B, M, D]: [B, T, D], ready for the head."""
        visible = causal(states.shape[1], states.device) & mask.unsqueeze(1)
        with checkpointed([*self.multimodal, *self.looks], self.is_checkpointed):
            for block, look in zip(self.multimodal, self.looks, strict=True):
                states = look(block(states, visible), memory)
        return self.norm(states)
