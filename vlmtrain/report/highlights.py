"""Metrics -> the few figures that a person wants to see first, in words."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Highlight:
    """One figure with its name, and in a few words what to compare it with."""

    label: str
    value: str
    note: str = ""


_SHARES = {
    "caption_accuracy": "captions right",
    "accuracy": "answers right",
    "masked_word_accuracy": "hidden words right",
    "matching_accuracy": "true and altered captions told apart",
    "random_matching_accuracy": "true captions and other images' told apart",
    "located": "things found where they are",
    "composed_r1": "image and words find the image",
    "composed_r5": "image and words find the image among five",
    "composed_r10": "image and words find the image among ten",
    "zero_shot_accuracy": "classes told by their names",
    "probe_accuracy": "classes told by a few examples",
    "word_f1": "words shared with a reference",
    "things_right": "things right",
    "relations_right": "relations right",
    "earlier_picture_told": "an earlier picture told instead",
}
_HEADLINES = (
    "caption_accuracy",
    "accuracy",
    "located",
    "word_f1",
    "masked_word_accuracy",
    "matching_accuracy",
    "random_matching_accuracy",
    "zero_shot_accuracy",
    "probe_accuracy",
    "composed_r1",
)
_YARDSTICKS = (
    ("control", "with another image"),
    ("chance", "chance"),
    ("majority", "always the commonest answer"),
    ("image_only", "the image alone"),
    ("text_only", "the words alone"),
    ("added", "both added"),
)
_GAPS = {
    "zero_shot_gap": "lost under shifts, told by names",
    "probe_gap": "lost under shifts, told by examples",
}
_RECALLS = {
    "image_to_text_r1": "image finds its text",
    "text_to_image_r1": "text finds its image",
}


def highlight(metrics: Mapping[str, Mapping[str, float]]) -> list[Highlight]:
    """The headline figures of the evaluations: stage -> metric -> value, metrics named `<split>/<what>`."""
    found: list[Highlight] = []
    for stage in metrics.values():
        found += _captions(stage)
        found += _gaps(stage)
        found += _recalls(stage)
    captions_first = sorted(found, key=lambda each: "find" in each.label)
    return captions_first or [each for stage in metrics.values() for each in _losses(stage)]


def headline_names(names: Sequence[str], last_stage: str) -> list[str]:
    """Of <stage>/<split>/<what> those that a comparison begins with: the last stage's shares, else its losses."""
    known = [name for name in dict.fromkeys(names) if name.startswith(f"{last_stage}/")]
    shares = [name for what in (*_HEADLINES, *_RECALLS) for name in known if name.split("/")[2:] == [what]]
    return shares or [name for name in known if name.split("/")[2:] == ["loss"]] or [f"{last_stage}/loss"]


def format_percent(share: float) -> str:
    """A share as a percentage with one digit, without claiming 100 % for 99.97 %."""
    if share != share:
        return "NaN"
    percent = 100 * share
    if 99.9 < percent < 100.0:
        return "99.9 %"
    return "100 %" if percent == 100.0 else f"{percent:.1f} %"


def format_metric(name: str, value: float) -> str:
    """Shares as percentages, counts as integers, everything else with four digits."""
    what = name.rsplit("/", 1)[-1].removesuffix("_reranked")
    for prefix, _ in _YARDSTICKS:
        what = what.removeprefix(f"{prefix}_")
    if what in _SHARES or what.removesuffix("_reduction") in _GAPS or "_to_" in what:
        return format_percent(value)
    return f"{value:.0f}" if what.startswith("num_") and value == value else f"{value:.4g}"


def _captions(metrics: Mapping[str, float]) -> Iterator[Highlight]:
    for name, value in metrics.items():
        split, _, what = name.rpartition("/")
        if what not in _HEADLINES or "/" in split:
            continue
        notes = [
            f"{said} {format_percent(metrics[f'{split}/{prefix}_{what}'])}"
            for prefix, said in _YARDSTICKS
            if f"{split}/{prefix}_{what}" in metrics
        ]
        yield Highlight(f"{_SHARES[what]} · {split}", format_percent(value), " · ".join(notes))


def _gaps(metrics: Mapping[str, float]) -> Iterator[Highlight]:
    for name, value in metrics.items():
        split, _, what = name.rpartition("/")
        if what in _GAPS:
            reduction = metrics.get(f"{name}_reduction")
            note = "" if reduction is None else f"closes {format_percent(reduction)} of what is lost with examples"
            yield Highlight(f"{_GAPS[what]} · {split}", format_percent(value), note)


def _recalls(metrics: Mapping[str, float]) -> Iterator[Highlight]:
    for name, value in metrics.items():
        split, _, what = name.rpartition("/")
        if what not in _RECALLS:
            continue
        candidates = metrics.get(f"{split}/num_candidates", float("nan"))
        reranked = metrics.get(f"{name}_reranked")
        note = f"first of {candidates:.0f}"
        if reranked is not None:
            note += f" · reranked {format_percent(reranked)}"
        yield Highlight(f"{_RECALLS[what]} · {split}", format_percent(value), note)


def _losses(metrics: Mapping[str, float]) -> Iterator[Highlight]:
    for name, value in metrics.items():
        split, _, what = name.rpartition("/")
        if what == "loss":
            swapped = metrics.get(f"{split}/swapped_loss")
            note = "" if swapped is None else f"with another image {swapped:.3f}"
            yield Highlight(f"loss · {split or 'training'}", f"{value:.3f}", note)
