"""Text and image in one transformer: ViLT, VisualBERT.  MatchesPairs, PredictsTokens, AlignsWords."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import IGNORED_TARGET, TargetStates, TextBatch, VisualBatch, VisualFeatures
from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.language_models.tokenizers import load_words
from vlmtrain.layout import Layout
from vlmtrain.layouts.masked import MaskedPairLayout
from vlmtrain.models.capabilities import AlignedPairs
from vlmtrain.models.encode_images import encode_single_images
from vlmtrain.models.single_stream import JointStates, SingleStream
from vlmtrain.nn.pooling import ClassToken, Pooling
from vlmtrain.nn.post_norm import initialize_like_bert
from vlmtrain.nn.qformer_text import TextHead


class JointEncoder(nn.Module):
    """Every word sees every patch and every word, in every layer; `stream` says how.

    Args:
        encoder: makes patches: of raw pixels for ViLT, of a CNN or ViT for VisualBERT.
        stream: makes the transformer when called with the encoder's width and the number of words.
        tokenizer: name or folder of a BERT-like tokenizer ([CLS], [SEP], [PAD], [MASK]).
        max_tokens: longest text, special tokens included.
        vocab_size: of the tokenizer; held against it, and lets `vlmtrain plan` count without it.
        pooling: how the words' states become what a pair is judged by.
    """

    def __init__(
        self,
        encoder: VisionEncoder,
        stream: Callable[..., SingleStream],
        tokenizer: str,
        max_tokens: int = 40,
        vocab_size: int | None = None,
        pooling: Callable[[], Pooling] = ClassToken,
    ) -> None:
        super().__init__()
        self.tokenizer, num_words = load_words(tokenizer, vocab_size)
        self.max_tokens = max_tokens
        self.encoder = encoder
        self.stream = stream(encoder.width, num_words)
        self.pooling = pooling()
        self.pooler = nn.Linear(self.stream.width, self.stream.width)
        self.match_head = nn.Linear(self.stream.width, 2)  # no match, match
        self.token_head = TextHead(self.stream.width, self.stream.words.num_embeddings, self.stream.layer_norm_eps)
        self.pooler.apply(initialize_like_bert)
        self.match_head.apply(initialize_like_bert)

    def layout(self) -> Layout:
        """Plain pairs, [CLS] text [SEP], with words hidden where a form asks for it."""
        assert self.tokenizer is not None, "a model that is only counted reads nothing"
        return MaskedPairLayout(self.tokenizer, self.max_tokens)

    def placeholders_per_item(self, tiles: int) -> int:
        """None: the image stands behind the text."""
        return 0

    def encode(self, visual: VisualBatch) -> VisualFeatures:
        """Pixels -> patches.  ValueError where a sample has not exactly one image of one tile."""
        return encode_single_images(self.encoder, visual, "JointEncoder")

    def read(self, visual: VisualFeatures, text: TextBatch, image_of_row: Tensor) -> JointStates:
        """Row r of `text` together with image `image_of_row[r]`."""
        patch_mask = None if visual.patch_mask is None else visual.patch_mask[image_of_row]
        return self.stream(text.input_ids, text.attention_mask, visual.patches[image_of_row], patch_mask)

    def match(self, visual: VisualFeatures, text: TextBatch, image_of_row: Tensor) -> Tensor:
        """Logit of "match" over "no match", from the states of the text: [R]."""
        return self._judge(self.read(visual, text, image_of_row), text)

    def align(self, visual: VisualFeatures, text: TextBatch, image_of_row: Tensor) -> AlignedPairs:
        """Words without [CLS] and [SEP], patches without a class token."""
        states = self.read(visual, text, image_of_row)
        follows = F.pad(text.attention_mask[:, 1:], (0, 1), value=False)  # all real positions but the last
        word_mask = follows & (torch.arange(follows.shape[1], device=follows.device) > 0)
        shape = states.image.shape[:2]
        patch_mask = word_mask.new_ones(shape) if visual.patch_mask is None else visual.patch_mask[image_of_row]
        if self.encoder.keep_class_token:
            patch_mask = patch_mask & (torch.arange(shape[1], device=patch_mask.device) > 0)
        return AlignedPairs(states.text, word_mask, states.image, patch_mask, self._judge(states, text))

    def _judge(self, states: JointStates, text: TextBatch) -> Tensor:
        pooled = self.pooler(self.pooling(states.text, text.attention_mask)).tanh()
        no_match, match = self.match_head(pooled).unbind(-1)
        return match - no_match

    def hidden_states(self, visual: VisualFeatures, text: TextBatch, image_of_row: Tensor) -> TargetStates:
        """States of the positions with a target, and the head that reads words off them."""
        if text.targets is None:
            raise ValueError("these rows hide nothing; give those of TextBatch.masked")
        states = self.read(visual, text, image_of_row).text
        row, column = (text.targets != IGNORED_TARGET).nonzero(as_tuple=True)
        return TargetStates(states[row, column], text.targets[row, column], self.write_logits)

    def write_logits(self, states: Tensor) -> Tensor:
        """[s, D] -> [s, vocabulary]"""
        return self.token_head(states, self.stream.words.weight)
