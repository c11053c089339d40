"""A cross encoder that judges a text word by word."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vlmtrain.batch import TextBatch, VisualFeatures
from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.models.capabilities import JudgedWords
from vlmtrain.models.cross_encoder import CrossEncoder
from vlmtrain.nn.grounded_text import GroundedText
from vlmtrain.nn.packing import PackedRows
from vlmtrain.nn.post_norm import initialize_like_bert


class WordJudgingEncoder(CrossEncoder):
    """Says of every word whether it fits the image; a text fits no better than its worst word.  EmbedsBoth,
    MatchesPairs, PredictsTokens, JudgesWords.

    Where ALBEF reads off its first token whether a pair matches, that token has to hear of a single wrong word among
    many right ones.  Here the smooth minimum -log(sum of exp(-fit)) over all words decides, special tokens among them:
    the log-odds that all fit, where each is unlikely not to.

    Args:
        encoder: makes patches.
        text: makes the text side when called with `memory_width` and `vocab_size`, as for CrossEncoder.
        tokenizer: name or folder of a BERT-like tokenizer ([CLS], [SEP], [PAD], [MASK]).
        max_tokens: longest text, special tokens included.
        vocab_size: of the tokenizer; held against it, and lets `vlmtrain plan` count without it.
        embedding_width: E, of the space that images and texts share; only contrast asks for it.
    """

    def __init__(
        self,
        encoder: VisionEncoder,
        text: Callable[..., GroundedText],
        tokenizer: str,
        max_tokens: int = 32,
        vocab_size: int | None = None,
        embedding_width: int = 256,
    ) -> None:
        super().__init__(encoder, text, tokenizer, embedding_width, max_tokens=max_tokens, vocab_size=vocab_size)
        width = self.text.width
        self.match_head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))
        self.match_head.apply(initialize_like_bert)

    def match(self, visual: VisualFeatures, text: TextBatch, image_of_row: Tensor) -> Tensor:
        """Logit of "every word fits": [R]."""
        return self.judge_words(visual, text, image_of_row).pairs

    def judge_words(self, visual: VisualFeatures, text: TextBatch, image_of_row: Tensor) -> JudgedWords:
        """Row r of `text` with image `image_of_row[r]`."""
        memory, mask = self.remember(visual).select(image_of_row), text.attention_mask
        states = self.text.read_hidden(memory, text.input_ids, mask, wanted=mask)
        words = PackedRows.of(mask).pad(self.match_head(states)).squeeze(-1).float()
        return JudgedWords(words, mask, -torch.logsumexp((-words).masked_fill(~mask, float("-inf")), dim=1))
