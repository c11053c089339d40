"""`samples.png`: held-out pictures with what the model says of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vlmtrain.evaluation.base import SampleOutcome
from vlmtrain.report.pictures import open_picture

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_PAPER, _CARD, _EDGE = (246, 245, 242), (255, 255, 255), (226, 223, 216)
_INK, _GREY = (33, 32, 29), (125, 121, 112)
_GREEN, _RED = (34, 139, 87), (205, 63, 52)
_MARGIN, _GAP, _SIDE, _PADDING = 48, 28, 384, 22
_MOST_LINES = 5


@dataclass(frozen=True)
class _Card:
    """One sample with its texts broken into lines."""

    outcome: SampleOutcome
    prompt: list[str]
    text: list[str]
    reference: list[str]

    @property
    def height(self) -> int:
        lines = 27 * len(self.prompt) + 34 * len(self.text) + (10 + 27 * len(self.reference) if self.reference else 0)
        return _SIDE + 2 * _PADDING + lines


def draw_grid(
    outcomes: Sequence[SampleOutcome], path: Path, title: str, subtitle: str = "", num_columns: int = 4
) -> None:
    """Writes the picture: one block of cards per task and split, the prompt if any, a mark where
    the judge decided, the truth if wrong.

    Characters that Pillow's built-in font lacks appear as boxes here; the HTML page shows them.
    """
    sections: dict[str, list[_Card]] = {}
    for outcome in outcomes:
        sections.setdefault(f"{outcome.task} · {outcome.split}", []).append(_make_card(outcome))
    width = 2 * _MARGIN + num_columns * _SIDE + (num_columns - 1) * _GAP
    blocks = [(name, _rows(cards, num_columns)) for name, cards in sections.items()]
    height = 150 + sum(62 + sum(_row_height(row) + _GAP for row in rows) for _, rows in blocks) + _MARGIN
    canvas = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((_MARGIN, 44), title, font=_font(44), fill=_INK)
    draw.text((_MARGIN, 100), _shorten(subtitle, _font(24), width - 2 * _MARGIN), font=_font(24), fill=_GREY)
    top = 150
    for name, rows in blocks:
        draw.text((_MARGIN, top + 14), name, font=_font(28), fill=_INK)
        top += 62
        for row in rows:
            for column, card in enumerate(row):
                _draw_card(canvas, card, (_MARGIN + column * (_SIDE + _GAP), top), _row_height(row))
            top += _row_height(row) + _GAP
    canvas.save(path)


def wrap(text: str, font: Font, width: float, most_lines: int = _MOST_LINES) -> list[str]:
    """Breaks a text into lines no wider than `width`, words longer than a line too; a cut text ends in dots."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        candidate = f"{line} {word}" if line else word
        while font.getlength(candidate) > width:
            if line:
                lines, line, candidate = [*lines, line], "", word
                continue
            cut = max(1, next((n for n in range(len(word), 0, -1) if font.getlength(word[:n]) <= width), 1))
            if cut == len(word):
                break
            lines, word = [*lines, word[:cut]], word[cut:]
            candidate = word
        line = candidate
    lines = [*lines, line] if line else lines
    if len(lines) <= most_lines:
        return lines
    return [*lines[: most_lines - 1], _shorten(f"{lines[most_lines - 1]} ...", font, width)]


def _make_card(outcome: SampleOutcome) -> _Card:
    width = _SIDE - 2 * _PADDING
    mark = 0 if outcome.correct is None else 38
    text = wrap(outcome.text or "(nothing)", _font(25), width - mark)
    shows_truth = outcome.correct is not True and outcome.references
    reference = wrap(f"true: {outcome.references[0]}", _font(20), width, 3) if shows_truth else []
    prompt = wrap(outcome.prompt, _font(20), width, 2)
    return _Card(outcome, prompt, text, reference)


def _draw_card(canvas: Image.Image, card: _Card, corner: tuple[int, int], height: int) -> None:
    left, top = corner
    draw = ImageDraw.Draw(canvas)
    draw.rounded_rectangle((left, top, left + _SIDE, top + height), radius=18, fill=_CARD, outline=_EDGE, width=2)
    canvas.paste(open_picture(card.outcome.image, _SIDE), corner, _picture_mask())
    draw.rounded_rectangle((left, top, left + _SIDE, top + height), radius=18, outline=_EDGE, width=2)
    x, y = left + _PADDING, top + _SIDE + _PADDING
    for line in card.prompt:
        draw.text((x, y), line, font=_font(20), fill=_GREY)
        y += 27
    if card.outcome.correct is not None:
        _draw_mark(draw, x, y + 2, card.outcome.correct)
        x += 38
    for line in card.text:
        draw.text((x, y), line, font=_font(25), fill=_INK)
        y += 34
    y += 10
    for line in card.reference:
        draw.text((left + _PADDING, y), line, font=_font(20), fill=_GREY)
        y += 27


def _draw_mark(draw: ImageDraw.ImageDraw, x: int, y: int, is_right: bool) -> None:
    """A green tick or a red cross in a disc of 26 pixels."""
    draw.ellipse((x, y, x + 26, y + 26), fill=_GREEN if is_right else _RED)
    if is_right:
        draw.line(((x + 7, y + 14), (x + 12, y + 19), (x + 20, y + 8)), fill=_CARD, width=3, joint="curve")
    else:
        draw.line((x + 8, y + 8, x + 18, y + 18), fill=_CARD, width=3)
        draw.line((x + 8, y + 18, x + 18, y + 8), fill=_CARD, width=3)


@lru_cache(maxsize=1)
def _picture_mask() -> Image.Image:
    """Round corners at the top, drawn large and shrunk so that they are smooth."""
    large = Image.new("L", (4 * _SIDE, 4 * _SIDE), 0)
    ImageDraw.Draw(large).rounded_rectangle((0, 0, 4 * _SIDE, 8 * _SIDE), radius=72, fill=255)
    return large.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)


@lru_cache(maxsize=8)
def _font(size: int) -> Font:
    return ImageFont.load_default(size)


def _rows(cards: list[_Card], num_columns: int) -> list[list[_Card]]:
    return [cards[start : start + num_columns] for start in range(0, len(cards), num_columns)]


def _row_height(row: list[_Card]) -> int:
    return max(card.height for card in row)


def _shorten(text: str, font: Font, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text.rstrip(' .')}..."
