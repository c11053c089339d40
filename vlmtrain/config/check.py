"""Is the whole configuration right?  Every fault is found before anything is built, and all are reported at once."""

from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from typing import Any

from vlmtrain.config.annotations import fits
from vlmtrain.config.choices import explain_unknown_key
from vlmtrain.config.compose import Composed
from vlmtrain.config.cross_checks import check_across
from vlmtrain.config.faults import ConfigError, Fault, closest, offer
from vlmtrain.config.parts import check_parts, list_arguments
from vlmtrain.config.schema import REQUIRED, RunConfig, StageConfig, default_of, list_keys, spell_type
from vlmtrain.config.typed_values import check_value

IMAGE_TRANSFORM = "vlmtrain.data.transforms.ImageTransform"


def check(composed: Composed) -> None:
    """ConfigError with every fault of the composed configuration."""
    faults = list(composed.faults)
    faults += _check_section(composed.config, RunConfig, "", composed)
    for name, stage in composed.config["stages"].items():
        faults += _check_stage(name, stage, composed)
    faults += check_parts(composed.config, "")
    told = {fault.path for fault in composed.faults if fault.path}
    faults = [*composed.faults, *(fault for fault in faults[len(composed.faults) :] if fault.path not in told)]
    if not faults:
        faults += check_across(composed.config)
    if faults:
        raise ConfigError(_place(_deduplicate(faults), composed))


def _check_section(values: Any, section: type, path: str, composed: Composed) -> Iterator[Fault]:
    """Unknown, missing and wrongly valued keys of a closed section and of the closed sections below it."""
    prefix = f"{path}." if path else ""
    if not isinstance(values, dict):
        yield Fault(path, f"wants a section, got {values!r}", offer("", [entry.name for entry in fields(section)]))
        return
    known: dict[str, Field[Any]] = {entry.name: entry for entry in fields(section)}
    for key, value in values.items():
        if key not in known:
            yield _explain_unknown(str(key), value, prefix, known, composed)
        elif isinstance(known[key].type, type) and is_dataclass(known[key].type):
            yield from _check_section(value, known[key].type, prefix + key, composed)  # type: ignore[arg-type]
        else:
            yield from check_value(prefix + key, value, known[key])
    for key, entry in known.items():
        if default_of(entry) is REQUIRED and not values.get(key):
            yield Fault(prefix + key, "is missing", f"{entry.metadata['doc']} ({spell_type(entry)})")


def _check_stage(name: str, stage: Any, composed: Composed) -> Iterator[Fault]:
    path = f"stages.{name}"
    if isinstance(stage, dict) and not {"model", "objective"} & set(stage):
        real = [other for other, value in composed.config["stages"].items() if "model" in value]
        yield Fault(path, "there is no such stage", offer(name, real, "Stages"))
        return
    yield from _check_section(stage, StageConfig, path, composed)
    for part in ("model", "objective", "form"):
        if isinstance(stage.get(part), dict) and stage[part] and "_target_" not in stage[part]:
            yield _explain_lone_arguments(f"{path}.{part}", part, stage[part], composed)
    if isinstance(stage.get("transform"), dict) and "_target_" not in stage["transform"]:
        # partial: the encoder says how large images are
        node = {**stage["transform"], "_target_": IMAGE_TRANSFORM, "_partial_": True}
        yield from check_parts(node, f"{path}.transform")
    for part, source in (stage.get("start_from") or {}).items():
        if not (fits(source, "dict[str, str]") and set(source) == {"stage", "part"}):
            remedy = "write {stage: NAME, part: NAME}, part: '*' for all"
            yield Fault(f"{path}.start_from.{part}", f"got {source!r}", remedy)


def _explain_lone_arguments(path: str, part: str, value: dict[str, Any], composed: Composed) -> Fault:
    """A part without `_target_`: mostly because a value was typed below a stage's reference to the run's part."""
    typed = [key for key in composed.typed if key.startswith(f"{path}.")]
    if typed and part in composed.config:
        remedy = f"this stage takes the run's {part}: type {typed[0].removeprefix(path.removesuffix(part))}=VALUE"
    else:
        remedy = "name its class: _target_: module.Class"
    return Fault(path, f"got {value!r}, which has no _target_", remedy)


def _explain_unknown(key: str, value: Any, prefix: str, known: dict[str, Field[Any]], composed: Composed) -> Fault:
    """What was probably meant, the surest guess first: a group, a synonym, a key elsewhere, a near miss."""
    group = explain_unknown_key(key, value, composed.groups) if not prefix else None
    synonyms = {word: entry.name for entry in known.values() for word in entry.metadata["also"]}
    elsewhere, near = find_elsewhere(key, composed.config), closest(key, known)
    if group and group[0]:
        remedy = group[1]
    elif key in synonyms:
        remedy = f"write {_as_typed(prefix + synonyms[key], value)}"
    elif elsewhere:
        remedy = f"that key lives at {' and '.join(elsewhere[:3])}"
    elif near:
        remedy = f"did you mean {_as_typed(prefix + near, value)}?"
    else:
        remedy = group[1] if group else _offer_from_anywhere(key, known)
    return Fault(prefix + key, "there is no such key", remedy)


def find_elsewhere(key: str, config: dict[str, Any]) -> list[str]:
    """Where a key of this name (or a synonym of it) really is: closed sections first, then arguments of parts."""
    closed = list_keys(RunConfig)
    named = [path for path, entry in closed.items() if key in (path.rsplit(".", 1)[-1], *entry.metadata["also"])]
    return named or [path for path in list_arguments(config, "") if path.rsplit(".", 1)[-1] == key]


def _offer_from_anywhere(key: str, known: dict[str, Field[Any]]) -> str:
    leaves = {path.rsplit(".", 1)[-1]: path for path in list_keys(RunConfig)}
    near = closest(key, leaves)
    return f"did you mean {leaves[near]}?" if near else offer(key, known)


def _as_typed(path: str, value: Any) -> str:
    if isinstance(value, dict) and len(value) == 1:
        key, inner = next(iter(value.items()))
        return _as_typed(f"{path}.{key}", inner)
    return path if isinstance(value, dict | list) or value is None else f"{path}={value}"


def _deduplicate(faults: list[Fault]) -> list[Fault]:
    """The same mistake seen in a section and in the stages that took it over is one mistake."""
    kept: dict[tuple[str, str], Fault] = {}
    for fault in faults:
        shared = fault.path
        parts = fault.path.split(".")
        if parts[0] == "stages" and len(parts) > 3 and parts[2] in ("trainer", "optimizer", "model"):
            shared = ".".join(parts[2:])
        kept.setdefault((shared, fault.problem), fault)
    return list(kept.values())


def _place(faults: list[Fault], composed: Composed) -> list[Fault]:
    return [Fault(fault.path, fault.problem, fault.remedy, composed.place(fault.path)) for fault in faults]
