"""The text tower of dual encoders."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn
from transformers import BertConfig, BertModel

from vlmtrain.batch import TextBatch
from vlmtrain.language_models.tokenizers import load_tokenizer
from vlmtrain.layout import Layout
from vlmtrain.layouts.pair import PairLayout
from vlmtrain.nn.checkpointing import Checkpointable, checkpointed
from vlmtrain.nn.initial_std import initial_std
from vlmtrain.nn.pooling import ClassToken, Pooling
from vlmtrain.nn.pretrained import is_local
from vlmtrain.nn.residual_blocks import residual_blocks


class TextEncoder(nn.Module, ABC):
    """A text -> one vector."""

    width: int
    source: str = "random"  # name or folder of the pretrained weights

    @abstractmethod
    def layout(self) -> Layout:
        """How this encoder wants its text."""

    @abstractmethod
    def forward(self, text: TextBatch) -> Tensor:
        """[B, T] -> [B, width]"""

    def word_table(self) -> nn.Embedding:
        """The input embeddings by token id.  ValueError where no word can be put into them."""
        raise ValueError(f"{type(self).__name__} shows no word_table; take a text encoder that does, or write one.")


class BertTextEncoder(Checkpointable, TextEncoder):
    """BERT, pooled at its class token by default.

    Its folder is a plain Hugging Face BERT, which a Q-Former can start from.

    Either `source` names pretrained weights, or `width`, `depth` and `num_heads` say what to make; never both.
    """

    def __init__(
        self,
        tokenizer: str,
        width: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
        max_tokens: int = 40,
        source: str | None = None,
        pooling: Callable[[], Pooling] = ClassToken,
    ) -> None:
        super().__init__()
        self.pooling = pooling()
        self.tokenizer = load_tokenizer(tokenizer)
        self.max_tokens = max_tokens
        if source is not None:
            if width or depth or num_heads:
                raise ValueError("source and width, depth, num_heads exclude each other: the source has its own sizes.")
            self.model = BertModel.from_pretrained(source, add_pooling_layer=False, local_files_only=is_local(source))
            self.source = source
        elif width and depth and num_heads:
            self.model = BertModel(self._config(width, depth, num_heads), add_pooling_layer=False)
        else:
            raise ValueError("Give source, or all of width, depth and num_heads.")
        if len(self.tokenizer) > self.model.config.vocab_size:
            raise ValueError(
                f"The tokenizer {tokenizer} has {len(self.tokenizer)} tokens, "
                f"the BERT of {source} only {self.model.config.vocab_size}; use the tokenizer it was trained with."
            )
        self.width = self.model.config.hidden_size

    def _config(self, width: int, depth: int, num_heads: int) -> BertConfig:
        return BertConfig(
            vocab_size=len(self.tokenizer),
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=num_heads,
            intermediate_size=4 * width,
            max_position_embeddings=512,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            initializer_range=initial_std(width),
            pad_token_id=self.tokenizer.pad_token_id,
        )

    def wrapping_units(self) -> nn.ModuleList:
        return residual_blocks(self.model)

    def layout(self) -> Layout:
        return PairLayout(self.tokenizer, self.max_tokens)

    def forward(self, text: TextBatch) -> Tensor:
        with checkpointed(residual_blocks(self.model), self.is_checkpointed):
            output = self.model(input_ids=text.input_ids, attention_mask=text.attention_mask.long())
        return self.pooling(output.last_hidden_state, text.attention_mask)

    def word_table(self) -> nn.Embedding:
        table: nn.Embedding = self.model.get_input_embeddings()
        return table

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a Hugging Face BERT folder with its tokenizer."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
