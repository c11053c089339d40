"""What an evaluation is, what it is given, and what it gives back.

An evaluation never imports a data set: it sees records through the small protocols below, and rows of tokens through
`EvaluationTools.batches`.  Every metric is named `<split>/<what>`.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from vlmtrain.batch import Batch
from vlmtrain.layout import Layout
from vlmtrain.objectives.base import Objective

logger = logging.getLogger(__name__)


class RecordLike(Protocol):
    """What an evaluation reads of a record of any data set."""

    @property
    def key(self) -> str: ...
    @property
    def image(self) -> bytes: ...
    @property
    def images(self) -> Sequence[bytes]: ...
    @property
    def captions(self) -> Sequence[str]: ...
    @property
    def extra(self) -> Mapping[str, Any]: ...


class Verdict(Protocol):
    """What a judge says of one text."""

    @property
    def correct(self) -> bool | None:
        """Whether the text is right; None where the judge only gives shares."""

    @property
    def reason(self) -> str:
        """In a few words why it is wrong, for people."""

    @property
    def aspects(self) -> Mapping[str, tuple[float, float]]:
        """Aspect -> (how much of it is right, of how much); summed over a split and divided once."""

    @property
    def groups(self) -> Sequence[str]:
        """Names of the subsets of a split that the record belongs to, each reported on its own."""


class Judge(Protocol):
    """Compares a generated text with what is true of a record."""

    def __call__(self, text: str, record: RecordLike, /) -> Verdict: ...


BatchMaker = Callable[[Any, int | None, bool], Iterator[tuple[Sequence[Any], Batch]]]
"""(source, limit, prompts) -> (records, their batch) in the order of the source, on the CPU.

`limit` None means all records.  With `prompts` the text rows are to be continued (`Layout.write_prompts`), otherwise
they are training rows of the record's first caption.
"""


@dataclass(frozen=True)
class EvaluationTools:
    """What run.py puts at an evaluation's disposal."""

    device: torch.device
    batches: BatchMaker
    layout: Layout
    autocast: Callable[[], AbstractContextManager[Any]]
    objective: Objective | None = None  # for HeldOutLoss


@dataclass(frozen=True)
class SampleOutcome:
    """One record as the sample page shows it; `control_*` is the answer to another record's image."""

    task: str  # "captioning", "answering", "retrieval"
    split: str
    key: str
    image: bytes  # encoded, as the data set holds it
    text: str  # what the model said or chose
    references: list[str]
    correct: bool | None = None
    reason: str = ""
    prompt: str = ""
    control_image: bytes | None = None
    control_text: str | None = None
    control_correct: bool | None = None


@dataclass(frozen=True)
class EvaluationResult:
    """Metrics by name, and the first few samples: not chosen ones."""

    metrics: dict[str, float]
    samples: list[SampleOutcome] = field(default_factory=list)


@runtime_checkable
class Evaluation(Protocol):
    """Measures a model on splits that it was not trained on."""

    def check(self, model: nn.Module, sources: Mapping[str, Any]) -> None:
        """ValueError where this evaluation cannot run; asked before training, so that hours are not lost to a typo."""

    def __call__(self, model: nn.Module, sources: Mapping[str, Any], tools: EvaluationTools) -> EvaluationResult: ...


def evaluate_all(
    evaluations: Mapping[str, Evaluation], model: nn.Module, sources: Mapping[str, Any], tools: EvaluationTools
) -> EvaluationResult:
    """One after the other; of two figures of one name the later counts."""
    results = [evaluation(model, sources, tools) for evaluation in evaluations.values()]
    metrics = {name: value for result in results for name, value in result.metrics.items()}
    return EvaluationResult(metrics, [sample for result in results for sample in result.samples])


def pick_sources(sources: Mapping[str, Any], splits: Sequence[str] | None) -> dict[str, Any]:
    """The named splits, or all where `splits` is None; ValueError names those there are."""
    if splits is None:
        if not sources:
            logger.warning("The data holds nothing out: there is nothing to evaluate on.")
        return dict(sources)
    unknown = [split for split in splits if split not in sources]
    if unknown:
        raise ValueError(
            f"There is no evaluation split {', '.join(map(repr, unknown))}; the data has "
            f"{', '.join(sorted(sources)) or 'none'}. Name one of these in the evaluation, or null for all."
        )
    return {split: sources[split] for split in splits}


def require_capability(evaluation: str, model: nn.Module, capability: type, remedy: str) -> None:
    """ValueError that names the methods of `capability` that the model lacks."""
    if not isinstance(model, capability):
        wanted = [name for name in dir(capability) if not name.startswith("_")]
        missing = [name for name in wanted if not hasattr(model, name)]
        raise ValueError(
            f"{evaluation} needs a model with {', '.join(missing)}; {type(model).__name__} has none. {remedy}"
        )


@contextmanager
def evaluating(model: nn.Module, tools: EvaluationTools) -> Iterator[None]:
    """A block without gradient, in the run's precision and in eval mode; each module's own mode comes back after it."""
    were_training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), tools.autocast():
            yield
    finally:
        for module, was_training in were_training:
            module.training = was_training


def sum_aspects(verdicts: Sequence[Verdict], accuracy: str = "caption_accuracy") -> dict[str, float]:
    """`accuracy`, where the judge decides right or wrong, and the share of each aspect that is right."""
    shares: dict[str, float] = {}
    decided = [verdict.correct for verdict in verdicts if verdict.correct is not None]
    if decided:
        shares[accuracy] = sum(decided) / len(decided)
    totals: dict[str, tuple[float, float]] = {}
    for verdict in verdicts:
        for aspect, (right, of) in verdict.aspects.items():
            so_far = totals.get(aspect, (0.0, 0.0))
            totals[aspect] = (so_far[0] + right, so_far[1] + of)
    return shares | {aspect: right / of for aspect, (right, of) in totals.items() if of}
