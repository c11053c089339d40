"""A whole text tower of open_clip, with its own tokenizer, pooling and projection."""

from typing import Any

from torch import Tensor, nn

from vlmtrain.batch import TextBatch
from vlmtrain.language_models.text_encoder import TextEncoder
from vlmtrain.layout import Layout
from vlmtrain.layouts.open_clip import OpenClipLayout


class OpenClipTextTower(TextEncoder):
    """One vector per text, as open_clip makes it for its loss.

    Args:
        text: `text` of an open_clip model that keeps it apart (CustomTextCLIP).
        width: of the space that it projects to.
        source: where it comes from.
        tokenizer: that of open_clip; None where nothing is read.
    """

    def __init__(self, text: nn.Module, width: int, source: str, tokenizer: Any) -> None:
        super().__init__()
        self.model = text
        self.width = width
        self.source = source
        self.tokenizer = tokenizer

    def layout(self) -> Layout:
        inner = getattr(self.tokenizer, "tokenizer", None)  # of transformers, where open_clip wraps one
        pad_id = 0 if inner is None or inner.pad_token_id is None else inner.pad_token_id
        return OpenClipLayout(self.tokenizer, self.tokenizer.context_length, pad_id)

    def forward(self, text: TextBatch) -> Tensor:
        vectors: Tensor = self.model(text.input_ids)
        return vectors

    def word_table(self) -> nn.Embedding:
        wrapped = getattr(self.model, "transformer", None)  # of transformers, where open_clip wraps one
        table = getattr(self.model, "token_embedding", None) or wrapped.get_input_embeddings()  # type: ignore[union-attr]
        assert isinstance(table, nn.Embedding)
        return table

    def enable_gradient_checkpointing(self) -> None:
        """Keep only the input of each block for the backward pass."""
        self.model.set_grad_checkpointing(True)  # type: ignore[operator]
