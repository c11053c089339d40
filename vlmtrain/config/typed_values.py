"""Does a value suit a field of a closed section: its type, its range, its choices?"""

from collections.abc import Iterator
from dataclasses import Field
from typing import Any

from vlmtrain.config.annotations import fits
from vlmtrain.config.faults import Fault, closest
from vlmtrain.config.schema import spell_type

WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "None": "null"}


def check_value(path: str, value: Any, entry: Field[Any]) -> Iterator[Fault]:
    """Faults of one value, each with what would be right."""
    annotation = spell_type(entry)
    wanted = f"it wants {spell(annotation)}{describe_range(entry)}: {entry.metadata['doc']}"
    if not fits(value, annotation):
        yield Fault(path, f"got {value!r}", wanted)
        return
    choices = entry.metadata["choices"]
    if choices and value not in choices:
        near = closest(str(value), choices)
        meant = f"did you mean {near}? " if near else ""
        yield Fault(path, f"got {value!r}", f"{meant}Allowed: {', '.join(choices)}")
    numbers = value if isinstance(value, list) else [value]
    if not all(_is_within(number, entry) for number in numbers):
        yield Fault(path, f"got {value!r}", wanted)


def spell(annotation: str) -> str:
    """'int | None' -> 'a whole number or null'."""
    return " or ".join(WORDS.get(part.strip(), part.strip()) for part in annotation.split("|"))


def describe_range(entry: Field[Any]) -> str:
    """' from 1 to 8', ' above 0'; '' where anything goes."""
    low, high, above = (entry.metadata[name] for name in ("low", "high", "above"))
    words = f" above {above:g}" if above is not None else f" of at least {low:g}" if low is not None else ""
    return words + (f"{' and' if words else ''} up to {high:g}" if high is not None else "")


def _is_within(number: Any, entry: Field[Any]) -> bool:
    if isinstance(number, bool) or not isinstance(number, int | float):
        return True
    low, high, above = (entry.metadata[name] for name in ("low", "high", "above"))
    is_finite = number == number and abs(number) != float("inf")
    return (
        is_finite
        and (low is None or number >= low)
        and (high is None or number <= high)
        and (above is None or number > above)
    )
