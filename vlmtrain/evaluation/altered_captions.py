"""Does the model tell a caption from one that is wrong by little, and from another image's?"""

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from vlmtrain.evaluation.base import EvaluationResult, EvaluationTools, require_capability
from vlmtrain.evaluation.by_split import BySplit
from vlmtrain.layouts.pair import PairLayout
from vlmtrain.models.capabilities import MatchesPairs

Alters = Callable[[Any], str | None]
"""A record -> its first caption, altered so that it is wrong; None where that cannot be done."""


class AlteredCaptions(BySplit):
    """The matching head's decision on true captions and on altered ones, equally many of both; chance is a half.

    Metrics per split: `matching_accuracy`, with `true_accepted` and `altered_rejected`, of which it is the mean;
    `true_preferred`, how often the true caption of a record scores above the altered one; and
    `random_matching_accuracy`, the same decision with the caption of the record before in place of an altered one.

    Args:
        alters: makes the wrong captions; for scenes vlmtrain.data.scenes.wrong_captions.SwappedColours.
        splits: None: all that the data has.
        limit: records per split.
    """

    nothing = "No caption of the split %r could be altered."

    def __init__(self, alters: Alters, splits: list[str] | None = None, limit: int | None = None) -> None:
        super().__init__(splits, limit)
        self.alters = alters

    def check_model(self, model: nn.Module) -> None:
        require_capability("AlteredCaptions", model, MatchesPairs, "Evaluate another stage by it.")

    def measure(self, model: MatchesPairs, source: Any, tools: EvaluationTools, split: str) -> EvaluationResult:
        judged = list(self._judge(model, source, tools))
        return EvaluationResult(_measure(torch.cat(judged, dim=1)) if judged else {})

    def _judge(self, model: MatchesPairs, source: Any, tools: EvaluationTools) -> Iterator[Tensor]:
        """Logits of the true, the altered and the other record's caption: [3, n] of each batch."""
        layout = tools.layout
        if not isinstance(layout, PairLayout):
            raise ValueError(f"AlteredCaptions writes pairs; the layout of this model is {type(layout).__name__}.")
        for records, batch in tools.batches(source, self.limit, False):
            captions = [record.captions[0].strip() for record in records]
            altered = [self.alters(record) for record in records]
            chosen = [row for row, text in enumerate(altered) if text is not None]
            if not chosen:
                continue
            features = model.encode(batch.visual.to(tools.device))
            image = torch.tensor(chosen, device=tools.device)
            rows = [
                [captions[row] for row in chosen],
                [cast(str, altered[row]) for row in chosen],
                [captions[row - 1] for row in chosen],
            ]
            texts = [layout.write_whole(strings).to(tools.device) for strings in rows]
            yield torch.stack([model.match(features, text, image).float().cpu() for text in texts])


def _measure(logits: Tensor) -> dict[str, float]:
    """[3, n]: true, altered, of another record."""
    true, altered, other = logits.unbind()
    accepted, rejected, told = (share.double().mean().item() for share in (true > 0, altered <= 0, other <= 0))
    return {
        "matching_accuracy": (accepted + rejected) / 2,
        "chance_matching_accuracy": 0.5,
        "true_accepted": accepted,
        "altered_rejected": rejected,
        "true_preferred": (true > altered).double().mean().item(),
        "random_matching_accuracy": (accepted + told) / 2,
        "chance_random_matching_accuracy": 0.5,
        "num_altered": float(len(true)),
    }
