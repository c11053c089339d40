"""Configuration nodes -> objects.  Only here does a configuration make code run, and only allowed code."""

import importlib
from functools import partial
from typing import Any

from vlmtrain.config.allowed import reach_working_folder
from vlmtrain.config.embedded import resolve_source
from vlmtrain.config.parts import DIRECTIVES
from vlmtrain.config.secrets import reveal
from vlmtrain.config.signatures import find_definition


def build(node: Any) -> Any:
    """Calls every `_target_` below `node` with its arguments, innermost first; `_partial_: true` leaves out the call.

    Lists stay lists, sections without `_target_` stay dicts, `embedded:NAME` becomes a folder.  ValueError where a
    target may not be named.
    """
    if isinstance(node, list):
        return [build(item) for item in node]
    if not isinstance(node, dict):
        return resolve_source(reveal(node)) if isinstance(node, str) else node
    arguments = {key: build(value) for key, value in node.items() if key not in DIRECTIVES}
    if "_target_" not in node:
        return arguments
    target = load_target(node["_target_"])
    return partial(target, **arguments) if node.get("_partial_") else target(**arguments)


def load_target(target: str) -> Any:
    """Imports what `target` names.  ValueError where it is not defined in an allowed package."""
    reach_working_folder()
    definition, method = find_definition(target)
    found = getattr(importlib.import_module(definition.module), definition.node.name)
    if getattr(found, "__module__", definition.module) != definition.module:
        raise ValueError(f"{target!r} is not defined in {definition.module} but in {found.__module__}: name that place")
    return getattr(found, method.name) if method else found
