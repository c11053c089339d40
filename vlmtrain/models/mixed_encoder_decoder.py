"""BLIP's multimodal mixture of encoder and decoder, MED (Li et al. 2022, section 3.1)."""

from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from vlmtrain.batch import IGNORED_TARGET, TargetStates, TextBatch, VisualFeatures
from vlmtrain.layouts.qformer_words import DECODER_START
from vlmtrain.models.cross_encoder import CrossEncoder
from vlmtrain.nn.grounded_text import places_of
from vlmtrain.nn.mixed_text import MixedText
from vlmtrain.nn.packing import PackedRows

ENCODER_START = "[ENC]"  # takes the place of [CLS] where text is read together with an image


class MixedEncoderDecoder(CrossEncoder):
    """One text transformer that embeds, judges pairs and writes.  EmbedsBoth, MatchesPairs, PredictsTokens,
    WritesText, Captions.

    The first token says which of the three it is: [CLS], [ENC] or [DEC].  Arguments are those of `CrossEncoder`.
    """

    special_tokens = (DECODER_START, ENCODER_START)
    text: MixedText

    @cached_property
    def decoder_start(self) -> int:
        return self._id_of(DECODER_START)

    @cached_property
    def encoder_start(self) -> int:
        return self._id_of(ENCODER_START)

    @cached_property
    def end(self) -> int:
        return self._id_of(self.tokenizer.sep_token)

    def _id_of(self, token: str) -> int:
        return int(self.tokenizer.convert_tokens_to_ids(token))

    def match(self, visual: VisualFeatures, text: TextBatch, image_of_row: Tensor) -> Tensor:
        """Logit of "match" over "no match": [R]."""
        return super().match(visual, begin_with(self.encoder_start, text), image_of_row)

    def hidden_states(self, visual: VisualFeatures, text: TextBatch, image_of_row: Tensor) -> TargetStates:
        """States of the positions with a target, and the head that writes: BLIP itself hides no words."""
        return super().hidden_states(visual, begin_with(self.encoder_start, text), image_of_row)

    def target_states(self, visual: VisualFeatures, text: TextBatch) -> TargetStates:
        """States of the supervised positions of row b, which sees image b, and the head that reads them."""
        if text.targets is None:
            raise ValueError("text without targets cannot be learned to be written; use a layout's `write`")
        supervised = text.targets != IGNORED_TARGET
        still_needed = supervised.flip(1).cumsum(1).flip(1) > 0  # a position at or before some target
        rows = PackedRows.of(text.attention_mask & still_needed)
        input_ids = begin_with(self.decoder_start, text).input_ids
        states, _ = self.text.read_causally(self.remember(visual), input_ids, text.attention_mask, rows)
        targets = rows.pack(text.targets)
        counted = (targets != IGNORED_TARGET).nonzero().squeeze(1)
        return TargetStates(states.index_select(0, counted), targets[counted], self.text.logits)

    def write(self, visual: VisualFeatures, text: TextBatch, max_new_tokens: int) -> Tensor:
        """Greedy continuations [B, new] of prompts padded on the left, [PAD] after the end of each."""
        memory, mask = self.remember(visual), text.attention_mask
        new_ids = begin_with(self.decoder_start, text).input_ids
        rows, kept = PackedRows.of(mask), None
        written: list[Tensor] = []
        goes_on = torch.ones(len(mask), dtype=torch.bool, device=mask.device)
        while len(written) < max_new_tokens and bool(goes_on.any()):
            states, kept = self.text.read_causally(memory, new_ids, mask, rows, kept)
            best = self.text.logits(rows.pad(states)[:, -1]).argmax(-1)
            written.append(best.where(goes_on, self.tokenizer.pad_token_id))
            goes_on &= best != self.end
            new_ids, rows = best.unsqueeze(1), PackedRows.whole(len(mask), 1, mask.device)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        return torch.stack(written, dim=1)


def begin_with(token: int, text: TextBatch) -> TextBatch:
    """`text` with `token` as the first of every row, wherever its padding stands."""
    first = text.attention_mask & (places_of(text.attention_mask) == 0)
    return replace(text, input_ids=text.input_ids.masked_fill(first, token))
