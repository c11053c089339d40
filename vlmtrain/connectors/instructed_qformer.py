"""A Q-Former that is told what to look for (InstructBLIP; Dai et al. 2023, section 2.3)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vlmtrain.batch import TextBatch, VisualFeatures, VisualTokens
from vlmtrain.connectors.qformer import QFormerConnector
from vlmtrain.layout import Layout
from vlmtrain.layouts.instructed import InstructedLayout
from vlmtrain.layouts.qformer_words import load_words
from vlmtrain.nn.packing import PackedRows
from vlmtrain.nn.qformer import QFormer
from vlmtrain.nn.qformer_text import QFormerText
from vlmtrain.nn.qformer_views import read_together


@dataclass(frozen=True)
class Instructions:
    """One row of words per tile."""

    input_ids: Tensor  # [N, T]
    rows: PackedRows


class InstructedQFormerConnector(QFormerConnector):
    """Queries and prompt see each other in every self-attention; only the queries go on to the language model.

    `qformer` and `text` are those of stage 1 under the same names, so that both can start from there; of the text side
    the last layer's feed-forward has no place here, because nobody reads it.  The prompt of a sample is read along with
    each of its images.

    Args:
        encoder_width: W, of the patches.
        patches_per_tile: P; a Q-Former takes any number.
        language_width: D of the language model.
        qformer: makes the Q-Former when called with `memory_width`.
        tokenizer: name or folder of the Q-Former's own BERT-like tokenizer; [DEC] is added as in stage 1.
        max_tokens: longest prompt, special tokens included.
        vocab_size: of the tokenizer, [DEC] included; held against it, and lets `vlmtrain plan` count without it.
    """

    def __init__(
        self,
        encoder_width: int,
        patches_per_tile: int,
        language_width: int,
        qformer: Callable[..., QFormer],
        tokenizer: str,
        max_tokens: int = 128,
        vocab_size: int | None = None,
    ) -> None:
        super().__init__(encoder_width, patches_per_tile, language_width, qformer)
        self.tokenizer, num_words = load_words(tokenizer, vocab_size)
        self.max_tokens = max_tokens
        self.text = QFormerText(
            self.qformer.width,
            len(self.qformer.layers) - 1,
            num_words,
            feed_forward_width=self.qformer.feed_forward_width,
            dropout=self.qformer.dropout,
            layer_norm_eps=self.qformer.layer_norm_eps,
        )

    def layout(self, layout: Layout) -> Layout:
        return InstructedLayout(layout, self.tokenizer, self.max_tokens)

    def connect_tiles(self, patches: Tensor) -> Tensor:
        """[N, P, W] -> [N, Q, D], without being told anything."""
        return self.project(self._read(patches, None, self._silence(patches)))

    def forward(self, features: VisualFeatures, text: TextBatch | None = None) -> VisualTokens:
        told = self._silence(features.patches) if text is None else _per_tile(features, text)
        return self.pack(self.project(self._read(features.patches, features.patch_mask, told)), features)

    def _read(self, patches: Tensor, patch_mask: Tensor | None, told: Instructions) -> Tensor:
        memory = self.qformer.remember(patches, patch_mask)
        return read_together(self.qformer, self.text, memory, told.input_ids, told.rows)

    def _silence(self, patches: Tensor) -> Instructions:
        """What a sample without a prompt says: [class] [separator]."""
        ids = [0, 0] if self.tokenizer is None else [self.tokenizer.cls_token_id, self.tokenizer.sep_token_id]
        input_ids = torch.tensor(ids, device=patches.device).expand(len(patches), -1)
        return Instructions(input_ids, PackedRows.whole(len(patches), len(ids), patches.device))


def _per_tile(features: VisualFeatures, text: TextBatch) -> Instructions:
    """The prompt of sample b for every tile of every item of sample b."""
    if text.instruction is None:
        raise ValueError(
            "These rows hold no prompt for the Q-Former; write them with the layout of the model "
            "(VisionLanguageModel.layout()), not with that of its language model."
        )
    samples = [sample for sample, items in enumerate(features.items_per_sample) for _ in range(items)]
    tiles = [sample for sample, count in zip(samples, features.tiles_per_item, strict=True) for _ in range(count)]
    rows = torch.tensor(tiles, dtype=torch.long, device=text.instruction.input_ids.device)
    mask = text.instruction.attention_mask.index_select(0, rows)
    return Instructions(text.instruction.input_ids.index_select(0, rows), PackedRows.of(mask))
