"""An image tower and a text decoder that contrast and write at once."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import IGNORED_TARGET, TargetStates, TextBatch, VisualBatch, VisualFeatures
from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.language_models.tokenizers import load_words
from vlmtrain.layout import Layout
from vlmtrain.layouts.pair import PairLayout
from vlmtrain.models.dual_encoder import MAX_SIMILARITY_SCALE
from vlmtrain.models.encode_images import encode_images
from vlmtrain.nn.attentional_poolers import CascadedPooler, ImagePooler
from vlmtrain.nn.projections import Plain
from vlmtrain.nn.temperature import set_back_scale
from vlmtrain.nn.two_part_decoder import TwoPartDecoder


class CoCa(nn.Module):
    """Yu et al. 2022 (arXiv:2205.01917).  EmbedsBoth, WritesText, Captions.

    Contrast and captioning each read the text below by themselves: the lower half of the decoder runs twice per batch.

    Args:
        encoder: the image tower, patches and all.
        decoder: makes the text decoder when called with the number of words.
        tokenizer: name or folder, with class (or begin), separator (or end) and padding token.
        embedding_width: E, of the space that images and texts share.
        pooler: what of the patches contrast and captioning read; called with the encoder's and the decoder's width.
        temperature: of the similarities at the start; learned, the scale bounded by 100.
        vocab_size: of the tokenizer; held against it, and lets `vlmtrain plan` count without it.
    """

    def __init__(
        self,
        encoder: VisionEncoder,
        decoder: Callable[..., TwoPartDecoder],
        tokenizer: str,
        embedding_width: int = 512,
        pooler: Callable[..., ImagePooler] = CascadedPooler,
        temperature: float = 0.07,
        vocab_size: int | None = None,
    ) -> None:
        super().__init__()
        self.tokenizer, num_words = load_words(tokenizer, vocab_size)
        self.encoder = encoder
        self.decoder = decoder(num_words)
        self.pooler = pooler(encoder.width, self.decoder.width)
        self.visual_projection = Plain(self.decoder.width, embedding_width)
        self.text_projection = Plain(self.decoder.width, embedding_width)
        self.log_scale = nn.Parameter(torch.tensor(1 / temperature).log())

    def layout(self) -> Layout:
        return PairLayout(self.tokenizer, self.decoder.max_tokens)

    def placeholders_per_item(self, tiles: int) -> int:
        return 0

    def encode(self, visual: VisualBatch) -> VisualFeatures:
        """Pixels -> pooled vectors: the first is for contrast, the others are for writing."""
        features = encode_images(self.encoder, visual)
        pooled = self.pooler(features.patches, features.patch_mask)
        if len(pooled) != len(visual.items_per_sample):
            raise ValueError(
                f"CoCa reads one tile per sample; this batch has {len(pooled)} tiles for "
                f"{len(visual.items_per_sample)} samples."
            )
        return VisualFeatures(pooled, features.tiles_per_item, features.items_per_sample)

    def embed_visual(self, visual: VisualFeatures) -> Tensor:
        return F.normalize(self.visual_projection(visual.patches[:, 0]).float(), dim=-1).unsqueeze(1)

    def embed_text(self, text: TextBatch) -> Tensor:
        vectors, _ = self.decoder.read(text.input_ids, text.attention_mask)
        return F.normalize(self.text_projection(vectors).float(), dim=-1)

    def similarity_scale(self) -> Tensor:
        """The scale, at most 100."""
        return set_back_scale(self.log_scale, MAX_SIMILARITY_SCALE)

    def target_states(self, visual: VisualFeatures, text: TextBatch) -> TargetStates:
        """States of the supervised positions of row b, which sees image b."""
        if text.targets is None:
            raise ValueError("These rows are prompts without targets; write them with Layout.write.")
        states = self._look(visual, text.input_ids, text.attention_mask)
        supervised = text.targets != IGNORED_TARGET
        return TargetStates(states[supervised], text.targets[supervised], self.decoder.head)

    def write(self, visual: VisualFeatures, text: TextBatch, max_new_tokens: int) -> Tensor:
        """The likeliest word, one after the other; rows end with the layout's last token."""
        ids, mask = text.input_ids, text.attention_mask
        ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        end = PairLayout(self.tokenizer, self.decoder.max_tokens).last_id
        room = min(max_new_tokens, self.decoder.max_tokens - ids.shape[1])
        for _ in range(room):
            likeliest = self.decoder.head(self._look(visual, ids, mask)[:, -1]).argmax(dim=-1)
            likeliest = likeliest.masked_fill(ended, end)
            ids = torch.cat([ids, likeliest.unsqueeze(1)], dim=1)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            ended = ended | (likeliest == end)
            if bool(ended.all()):
                break
        return ids[:, text.input_ids.shape[1] :]

    def _look(self, visual: VisualFeatures, input_ids: Tensor, mask: Tensor) -> Tensor:
        _, states = self.decoder.read(input_ids, mask)
        return self.decoder.look(states, mask, visual.patches[:, 1:])
