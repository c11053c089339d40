"""Python source as text: where a module lies, what it defines and what it imports.  Nothing is ever imported."""

import ast
import importlib.machinery
import importlib.util
from functools import cache
from pathlib import Path


@cache
def find_source(module: str) -> Path | None:
    """The file of `module`, found without importing any package."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin)
    for name in rest:
        if file.name != "__init__.py":
            return None
        inner = importlib.machinery.PathFinder.find_spec(name, [str(file.parent)])
        if inner is None or inner.origin is None:
            return None
        file = Path(inner.origin)
    return file if file.suffix == ".py" else None


@cache
def read_tree(module: str) -> ast.Module:
    """The syntax tree of `module`; empty where there is no Python source."""
    file = find_source(module)
    return ast.parse(file.read_text(encoding="utf-8")) if file else ast.Module(body=[], type_ignores=[])


@cache
def read_members(module: str) -> dict[str, ast.ClassDef | ast.FunctionDef]:
    """Name -> class or function that `module` itself defines."""
    return {node.name: node for node in read_tree(module).body if isinstance(node, ast.ClassDef | ast.FunctionDef)}


@cache
def read_imports(module: str) -> dict[str, str]:
    """Name in `module` -> full name of what was imported under it."""
    names: dict[str, str] = {}
    for node in ast.walk(read_tree(module)):
        if isinstance(node, ast.Import):
            names.update({alias.asname or alias.name.split(".")[0]: alias.name for alias in node.names})
        elif isinstance(node, ast.ImportFrom):
            home = _absolute(module, node)
            names.update({alias.asname or alias.name: f"{home}.{alias.name}" for alias in node.names})
    return names


def _absolute(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    file = find_source(module)
    package = module.split(".") if file and file.name == "__init__.py" else module.split(".")[:-1]
    kept = package[: len(package) - (node.level - 1)]
    return ".".join([*kept, *([node.module] if node.module else [])])
