"""What a `_target_` takes, read from its source without importing it.

Reading instead of importing has two reasons: a wrong key is answered before torch has loaded, and a configuration
can only name what is *defined* in an allowed package, not what such a package happens to import (`logging.os.system`).
"""

import ast
from dataclasses import dataclass

from vlmtrain.config.allowed import allowed_packages, is_allowed
from vlmtrain.config.faults import offer
from vlmtrain.config.source_code import find_source, read_imports, read_members, read_tree

PLAIN_BASES = {
    "Module",
    "ABC",
    "object",
    "Protocol",
    "Generic",
    "NamedTuple",
    "Enum",
}  # they ask for nothing


class TargetError(ValueError):
    """A `_target_` that may not be named or that does not exist; the message says what to do."""


@dataclass(frozen=True)
class Parameter:
    """One argument that a configuration can give."""

    name: str
    annotation: str | None
    is_required: bool
    part: "Definition | None" = None  # the class of an allowed package that it must be an object of


@dataclass(frozen=True)
class Signature:
    """The arguments of a target.  `takes_anything`: it has **kwargs, or its source cannot be read."""

    name: str
    parameters: dict[str, Parameter]
    takes_anything: bool = False


@dataclass(frozen=True)
class Definition:
    """A class or function and the module it stands in."""

    module: str
    node: ast.ClassDef | ast.FunctionDef


def read_signature(target: str) -> Signature:
    """The signature of `package.module.Name` or `package.module.Class.classmethod`."""
    definition, method = find_definition(target)
    if method:
        is_static = _has_decorator(method, "staticmethod")
        return _signature_of(Definition(definition.module, method), method.name, skip_first=not is_static)
    if isinstance(definition.node, ast.FunctionDef):
        return _signature_of(definition, definition.node.name, skip_first=False)
    return _class_signature(definition, definition.node.name)


def find_definition(target: str) -> tuple[Definition, ast.FunctionDef | None]:
    """Where `target` is defined (and the method it names, if it does).  TargetError with the remedy otherwise."""
    if not isinstance(target, str) or not is_allowed(target):
        allowed = ", ".join(allowed_packages())
        raise TargetError(
            f"{target!r} may not be named: a configuration names only parts defined in {allowed}; "
            f"if it is yours and you trust it, add --allow {str(target).split('.')[0]} on the command line"
        )
    module, names = _split(target)
    if not names:
        raise TargetError(f"{target!r} is a module: write package.module.Name")
    node = _member(module, names[0], target)
    if len(names) == 1:
        return Definition(module, node), None
    if len(names) > 2:
        raise TargetError(f"{target!r} is no class, function or class method: write package.module.Name")
    methods = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == names[1]]
    if not isinstance(node, ast.ClassDef) or not methods:
        raise TargetError(f"{target!r}: {names[0]} defines no {names[1]!r}")
    return Definition(module, node), methods[0]


def list_bases(definition: Definition) -> list[Definition]:
    """`definition` and the classes it is made from, nearest first, as far as allowed packages define them."""
    found = [definition]
    for base in definition.node.bases if isinstance(definition.node, ast.ClassDef) else []:
        resolved = resolve_name(definition.module, base)
        if resolved is not None:
            found.extend(list_bases(resolved))
    return found


def resolve_name(module: str, name: ast.expr | str) -> Definition | None:
    """The class that `name` means in `module`, if an allowed package defines it."""
    text = name if isinstance(name, str) else ast.unparse(name)
    members = read_members(module)
    own = members.get(text)
    if own is not None:
        return Definition(module, own)
    imported = read_imports(module).get(text)
    if imported is None or not any(imported.startswith(f"{package}.") for package in allowed_packages()):
        return None
    home, _, last = imported.rpartition(".")
    member = read_members(home).get(last) if find_source(home) else None
    return Definition(home, member) if member is not None else None


def _class_signature(definition: Definition, name: str) -> Signature:
    node = definition.node
    assert isinstance(node, ast.ClassDef)
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return _signature_of(Definition(definition.module, item), name, skip_first=True)
    bases = [(base, resolve_name(definition.module, base)) for base in node.bases]
    inherited: dict[str, Parameter] = {}
    unreadable = False
    for base, resolved in bases:
        if resolved is not None:
            signature = _class_signature(resolved, name)
            inherited, unreadable = inherited | signature.parameters, unreadable or signature.takes_anything
        else:
            unreadable = unreadable or ast.unparse(base).split("[")[0].split(".")[-1] not in PLAIN_BASES
    if _has_decorator(node, "dataclass"):
        return Signature(name, inherited | _dataclass_parameters(node), unreadable)
    return Signature(name, inherited, unreadable)


def _dataclass_parameters(node: ast.ClassDef) -> dict[str, Parameter]:
    fields = [item for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)]
    named = {item.target.id: item for item in fields if isinstance(item.target, ast.Name)}
    return {
        name: Parameter(name, ast.unparse(item.annotation), item.value is None)
        for name, item in named.items()
        if not ast.unparse(item.annotation).startswith("ClassVar") and "init=False" not in ast.unparse(item)
    }


def _signature_of(definition: Definition, name: str, skip_first: bool) -> Signature:
    assert isinstance(definition.node, ast.FunctionDef)
    arguments = definition.node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    required = len(positional) - len(arguments.defaults)
    listed = [(argument, index < required) for index, argument in enumerate(positional)][1 if skip_first else 0 :]
    listed += [
        (item, default is None) for item, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    parameters = {
        item.arg: Parameter(
            item.arg,
            _spell(item.annotation, definition.module),
            is_required,
            _find_part(item.annotation, definition.module),
        )
        for item, is_required in listed
    }
    return Signature(name, parameters, takes_anything=arguments.kwarg is not None)


def _spell(annotation: ast.expr | None, module: str) -> str | None:
    """The annotation's text; a name that stands for a longer one (`Format = Literal[...]`) is written out."""
    if isinstance(annotation, ast.Name):
        home, _, name = read_imports(module).get(annotation.id, f"{module}.{annotation.id}").rpartition(".")
        for node in read_tree(home).body if home.startswith(allowed_packages()) else []:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
                return _spell(node.value, home)
    return ast.unparse(annotation) if annotation else None


def _find_part(annotation: ast.expr | None, module: str) -> Definition | None:
    """The class that `Name` or `Name | None` means, where objects of it (not values) are wanted."""
    if isinstance(annotation, ast.BinOp) and ast.unparse(annotation.right) == "None":
        annotation = annotation.left
    found = resolve_name(module, annotation) if isinstance(annotation, ast.Name) else None
    return found if found is not None and isinstance(found.node, ast.ClassDef) else None


def makes(target: str, part: Definition) -> bool:
    """Whether calling `target` gives an object of class `part`; True where the source does not tell."""
    definition, method = find_definition(target)
    node = method or definition.node
    if "Protocol" in [ast.unparse(base) for base in getattr(part.node, "bases", [])]:
        return True
    if isinstance(node, ast.FunctionDef):
        made = resolve_name(definition.module, node.returns) if node.returns is not None else None
        if made is None:
            return True
        definition = made
    return part in list_bases(definition)


def _has_decorator(node: ast.ClassDef | ast.FunctionDef, name: str) -> bool:
    return any(ast.unparse(decorator).split("(")[0].split(".")[-1] == name for decorator in node.decorator_list)


def _split(target: str) -> tuple[str, list[str]]:
    parts = target.split(".")
    for length in range(len(parts), 0, -1):
        if find_source(".".join(parts[:length])):
            return ".".join(parts[:length]), parts[length:]
    raise TargetError(f"{target!r}: package {parts[0]!r} is not installed and not in the working folder")


def _member(module: str, name: str, target: str) -> ast.ClassDef | ast.FunctionDef:
    node = read_members(module).get(name)
    if node is not None:
        return node
    imported = read_imports(module).get(name)
    if imported:
        raise TargetError(f"{target!r} is only imported there: name the place that defines it, {imported}")
    file = find_source(module)
    modules = [path.stem for path in file.parent.glob("*.py")] if file and file.name == "__init__.py" else []
    known = [f"{module}.{word}" for word in [*read_members(module), *modules] if not word.startswith("_")]
    raise TargetError(f"{target!r} does not exist; {offer(target, known, f'{module} has')}")
