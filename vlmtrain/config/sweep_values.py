"""The values that a key of a sweep takes: from its file, or typed with commas."""

import re
from dataclasses import asdict, dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep
from hydra.errors import HydraException

from vlmtrain.config.choices import Groups
from vlmtrain.config.faults import offer

ALL = "all"  # every option of a group, as conf/ has them
SEPARATOR = "__"  # between the parts of a setting's name, which is a folder's
LONGEST_VALUE = 40  # characters of a value in a name


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, of which a search proposes some; whole ones if both are whole."""

    low: float
    high: float
    log: bool = False  # evenly by ratio instead of by difference
    step: float | None = None


def read_values(key: str, chosen: Any, groups: Groups) -> list[str] | Range:
    """A list, `all` options of a group, or {low, high}.  ValueError names the key."""
    if chosen == ALL:
        if key not in groups:
            raise ValueError(f"vary {key}: {ALL} wants a group; {offer(key, groups, 'Groups')}.")
        return list(groups[key])
    if isinstance(chosen, dict):
        return _read_range(key, chosen)
    if not isinstance(chosen, list) or not chosen:
        raise ValueError(
            f"vary {key}: got {chosen!r}; give a list of values, `{ALL}` for every option of a group, or for a search "
            "{low: 1e-5, high: 1e-2, log: true}."
        )
    return [str(value) for value in chosen]


def name_value(key: str, value: object, is_group: bool) -> str:
    """`lr_0.001`, or just `mlp` where the key is a group: part of a folder's name, without what shells dislike."""
    plain = re.sub(r"[^A-Za-z0-9._+-]+", " ", str(value)).strip().replace(" ", "-")[:LONGEST_VALUE]
    return plain if is_group else f"{re.split(r'[./]', key)[-1]}_{plain}"


def split_typed(overrides: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Overrides of one value, and key -> the several values of the others, as `vary` of a file would have them."""
    fixed: list[str] = []
    varied: dict[str, Any] = {}
    for override in overrides:
        key, _, value = override.partition("=")
        try:
            parsed = OverridesParser.create().parse_override(override)
        except HydraException:  # read again, and told, when a trial is composed
            fixed.append(override)
            continue
        typed = parsed.value()
        if not parsed.is_sweep_override():
            fixed.append(override)
        elif isinstance(typed, IntervalSweep):
            plain = Range(typed.start or 0.0, typed.end or 0.0, "log" in typed.tags)
            varied[key] = {name: value for name, value in asdict(plain).items() if value is not None}
        elif isinstance(typed, ChoiceSweep | RangeSweep):
            varied[key] = list(parsed.sweep_string_iterator())
        else:
            raise ValueError(f"{key}={value}: several values are {key}=a,b,c, a range is {key}=interval(LOW,HIGH)")
    return fixed, varied


def _read_range(key: str, chosen: dict[str, Any]) -> Range:
    wanted = "{low: 1e-5, high: 1e-2, log: true} or {low: 1, high: 8, step: 1}"
    if not {"low", "high"} <= set(chosen) <= {"low", "high", "log", "step"}:
        raise ValueError(f"vary {key}: got {chosen!r}; a range is {wanted}.")
    low, high, step = (_read_number(key, chosen.get(name), wanted) for name in ("low", "high", "step"))
    log = chosen.get("log", False)
    if low is None or high is None or not low < high or not isinstance(log, bool):
        raise ValueError(f"vary {key}: got {chosen!r}; a range is {wanted}, low below high.")
    if log and (low <= 0 or step is not None):
        raise ValueError(f"vary {key}: log wants low above 0 and no step; got {chosen!r}.")
    return Range(low, high, log, step)


def _read_number(key: str, value: Any, wanted: str) -> float | int | None:
    """YAML reads 1e-5 as a text."""
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"vary {key}: {value!r} is no number; a range is {wanted}.") from error
