"""`key=value` words -> choices of groups, values in Hydra's grammar, and what cannot be read."""

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from vlmtrain.config.choices import Groups, check_choice, top_groups
from vlmtrain.config.faults import Fault

STRUCTURAL = ("[", "{", "'", '"')


def sort_overrides(overrides: list[str], groups: Groups) -> tuple[list[Fault], dict[str, str], list[str]]:
    """Faults, chosen option by group, and `key=value` overrides that Hydra can read."""
    faults: list[Fault] = []
    choices: dict[str, str] = {}
    values: list[str] = []
    for override in overrides:
        key, _, value = override.partition("=")
        readable = _make_readable(override)
        fault = check_choice(override, groups) or _check_value(key, value, readable) or _refuse_hydra(key)
        if fault is not None:
            faults.append(fault)
        elif key in top_groups(groups):
            choices[key] = value.strip("'\"")
        else:
            values.append(readable)
    return faults, choices, values


def _make_readable(override: str) -> str:
    """Plain text that Hydra's grammar trips over, as paths with ~, = or brackets, is put in quotes."""
    key, _, value = override.partition("=")
    if _is_readable(override) or value.startswith(STRUCTURAL) or "${" in value:
        return override
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{key}="{escaped}"'


def _is_readable(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def _check_value(key: str, value: str, override: str) -> Fault | None:
    if not _is_readable(override):
        remedy = f"a list is {key}=[a,b], a section {key}={{a: 1}}, a text {key}='\"...\"'"
        return Fault(key, f"cannot read the value {value!r}", remedy)
    if OverridesParser.create().parse_override(override).is_sweep_override():
        remedy = f"a list is {key}=[{value}], a text {key}='\"{value}\"'"
        return Fault(key, f"{value!r} is several values, and a run has one", remedy)
    return None


def _refuse_hydra(key: str) -> Fault | None:
    is_hydras = key.lstrip("~").split(".")[0].split("/")[0] == "hydra"
    return Fault(key, "is Hydra's own", "vlmtrain only composes with it; see vlmtrain --help") if is_hydras else None
