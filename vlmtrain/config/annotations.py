"""Does a plain YAML value suit an annotation?  Judged from the annotation's text, so that nothing is imported."""

import ast
from typing import Any

NUMBERS: dict[str, type | tuple[type, ...]] = {"int": int, "float": (int, float)}
SEQUENCES = {"list", "tuple", "set", "frozenset", "Sequence", "Iterable", "Collection"}
MAPPINGS = {"dict", "Mapping", "MutableMapping", "OrderedDict"}


def fits(value: object, annotation: str | None) -> bool:
    """True also where the annotation says nothing that a YAML value could contradict."""
    if annotation is None or (isinstance(value, dict) and "_target_" in value):
        return True
    try:
        return _fits(value, ast.parse(annotation.strip("'\""), mode="eval").body)
    except SyntaxError:
        return True


def _fits(value: object, node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return _fits(value, node.left) or _fits(value, node.right)
    if isinstance(node, ast.Constant):  # None, or a name in quotes
        return value is None if node.value is None else fits(value, str(node.value))
    if isinstance(node, ast.Subscript):
        return _fits_generic(value, _last_name(node.value), node.slice)
    return _fits_name(value, _last_name(node))


def _fits_name(value: object, name: str) -> bool:
    if name in NUMBERS:
        return isinstance(value, NUMBERS[name]) and not isinstance(value, bool)
    if name in ("str", "bool"):
        return isinstance(value, str if name == "str" else bool)
    if name == "Path":
        return isinstance(value, str)
    if name in SEQUENCES:
        return isinstance(value, list)
    return isinstance(value, dict) if name in MAPPINGS else True


def _fits_generic(value: Any, name: str, inner: ast.expr) -> bool:
    parts = list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]
    if name == "Optional":
        return value is None or _fits(value, parts[0])
    if name == "Union":
        return any(_fits(value, part) for part in parts)
    if name == "Literal":
        return any(isinstance(part, ast.Constant) and value == part.value for part in parts)
    if name == "Annotated":
        return _fits(value, parts[0])
    if name == "tuple":
        return isinstance(value, list) and _fits_tuple(value, parts)
    if name in SEQUENCES:
        return isinstance(value, list) and all(fits(item, ast.unparse(parts[0])) for item in value)
    if name in MAPPINGS:
        return isinstance(value, dict) and all(fits(item, ast.unparse(parts[-1])) for item in value.values())
    return True


def _fits_tuple(values: list[object], parts: list[ast.expr]) -> bool:
    if isinstance(parts[-1], ast.Constant) and parts[-1].value is ...:
        return all(fits(item, ast.unparse(parts[0])) for item in values)
    return len(values) == len(parts) and all(
        fits(item, ast.unparse(part)) for item, part in zip(values, parts, strict=True)
    )


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
