"""A text transformer that reads images by cross-attention (ALBEF, Li et al. 2021; BLIP, Li et al. 2022)."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import IGNORED_TARGET, TargetStates, TextBatch, VisualBatch, VisualFeatures
from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.layout import Layout
from vlmtrain.layouts.masked import MaskedPairLayout
from vlmtrain.layouts.qformer_words import load_words
from vlmtrain.models.reused_features import ReusedFeatures, encode_for_reuse
from vlmtrain.nn.grounded_text import GroundedText
from vlmtrain.nn.pooling import ClassToken, Pooling
from vlmtrain.nn.post_norm import initialize_like_bert
from vlmtrain.nn.qformer import ImageMemory
from vlmtrain.nn.temperature import bounded_scale, log_temperature


class CrossEncoder(nn.Module):
    """Image and text by themselves meet in a shared space, and together in the layers of the text.  EmbedsBoth,
    MatchesPairs, PredictsTokens.

    Args:
        encoder: makes patches.
        text: makes the text side when called with `memory_width` and `vocab_size`; how its layers are arranged is what
            tells ALBEF from BLIP.
        tokenizer: name or folder of a BERT-like tokenizer ([CLS], [SEP], [PAD], [MASK]).
        embedding_width: E, of the space that images and texts share.
        temperature: of the contrastive similarities at the start; learned, kept within 0.001 to 0.5.
        max_tokens: longest text, special tokens included.
        vocab_size: of the tokenizer, special tokens included; held against it, and lets `vlmtrain plan` count without.
        pooling: how patches become the image's vector.
    """

    special_tokens: tuple[str, ...] = ()  # added to the tokenizer where it lacks them

    def __init__(
        self,
        encoder: VisionEncoder,
        text: Callable[..., GroundedText],
        tokenizer: str,
        embedding_width: int = 256,
        temperature: float = 0.07,
        max_tokens: int = 32,
        vocab_size: int | None = None,
        pooling: Callable[[], Pooling] = ClassToken,
    ) -> None:
        super().__init__()
        self.log_temperature = log_temperature(temperature)
        self.tokenizer, num_words = load_words(tokenizer, vocab_size, self.special_tokens)
        self.max_tokens = max_tokens
        self.encoder = encoder
        self.text = text(memory_width=encoder.width, vocab_size=num_words)
        self.pooling = pooling()
        self.visual_projection = nn.Linear(encoder.width, embedding_width)
        self.text_projection = nn.Linear(self.text.width, embedding_width)
        self.match_head: nn.Module = nn.Linear(self.text.width, 2)  # no match, match
        for head in (self.visual_projection, self.text_projection, self.match_head):
            head.apply(initialize_like_bert)

    def layout(self) -> Layout:
        """Plain pairs, [CLS] text [SEP], nothing left for the image; with words hidden where a form asks for it."""
        return MaskedPairLayout(self.tokenizer, self.max_tokens)

    def placeholders_per_item(self, tiles: int) -> int:
        """None: the image enters through cross-attention."""
        return 0

    def encode(self, visual: VisualBatch) -> ReusedFeatures:
        """Pixels -> patches.  ValueError where a sample has not exactly one image of one tile."""
        return encode_for_reuse(self.encoder, visual, type(self).__name__)

    def embed_visual(self, visual: VisualFeatures) -> Tensor:
        """Unit vectors [B, 1, E]."""
        pooled = self.pooling(visual.patches, visual.patch_mask)
        return F.normalize(self.visual_projection(pooled).float(), dim=-1).unsqueeze(1)

    def embed_text(self, text: TextBatch) -> Tensor:
        """Unit vectors [B, E], from the first token; no image is looked at."""
        states = self.text.read_alone(text.input_ids, text.attention_mask)
        return F.normalize(self.text_projection(states).float(), dim=-1)

    def similarity_scale(self) -> Tensor:
        """1 / temperature, within its bounds."""
        return bounded_scale(self.log_temperature)

    def match(self, visual: VisualFeatures, text: TextBatch, image_of_row: Tensor) -> Tensor:
        """Logit of "match" over "no match": [R]."""
        memory = self.remember(visual).select(image_of_row)
        no_match, match = self.match_head(self.text.read_together(memory, text.input_ids, text.attention_mask)).unbind(
            -1
        )
        return match - no_match

    def hidden_states(self, visual: VisualFeatures, text: TextBatch, image_of_row: Tensor) -> TargetStates:
        """States of the positions with a target, and the head that reads words off them."""
        if text.targets is None:
            raise ValueError("these rows hide nothing; give those of TextBatch.masked")
        memory, wanted = self.remember(visual).select(image_of_row), text.targets != IGNORED_TARGET
        states = self.text.read_hidden(memory, text.input_ids, text.attention_mask, wanted)
        return TargetStates(states, text.targets[wanted], self.text.logits)

    def remember(self, visual: VisualFeatures) -> ImageMemory:
        """Keys and values of the images, once per batch."""

        def compute() -> ImageMemory:
            return self.text.remember(visual.patches, visual.patch_mask)

        if not isinstance(visual, ReusedFeatures):
            return compute()
        return visual.once("memory", compute, _some_key)


def _some_key(memory: ImageMemory) -> Tensor:
    return next(kept.key for kept in memory.layers if kept is not None)
