"""ViLT's transformer (Kim et al. 2021, arXiv:2102.03334, section 3): ViT blocks over words and raw patches."""

import torch
from torch import Tensor, nn

from vlmtrain.encoders.vit import Block, VisionTransformer
from vlmtrain.encoders.vit_files import pretrained
from vlmtrain.models.single_stream import SingleStream
from vlmtrain.nn.post_norm import initialize_like_bert
from vlmtrain.nn.pretrained import builds_without_weights

TEXT, IMAGE = 0, 1  # rows of the modality types


class ViltStream(SingleStream):
    """Pre-norm blocks; words as BERT embeds them, patches as the encoder gives them, a type vector on each.

    The type of BERT's first segment, which ViLT carries along, is a constant and part of `positions` here.

    Args:
        patch_width: of the encoder; must be `width`.
        vocab_size: of the tokenizer.
        max_positions: longest text.
        layer_norm_eps: of the words' norm; that of the blocks is ViT's.
        vit: folder of a ViT of this size to start blocks and last norm from, as published; None: random weights.
    """

    def __init__(
        self,
        patch_width: int,
        vocab_size: int,
        width: int,
        depth: int,
        num_heads: int,
        max_positions: int = 40,
        layer_norm_eps: float = 1e-12,
        vit: str | None = None,
    ) -> None:
        super().__init__()
        if patch_width != width:
            raise ValueError(
                f"patches of width {patch_width} go into ViltStream of width {width} as they are; give both one width, "
                "or use vlmtrain.models.visual_bert_stream.VisualBertStream, which projects."
            )
        self.width, self.num_heads, self.layer_norm_eps = width, num_heads, layer_norm_eps
        self.words = nn.Embedding(vocab_size, width)
        self.positions = nn.Embedding(max_positions, width)
        self.text_norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.types = nn.Embedding(2, width)
        self.blocks = nn.ModuleList(Block(width, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.apply(initialize_like_bert)
        self.source = vit or "random"
        if vit is not None and not builds_without_weights():
            self._start_from(pretrained(vit), vit)

    def _start_from(self, vit: VisionTransformer, folder: str) -> None:
        if (vit.width, vit.depth, vit.num_heads) != (self.width, len(self.blocks), self.num_heads):
            raise ValueError(
                f"the ViT in {folder} has width {vit.width}, {vit.depth} blocks and {vit.num_heads} heads, ViltStream "
                f"{self.width}, {len(self.blocks)} and {self.num_heads}; give it the ViT's sizes, or another ViT."
            )
        self.blocks.load_state_dict(vit.blocks.state_dict())
        self.norm.load_state_dict(vit.norm.state_dict())

    def embed_text(self, input_ids: Tensor) -> Tensor:
        embedded = self.words(input_ids) + self.positions_of(self.positions, input_ids)
        return self.text_norm(embedded) + self.types.weight[TEXT]

    def embed_image(self, patches: Tensor) -> Tensor:
        return patches + self.types.weight[IMAGE]

    def run(self, x: Tensor, mask: Tensor) -> Tensor:
        closed = torch.zeros(mask.shape, dtype=x.dtype, device=x.device).masked_fill(~mask, float("-inf"))
        bias = closed[:, None, None, :]
        for block in self.blocks:
            x = block(x, bias)
        return self.norm(x)
