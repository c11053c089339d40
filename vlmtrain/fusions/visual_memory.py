"""Visual tokens beside the text, and which text position may read which of them (Flamingo, section 2.3)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vlmtrain.batch import TextBatch, VisualTokens

NOBODYS = -1  # item number of padding; no position reads it


@dataclass(frozen=True)
class VisualMemory:
    """What the text of a batch can read.  M is at least 1, so that every weight takes part where nobody has an item."""

    tokens: Tensor  # [B, M, D], zeros on padding
    visible: Tensor  # [B, T, M] bool

    def visible_to(self, length: int) -> Tensor:
        """[B, length, M]: for the positions of a pass through the language model.

        With a cache, passes after the first are of one position each; without, they grow.  Either way what was
        generated reads what the last position of the prompt reads.
        """
        known = self.visible.shape[1]
        assert length in (1, known) or length > known, f"{length} of {known} positions: prompts are read in one piece"
        last = self.visible[:, -1:]
        if length < known:
            return last
        return torch.cat([self.visible, last.expand(-1, length - known, -1)], dim=1)


def visual_memory(text: TextBatch, visual: VisualTokens) -> VisualMemory:
    """Each position reads the tokens of the last item at or before it, and none before the first.

    An item has one placeholder: what comes after reads it, and so does the placeholder itself (OpenFlamingo).
    """
    _check(text, visual)
    embeddings, device = visual.embeddings, visual.embeddings.device
    places, numbers, item, token = [], [], 0, 0
    for count in visual.items_per_sample:
        sizes = visual.tokens_per_item[item : item + count]
        total = sum(sizes)
        places.append(torch.arange(token, token + total))
        numbers.append(torch.arange(1, count + 1).repeat_interleave(torch.tensor(sizes, dtype=torch.long)))
        item, token = item + count, token + total
    place = _pad(places, len(embeddings)).to(device, non_blocking=True)  # [B, M]; padding is the row of zeros below
    item_of_token = _pad(numbers, NOBODYS).to(device, non_blocking=True)  # [B, M]
    item_of_position = text.visual_mask.cumsum(dim=1)  # [B, T]; 0 before the first item
    with_zeros = torch.cat([embeddings, embeddings.new_zeros(1, embeddings.shape[-1])])
    return VisualMemory(
        tokens=with_zeros.index_select(0, place.flatten()).unflatten(0, place.shape),
        visible=item_of_position[:, :, None] == item_of_token[:, None, :],
    )


def _pad(rows: list[Tensor], value: int) -> Tensor:
    padded = pad_sequence(rows, batch_first=True, padding_value=value)
    return F.pad(padded, (0, int(padded.shape[1] == 0)), value=value)


def _check(text: TextBatch, visual: VisualTokens) -> None:
    items, announced, made = len(visual.tokens_per_item), sum(visual.tokens_per_item), len(visual.embeddings)
    if text.placeholders != items or sum(visual.items_per_sample) != items:
        raise ValueError(
            f"The text has {text.placeholders} placeholders for {items} items, one per item; samples say they have "
            f"{sum(visual.items_per_sample)}.  Does the collator ask this model's `placeholders_per_item`?"
        )
    if announced != made:
        raise ValueError(f"The connector announced {announced} visual tokens and made {made}.")
    if len(text.input_ids) != len(visual.items_per_sample):
        raise ValueError(f"{len(text.input_ids)} rows of text for {len(visual.items_per_sample)} samples with items.")
