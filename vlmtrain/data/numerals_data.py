"""Written numerals with captions, drawn as they are asked for."""

from vlmtrain.data.numerals.draw import INKS, Numeral, draw_numeral
from vlmtrain.data.numerals.strokes import NAMES
from vlmtrain.data.record import Record
from vlmtrain.data.scenes.draws import Draws
from vlmtrain.data.sources.base import Source
from vlmtrain.data.sources.made import MadeRecords

CLASS_TEMPLATES = (
    "the digit {}",
    "a picture of the digit {}",
    "here is the digit {}",
    "the picture shows the digit {}",
)
"""What classes are asked for by.  No caption says "digit" before a number's name; `captions_of` sees to it."""

_HELD_OUT = 2**32  # added to the seed: other draws than any of training


def captions_of(number: int, ink: str, pen: str) -> list[str]:
    """Six wordings; the last says what kind of thing it is and not which."""
    name = NAMES[number]
    return [
        f"the number {name}",
        f"a {pen} {ink} {name}",
        f"a {ink} number {name}",
        f"here is a {name} written in {ink}",
        f"the picture shows a {pen} number {name}",
        f"a picture of a {pen} {ink} digit",
    ]


def make_numeral(seed: int, index: int) -> Record:
    """Numbers come in turns, everything else by chance."""
    draws = Draws("numerals", seed, index)
    number, ink, pen = index % len(NAMES), draws.pick(tuple(INKS)), draws.pick(("thin", "thick"))
    image = draw_numeral(Numeral(number, ink, pen, f"{seed}-{index}"))
    return Record(f"{index:08d}", [image], captions_of(number, ink, pen), {"class": NAMES[number]})


class Numerals:
    """Numerals as a pen writes them, in seven colours and down to 8 pixels a side: no image of a real collection.

    To classify by: `classes` are the names zero to nine, in the wording of `templates`, which is no caption's.
    """

    together = 1
    classes = NAMES
    templates = CLASS_TEMPLATES

    def __init__(self, seed: int = 0, num_train: int = 16_000, num_test: int = 500) -> None:
        self.train: Source = MadeRecords(make_numeral, "numerals", seed, num_train)
        held_out = MadeRecords(make_numeral, "numerals, test", seed + _HELD_OUT, num_test)
        self.evaluation: dict[str, Source] = {"test": held_out}
