"""Stage 1 of BLIP-2: a Q-Former learns to read images from image-text pairs (Li et al. 2023, section 3.1)."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import IGNORED_TARGET, TargetStates, TextBatch, VisualBatch, VisualFeatures
from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.layout import Layout
from vlmtrain.layouts.pair import PairLayout
from vlmtrain.layouts.qformer_words import DECODER_START, load_words
from vlmtrain.models.reused_features import ReusedFeatures, encode_for_reuse
from vlmtrain.nn.packing import PackedRows
from vlmtrain.nn.post_norm import initialize_like_bert
from vlmtrain.nn.pretrained import builds_without_weights
from vlmtrain.nn.qformer import ImageMemory, QFormer, QueryPass
from vlmtrain.nn.qformer_initialization import initialize_from_bert
from vlmtrain.nn.qformer_text import QFormerText, TextHead
from vlmtrain.nn.qformer_views import read_alone, read_causally, read_together
from vlmtrain.nn.temperature import bounded_scale, log_temperature


class QFormerPretraining(nn.Module):
    """Image encoder and Q-Former under three readings of text: embeds both, matches pairs, writes captions.

    No language model is part of it (T21): stage 2 takes `qformer` along.

    Args:
        encoder: makes patches; frozen by the trainer as a rule, and then run without gradient.
        qformer: makes the Q-Former when called with `memory_width`.
        tokenizer: name or folder of a BERT-like tokenizer ([CLS], [SEP], [PAD]); [DEC] is added where it lacks one.
        embedding_width: E, of the space that images and texts share.
        temperature: of the contrastive similarities at the start; learned, kept within 0.001 to 0.5.
        bert: folder to start text side and self-attention from.
        max_tokens: longest text, special tokens included.
        vocab_size: of the tokenizer, [DEC] included; held against it, and lets `vlmtrain plan` count without it.
    """

    def __init__(
        self,
        encoder: VisionEncoder,
        qformer: Callable[..., QFormer],
        tokenizer: str,
        embedding_width: int = 256,
        temperature: float = 0.07,
        bert: str | None = None,
        max_tokens: int = 32,
        vocab_size: int | None = None,
    ) -> None:
        super().__init__()
        self.log_temperature = log_temperature(temperature)
        self.tokenizer, num_words = load_words(tokenizer, vocab_size)
        self.decoder_start = 0  # of a model that is only counted (`vlmtrain plan`) and reads nothing
        if self.tokenizer is not None:
            self.decoder_start = int(self.tokenizer.convert_tokens_to_ids(DECODER_START))
        self.max_tokens = max_tokens
        self.encoder = encoder
        self.qformer = qformer(memory_width=encoder.width)
        self.text = text_for(self.qformer, num_words)
        width, eps = self.qformer.width, self.qformer.layer_norm_eps
        self.visual_projection = nn.Linear(width, embedding_width)
        self.text_projection = nn.Linear(width, embedding_width)
        self.match_head = nn.Linear(width, 2)  # no match, match
        self.text_head = TextHead(width, num_words, eps)
        for head in (self.visual_projection, self.text_projection, self.match_head):
            head.apply(initialize_like_bert)
        if bert is not None and not builds_without_weights():
            initialize_from_bert(self.qformer, self.text, bert, self.text_head)

    def layout(self) -> Layout:
        """Plain pairs: [CLS] text [SEP], nothing left for the image."""
        return PairLayout(self.tokenizer, self.max_tokens)

    def placeholders_per_item(self, tiles: int) -> int:
        """None: the image enters through cross-attention."""
        return 0

    def encode(self, visual: VisualBatch) -> ReusedFeatures:
        """Pixels -> patches.  ValueError where a sample has not exactly one image of one tile."""
        return encode_for_reuse(self.encoder, visual, "QFormerPretraining")

    def embed_visual(self, visual: VisualFeatures) -> Tensor:
        """Unit vectors of all queries [B, Q, E]."""
        return F.normalize(self.visual_projection(self.read(visual).states).float(), dim=-1)

    def embed_text(self, text: TextBatch) -> Tensor:
        """Unit vectors [B, E], from [CLS]; no image and no query is looked at."""
        states = read_alone(self.qformer, self.text, text.input_ids, text.attention_mask)
        return F.normalize(self.text_projection(states).float(), dim=-1)

    def similarity_scale(self) -> Tensor:
        """1 / temperature, within its bounds."""
        return bounded_scale(self.log_temperature)

    def match(self, visual: VisualFeatures, text: TextBatch, image_of_row: Tensor) -> Tensor:
        """Logit of "match" over "no match", mean over the queries: [R]."""
        memory = self.remember(visual).select(image_of_row)
        rows = PackedRows.of(text.attention_mask)
        queries = read_together(self.qformer, self.text, memory, text.input_ids, rows)
        no_match, match = self.match_head(queries).mean(dim=1).unbind(-1)
        return match - no_match

    def target_states(self, visual: VisualFeatures, text: TextBatch) -> TargetStates:
        """States of the supervised positions of row b, which sees image b, and the head that reads them."""
        if text.targets is None:
            raise ValueError("text without targets cannot be learned to be written; use a layout's `write`")
        supervised = text.targets != IGNORED_TARGET
        still_needed = supervised.flip(1).cumsum(1).flip(1) > 0  # a position at or before some target
        rows = PackedRows.of(text.attention_mask & still_needed)
        input_ids = text.input_ids.clone()
        input_ids[:, 0] = self.decoder_start
        states = read_causally(self.qformer, self.text, self.read(visual), input_ids, rows)
        targets = rows.pack(text.targets)
        counted = (targets != IGNORED_TARGET).nonzero().squeeze(1)
        return TargetStates(states.index_select(0, counted), targets[counted], self.write_logits)

    def write_logits(self, states: Tensor) -> Tensor:
        """[s, D] -> [s, vocabulary]"""
        return self.text_head(states, self.text.words.weight)

    def remember(self, visual: VisualFeatures) -> ImageMemory:
        """Keys and values of the images, once per batch."""

        def compute() -> ImageMemory:
            return self.qformer.remember(visual.patches, visual.patch_mask)

        if not isinstance(visual, ReusedFeatures):
            return compute()
        return visual.once("memory", compute, lambda memory: memory.layers[0].key)

    def read(self, visual: VisualFeatures) -> QueryPass:
        """What the queries read without text, once per batch."""

        def compute() -> QueryPass:
            return self.qformer.read(self.remember(visual), len(visual.patches))

        if not isinstance(visual, ReusedFeatures):
            return compute()
        return visual.once("queries", compute, lambda query_pass: query_pass.states)


def text_for(qformer: QFormer, vocab_size: int) -> QFormerText:
    """The text side that fits `qformer`."""
    return QFormerText(
        qformer.width,
        len(qformer.layers),
        vocab_size,
        feed_forward_width=qformer.feed_forward_width,
        dropout=qformer.dropout,
        layer_norm_eps=qformer.layer_norm_eps,
    )
