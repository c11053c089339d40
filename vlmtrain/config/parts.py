"""Holds every `_target_` node to its target's signature, read from source."""

from collections.abc import Iterator
from typing import Any

from vlmtrain.config.annotations import fits
from vlmtrain.config.embedded import resolve_source
from vlmtrain.config.faults import Fault, closest
from vlmtrain.config.signatures import Definition, Parameter, Signature, TargetError, makes, read_signature
from vlmtrain.config.typed_values import spell

DIRECTIVES = ("_target_", "_partial_")


def check_parts(node: Any, path: str) -> Iterator[Fault]:
    """Faults of every node below `node`."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield from _check_node(node, path)
        for key, value in node.items():
            yield from check_parts(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from check_parts(value, f"{path}[{index}]")
    elif isinstance(node, str):
        try:
            resolve_source(node)
        except ValueError as error:
            yield Fault(path, str(error))


def list_arguments(node: Any, path: str) -> list[str]:
    """Dotted paths of everything that the parts below `node` take, given or not."""
    if not isinstance(node, dict):
        return []
    found = []
    if "_target_" in node:
        try:
            found = [f"{path}.{name}" for name in read_signature(node["_target_"]).parameters]
        except TargetError:
            found = []
    return found + [name for key, value in node.items() for name in list_arguments(value, f"{path}.{key}".strip("."))]


def _check_node(node: dict[str, Any], path: str) -> Iterator[Fault]:
    try:
        signature = read_signature(node["_target_"])
    except TargetError as error:
        yield Fault(f"{path}._target_", str(error))
        return
    if not isinstance(node.get("_partial_", False), bool):
        yield Fault(f"{path}._partial_", f"got {node['_partial_']!r}", "it wants true or false")
    given = {key: value for key, value in node.items() if key not in DIRECTIVES}
    for key, value in given.items():
        if key.startswith("_"):
            yield Fault(f"{path}.{key}", "there is no such directive", f"known: {', '.join(DIRECTIVES)}")
        elif key in signature.parameters:
            yield from _check_argument(path, value, signature.parameters[key], signature)
        elif not signature.takes_anything:
            yield _explain_argument(key, node, path, signature)
    for parameter in signature.parameters.values():
        if parameter.is_required and parameter.name not in given and not node.get("_partial_"):
            wanted = f" ({spell(parameter.annotation)})" if parameter.annotation else ""
            yield Fault(f"{path}.{parameter.name}", "is missing", f"{signature.name} needs it{wanted}")


def _check_argument(path: str, value: Any, parameter: Parameter, signature: Signature) -> Iterator[Fault]:
    if value == "???":
        yield Fault(f"{path}.{parameter.name}", "has no value yet", f"type {path}.{parameter.name}=VALUE")
    elif parameter.part is not None and not (value is None and "None" in str(parameter.annotation)):
        yield from _check_part(f"{path}.{parameter.name}", value, parameter.part, signature)
    elif not fits(value, parameter.annotation):
        wanted = spell(parameter.annotation or "")
        yield Fault(f"{path}.{parameter.name}", f"got {value!r}", f"{signature.name} wants {wanted}")


def _check_part(path: str, value: Any, part: Definition, signature: Signature) -> Iterator[Fault]:
    """An argument that must be an object: is it a node, and does the node make the right thing?"""
    wanted = part.node.name
    if not isinstance(value, dict) or "_target_" not in value:
        yield Fault(path, f"got {value!r}", f"{signature.name} wants a {wanted}: a section with _target_")
        return
    try:
        is_right = bool(value.get("_partial_")) or makes(value["_target_"], part)
    except TargetError:
        return  # told where the node stands
    if not is_right:
        yield Fault(
            path, f"{value['_target_']} makes no {wanted}", f"{signature.name} wants one: name another _target_"
        )


def _explain_argument(key: str, node: dict[str, Any], path: str, signature: Signature) -> Fault:
    problem = f"{signature.name} takes no argument {key!r}"
    deeper = [name for name in list_arguments(node, path) if name.endswith(f".{key}")]
    if deeper:
        return Fault(f"{path}.{key}", problem, f"that key lives at {deeper[0]}")
    near = closest(key, signature.parameters)
    if near:
        return Fault(f"{path}.{key}", problem, f"did you mean {path}.{near}?")
    return Fault(f"{path}.{key}", problem, f"it takes {', '.join(signature.parameters) or 'nothing'}")
