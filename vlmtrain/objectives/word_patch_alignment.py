"""Word-patch alignment beside matching (ViLT, section 3.2; UNITER's word-region alignment, Chen et al. 2020, 3.2)."""

from typing import cast

from torch import Tensor, nn

from vlmtrain.batch import Batch
from vlmtrain.models.capabilities import AlignsWords
from vlmtrain.nn.optimal_transport import transport_cost
from vlmtrain.objectives.base import Context, Loss, Objective
from vlmtrain.objectives.replaced_pairs import ReplacedPairs

TERM = "alignment"


class WordPatchAlignment(Objective):
    """The words of a true pair should lie near its patches, those of a wrong one far: what it costs to move the ones
    onto the others, added for true pairs and subtracted for wrong ones.

    The pairs and the pass are those of `matching`, whose terms this objective has beside its own.

    Args:
        matching: draws the pairs and judges them.
        weight: of the alignment; 0 leaves the matching alone.
        beta: of the transport's steps.
        num_iterations: of the transport.
    """

    needs = AlignsWords

    def __init__(
        self, matching: ReplacedPairs, weight: float = 0.1, beta: float = 0.5, num_iterations: int = 50
    ) -> None:
        super().__init__()
        if beta <= 0 or num_iterations < 1:
            raise ValueError(f"beta={beta} must be above 0 and num_iterations={num_iterations} at least 1")
        self.matching = matching
        self.weight = weight
        self.beta = beta
        self.num_iterations = num_iterations

    def require(self, model: nn.Module) -> None:
        super().require(model)
        self.matching.require(model)

    def weights(self) -> dict[str, float]:
        return self.matching.weights() | ({TERM: self.weight} if self.weight else {})

    def counts(self, batch: Batch) -> dict[str, float]:
        return self.matching.counts(batch) | ({TERM: len(batch)} if self.weight else {})

    def survey(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        return self.matching.negatives.survey(model, context)

    def forward(self, model: nn.Module, context: Context) -> Loss:
        if not self.weight:
            matched: Loss = self.matching(model, context)
            return matched
        pairs = self.matching.pairs(model, context)
        found = cast(AlignsWords, model).align(context.features, pairs.text, pairs.image)
        costs = transport_cost(
            found.words, found.patches, found.word_mask, found.patch_mask, self.beta, self.num_iterations
        )
        judged = self.matching.judge(found.logits, pairs.is_match) if self.matching.weight else Loss({})
        true = pairs.is_match.float()
        total = (costs * (2 * true - 1)).sum()
        of_true, of_wrong = (costs.detach() * true).sum(), (costs.detach() * (1 - true)).sum()
        metrics = {"true_cost": (of_true, true.sum()), "wrong_cost": (of_wrong, (1 - true).sum())}
        return Loss(judged.totals | {TERM: total}, judged.metrics | metrics)
