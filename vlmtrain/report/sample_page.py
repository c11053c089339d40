"""`index.html`: what a model says of held-out pictures, on one page that needs no other file and no network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from vlmtrain.evaluation.base import SampleOutcome
from vlmtrain.report.highlights import highlight
from vlmtrain.report.page_style import STYLE
from vlmtrain.report.pictures import to_data_uri

_SIDE, _CONTROL_SIDE = 384, 128
_ABOUT = {
    "captioning": "Captions written for pictures that training never showed: the first {count} of the split, "
    "not chosen.",
    "answering": "Answers to questions about pictures that training never showed: the first {count} of the split, "
    "not chosen.",
    "composed retrieval": "An image with words that ask for another, and behind it the three images that the model "
    "finds most similar: the first {count} of the split, not chosen.",
    "retrieval": "The caption that the model finds most similar to each picture, among all candidates: the first "
    "{count} of the split, not chosen.",
}
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class PageHeading:
    """What stands above the samples; `metrics` is stage -> metric -> value of the evaluations."""

    title: str
    subtitle: str = ""
    command: str = ""
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    footer: str = ""


def render_page(outcomes: Sequence[SampleOutcome], heading: PageHeading) -> str:
    """The page as HTML.  Every text is escaped, and the page's policy forbids scripts and foreign content."""
    sections: dict[tuple[str, str], list[SampleOutcome]] = {}
    for outcome in outcomes:
        sections.setdefault((outcome.task, outcome.split), []).append(outcome)
    has_wrong = any(outcome.correct is False for outcome in outcomes)
    toggle = '<label class="filter"><input type="checkbox" id="only-wrong"> only what is wrong</label>'
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            f"<title>{escape(heading.title)}</title>",
            f"<style>{STYLE}</style>\n</head>\n<body>\n<main>",
            *_header(heading),
            toggle if has_wrong else "",
            *[_section(task, split, members) for (task, split), members in sections.items()],
            "" if outcomes else '<h2>No samples</h2><p class="about">No evaluation of this run keeps any.</p>',
            f"<footer>{escape(heading.footer)}</footer>" if heading.footer else "",
            "</main>\n</body>\n</html>\n",
        ]
    )


def _header(heading: PageHeading) -> list[str]:
    figures = [
        f'<div class="figure"><b>{escape(each.value)}</b><span>{escape(each.label)}</span>'
        f'<span class="note">{escape(each.note)}</span></div>'
        for each in highlight(heading.metrics)
    ]
    return [
        f"<h1>{escape(heading.title)}</h1>",
        f'<p class="lead">{escape(heading.subtitle)}</p>',
        f"<pre>{escape(heading.command)}</pre>" if heading.command else "",
        f'<div class="figures">{"".join(figures)}</div>' if figures else "",
    ]


def _section(task: str, split: str, outcomes: Sequence[SampleOutcome]) -> str:
    about = _ABOUT.get(task, "The first {count} of the split, not chosen.").format(count=len(outcomes))
    cards = "\n".join(_card(outcome) for outcome in outcomes)
    return (
        f"<section>\n<h2>{escape(task.capitalize())} · {escape(split)}</h2>\n"
        f'<p class="about">{escape(about)}</p>\n<div class="samples">\n{cards}\n</div>\n</section>'
    )


def _card(outcome: SampleOutcome) -> str:
    badges = {
        True: ("is-right", '<span class="badge right">&#10003; right</span>'),
        False: ("is-wrong", '<span class="badge wrong">&#10007; wrong</span>'),
        None: ("is-open", '<span class="badge open">not judged</span>'),
    }
    kind, badge = badges[outcome.correct]
    prompt = f'<p class="prompt">{escape(outcome.prompt)}</p>' if outcome.prompt else ""
    why = f'<p class="why">{escape(outcome.reason)}</p>' if outcome.reason else ""
    truth = (
        f'<p class="truth"><i>reference</i> {escape(outcome.references[0])}</p>'
        if outcome.references and outcome.references[0] != outcome.text
        else ""
    )
    return (
        f'<article class="{kind}" title="{escape(outcome.key)}">'
        f'<img src="{to_data_uri(outcome.image, _SIDE)}" alt="{escape(_alt_text(outcome))}">'
        f'<div class="said">{badge}{prompt}<p class="caption">{escape(outcome.text) or "(nothing)"}</p>'
        f"{why}{truth}</div>"
        f"{_control(outcome)}</article>"
    )


def _control(outcome: SampleOutcome) -> str:
    """The answer to another picture: an honest model's is no longer true of its own."""
    if outcome.control_image is None or outcome.control_text is None:
        return ""
    still = ' <span class="still">still true of the picture above</span>' if outcome.control_correct else ""
    return (
        f'<div class="control"><img src="{to_data_uri(outcome.control_image, _CONTROL_SIDE)}" alt="">'
        f'<div><p class="about">shown this picture instead, it says</p>{escape(outcome.control_text) or "(nothing)"}'
        f"{still}</div></div>"
    )


def _alt_text(outcome: SampleOutcome) -> str:
    return outcome.references[0] if outcome.references else outcome.key
