"""Image-text matching (Li et al. 2021, ALBEF, section 3.2; Li et al. 2023, section 3.1)."""

from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import Batch, TextBatch
from vlmtrain.models.capabilities import EmbedsBoth, MatchesPairs
from vlmtrain.objectives.base import Context, Loss, Objective
from vlmtrain.objectives.negatives import NOBODY, Negatives, draw_negatives, same_text
from vlmtrain.objectives.similarity import TEXT, VISUAL, embeddings, similarity, similarity_of_everyone

TERM = "matching"


@dataclass(frozen=True)
class JudgedPairs:
    """What one micro-batch judges, on the CPU.  Images stay where they are; texts, being a few ids, travel."""

    image: Tensor  # [R] index in the micro-batch
    text: Tensor  # [R] index in the global batch
    is_match: Tensor  # [R] bool
    share: Tensor  # [R] weight: a sample's pairs weigh 1 together, over all micro-batches


def judged_pairs(negatives: Negatives, judged: Tensor, start: int, size: int) -> JudgedPairs:
    """The pairs whose image stands in start .. start + size: true ones, own image with wrong text, and every text of
    the global batch whose wrong image is here; of the `judged` samples (indices in the global batch).

    Where there is none of all these, the first sample's true pair stands in with weight 0: a forward pass over no pairs
    at all would leave the heads of this rank without gradient, and the other ranks waiting for it.
    """
    share = 1.0 / (1 + (negatives.texts != NOBODY).double() + (negatives.images != NOBODY).double())
    share *= len(share) / len(judged)
    own = judged[(judged >= start) & (judged < start + size)]
    with_text = own[negatives.texts[own] != NOBODY]
    to_here = judged[(negatives.images[judged] >= start) & (negatives.images[judged] < start + size)]
    if len(own) == len(to_here) == 0:
        return JudgedPairs(*(torch.tensor([value]) for value in (0, start, True, 0.0)))
    image = torch.cat([own, with_text, negatives.images[to_here]]) - start
    text = torch.cat([own, negatives.texts[with_text], to_here])
    of_sample = torch.cat([own, with_text, to_here])
    return JudgedPairs(image, text, torch.arange(len(image)) < len(own), share[of_sample].float())


def evenly_spread(total: int, num_judged: int | None) -> Tensor:
    """Indices of `num_judged` of `total` samples, evenly spread over them; all for None."""
    count = total if num_judged is None else min(num_judged, total)
    return torch.arange(count) * total // count


class ImageTextMatching(Objective):
    """True pair or not, asked of each true pair, of its image with a wrong text and of its text with a wrong image.

    Wrong partners come from the whole global batch, never the true one nor one with the same words.  A sample for
    which there is none (a batch of one) is asked about its true pair only.

    Args:
        weight: of the term; 0 removes it and its compute.
        negatives: "hard" draws by the contrastive similarity, "uniform" evenly.
        num_judged: samples of the global batch that are asked about in a step, each with its two wrong partners; None:
            all, as published.  Their mean stands for that of all: each costs three passes of image and text together.
    """

    needs = MatchesPairs

    def __init__(
        self,
        weight: float = 1.0,
        negatives: Literal["hard", "uniform"] = "hard",
        num_judged: int | None = None,
    ) -> None:
        super().__init__()
        if negatives not in ("hard", "uniform"):
            raise ValueError(f"negatives must be 'hard' or 'uniform', got {negatives!r}")
        if num_judged is not None and num_judged < 1:
            raise ValueError(f"num_judged must be 1 or more, or null for all; got {num_judged}.  weight=0 turns it off")
        self.weight = weight
        self.num_judged = num_judged
        self.draws_hard = negatives == "hard"

    def require(self, model: nn.Module) -> None:
        super().require(model)
        if self.weight and self.draws_hard and not isinstance(model, EmbedsBoth):
            raise ValueError(
                f"Hard negatives need a model that embeds both; {type(model).__name__} does not. "
                "Set negatives=uniform or choose another model."
            )

    def weights(self) -> dict[str, float]:
        return {TERM: self.weight} if self.weight else {}

    def counts(self, batch: Batch) -> dict[str, int]:
        return {TERM: len(batch)} if self.weight else {}

    def survey(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        if not self.weight:
            return {}
        if not self.draws_hard:  # nothing to know of the others but their text, which a survey brings along
            return {"presence": torch.ones(len(context.batch), device=context.batch.text.input_ids.device)}
        return dict(zip((VISUAL, TEXT), embeddings(model, context), strict=True))

    def forward(self, model: nn.Module, context: Context) -> Loss:
        if not self.weight:
            return Loss({})
        everyone = context.everyone
        text = context.batch.text if everyone is None else everyone.text

        def draw() -> Tensor:
            logits = self._logits(model, context, text)
            drawn = draw_negatives(logits, same_text(text).cpu(), context.batch.seed)
            return torch.stack([drawn.texts, drawn.images])

        negatives = draw() if everyone is None else everyone.once(f"negatives of {id(self)}", draw)
        judged = evenly_spread(len(text.input_ids), self.num_judged)
        start = 0 if everyone is None else everyone.start
        pairs = judged_pairs(Negatives(*negatives), judged, start, len(context.batch))
        device = text.input_ids.device
        logits = cast(MatchesPairs, model).match(
            context.features, select_rows(text, pairs.text.to(device)), pairs.image.to(device)
        )
        is_match, share = pairs.is_match.to(device), pairs.share.to(device)
        counts = pairs.share > 0  # all but a pair that only stands in
        losses = F.binary_cross_entropy_with_logits(logits.float(), is_match.float(), reduction="none")
        hits = (((logits > 0) == is_match) & counts.to(device)).sum().float()
        return Loss({TERM: (share * losses).sum()}, {"accuracy": (hits, int(counts.sum()))})

    def _logits(self, model: nn.Module, context: Context, text: TextBatch) -> Tensor:
        """What the draws go by: [G, G] on the CPU, without gradient."""
        if not self.draws_hard:
            return torch.zeros(len(text.input_ids), len(text.input_ids))
        if context.everyone is not None:
            cosines = similarity_of_everyone(context.everyone)
        else:
            # With gradient, then cut: under no_grad, autocast would keep weights that later passes cannot train.
            cosines = similarity(*embeddings(model, context)).detach()
        return (cast(EmbedsBoth, model).similarity_scale().detach() * cosines).cpu()


def select_rows(text: TextBatch, rows: Tensor) -> TextBatch:
    """The rows of `text` by index [R]; what nobody judges (targets) stays behind."""
    return TextBatch(text.input_ids[rows], text.attention_mask[rows], text.visual_mask[rows])
