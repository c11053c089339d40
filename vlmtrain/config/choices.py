"""Which overrides choose a file of a group, and whether that file exists."""

from pathlib import Path
from typing import Any

from vlmtrain.config.faults import Fault, closest

Groups = dict[str, dict[str, Path]]


def top_groups(groups: Groups) -> Groups:
    """The groups a user chooses from; `scale/NAME` is what a scale means for one experiment, `sweep` many runs."""
    return {name: options for name, options in groups.items() if not name.startswith("scale/") and name != "sweep"}


def check_choice(override: str, groups: Groups) -> Fault | None:
    """The fault of an override that names a group or looks like it should; None when all is well."""
    key, _, value = override.partition("=")
    groups = top_groups(groups)
    if key in groups:
        return _check_option(key, value.strip("'\""), groups[key])
    if "/" in key:
        near = closest(key, groups)
        meant = f"did you mean {near}={value}? " if near else ""
        return Fault(key, "there is no such group", f"{meant}Groups: {', '.join(groups)}")
    return None


def explain_unknown_key(key: str, value: Any, groups: Groups) -> tuple[bool, str] | None:
    """(whether this is surely what was meant, remedy) for a key that is (nearly) the last name of a group.

    `encoder=clip_b16` can only mean `model/encoder=clip_b16`; `encodr=x` probably means that group.
    """
    ends = {name.rsplit("/", 1)[-1]: name for name in top_groups(groups)}
    near = closest(key, ends)
    if near is None:
        return None
    group = ends[near]
    options = groups[group]
    option = closest(value, options) if isinstance(value, str) else None
    meant = f"{group}={option or 'NAME'}"
    return option is not None or key == near, f"did you mean {meant}? Options: {', '.join(options)}"


def _check_option(group: str, option: str, options: dict[str, Path]) -> Fault | None:
    if option in options or option == "null":
        return None
    if option == "":
        return Fault(group, "no option is chosen", f"options: {', '.join(options)}")
    near = closest(option, options)
    meant = f"did you mean {near}? " if near else ""
    return Fault(group, f"there is no option {option!r}", f"{meant}Options: {', '.join(options)}")
