"""The rules of the house that a machine can hold: who imports whom, how long things get, what is never written."""

import ast
import re
import subprocess
import sys
import tokenize
import tomllib
import warnings
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "vlmtrain"
MODULES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in MODULES}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def where(path: Path, node: ast.AST | None = None) -> str:
    line = f":{node.lineno}" if isinstance(node, ast.expr | ast.stmt | ast.excepthandler) else ""
    return f"{path.relative_to(ROOT)}{line}"


def nodes(kind: type[ast.AST] | tuple[type[ast.AST], ...]) -> Iterator[tuple[Path, ast.AST]]:
    for path, tree in TREES.items():
        yield from ((path, node) for node in ast.walk(tree) if isinstance(node, kind))


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


# Imports -------------------------------------------------------------------------------------------------------------


def test_layers_import_downwards_only() -> None:
    """In a process of its own, because import-linter reconfigures logging."""
    start = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", start], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_import_cycles() -> None:
    graph = grimp.build_graph("vlmtrain", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail("import cycle: " + " -> ".join(error.args[1]))


def test_package_init_files_are_empty() -> None:
    written = [path for path in MODULES if path.name == "__init__.py" and path.parent != PACKAGE and path.read_text()]
    assert not written, f"`_target_` says where to look; re-exports hide it: {[where(path) for path in written]}"


def test_imports_are_declared_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    declared = {normalised(re.split(r"[<>=\[ ]", line)[0]) for line in requirements}
    distributions = packages_distributions()
    missing = {
        f"{where(path, node)}: {name}"
        for path, node in nodes((ast.Import, ast.ImportFrom))
        for name in imported(node)
        if name not in sys.stdlib_module_names
        and name != "vlmtrain"
        and not declared & {normalised(found) for found in distributions.get(name, [name])}
    }
    assert not missing, f"not in pyproject.toml: {sorted(missing)}"


def normalised(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    assert isinstance(node, ast.ImportFrom)
    return [node.module.partition(".")[0]] if node.module and not node.level else []


# Budgets: the tails, not the averages --------------------------------------------------------------------------------


def code_lines(path: Path) -> set[int]:
    """Numbers of the lines that hold code: no blanks, comments or docstrings."""
    quiet = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING}
    with path.open("rb") as file:
        tokens = [token for token in tokenize.tokenize(file.readline) if token.type not in {*quiet, tokenize.ENDMARKER}]
    lines = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(TREES[path]):
        holds_docstring = isinstance(node, ast.Module | ast.ClassDef | Function) and ast.get_docstring(node) is not None
        if holds_docstring:
            docstring = node.body[0]  # type: ignore[attr-defined]
            lines -= set(range(docstring.lineno, docstring.end_lineno + 1))
    return lines


def functions() -> Iterator[tuple[Path, Function]]:
    for path, node in nodes((ast.FunctionDef, ast.AsyncFunctionDef)):
        assert isinstance(node, Function)
        yield path, node


def signature(node: Function) -> int:
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return len([argument for argument in arguments if argument.arg not in {"self", "cls"}])


def hold_budget(sizes: dict[str, int], think: int, stop: int, what: str) -> None:
    """Warn above `think`, fail above `stop`."""
    tail = sorted(((size, name) for name, size in sizes.items() if size > think), reverse=True)
    if tail:
        warnings.warn(f"{what} above {think}: " + ", ".join(f"{name} {size}" for size, name in tail), stacklevel=2)
    assert not [name for size, name in tail if size > stop], f"{what} above {stop}: {tail}"


def test_file_budget() -> None:
    hold_budget({where(path): len(code_lines(path)) for path in MODULES}, 200, 300, "code lines in a file")


def test_function_budget() -> None:
    lines = {path: code_lines(path) for path in MODULES}
    sizes = {
        f"{where(path, node)} {node.name}": len(lines[path] & set(range(node.lineno, (node.end_lineno or 0) + 1)))
        for path, node in functions()
    }
    hold_budget(sizes, 40, 70, "code lines in a function")


def test_signature_budget() -> None:
    sizes = {f"{where(path, node)} {node.name}": signature(node) for path, node in functions()}
    hold_budget(sizes, 8, 10, "arguments in a signature")


# What is never written -----------------------------------------------------------------------------------------------

FORBIDDEN_CALLS = {
    "print": "use logging, or the report that writes to the console",
    "eval": "config files and data are not code",
    "exec": "config files and data are not code",
    "pickle.load": "only safetensors and JSON are read",
    "pickle.loads": "only safetensors and JSON are read",
    "torch.load": "only safetensors and JSON are read",
    "logging.basicConfig": "a library leaves the root logger alone",
}


def test_no_forbidden_calls() -> None:
    found = [
        f"{where(path, node)}: {called(node)} ({FORBIDDEN_CALLS[called(node)]})"
        for path, node in nodes(ast.Call)
        if isinstance(node, ast.Call) and called(node) in FORBIDDEN_CALLS
    ]
    assert not found, found


def test_no_remote_code() -> None:
    found = [
        where(path, node.value)
        for path, node in nodes(ast.keyword)
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code" and ast.unparse(node.value) != "False"
    ]
    assert not found, found


def test_no_swallowed_exceptions() -> None:
    def swallows(handler: ast.ExceptHandler) -> bool:
        broad = handler.type is None or ast.unparse(handler.type) in {"Exception", "BaseException"}
        return handler.type is None or (
            broad and all(isinstance(line, ast.Pass | ast.Continue) for line in handler.body)
        )

    found = [
        where(path, node)
        for path, node in nodes(ast.ExceptHandler)
        if isinstance(node, ast.ExceptHandler) and swallows(node)
    ]
    assert not found, f"bare or silent except: {found}"


def test_constructors_take_no_kwargs() -> None:
    found = [where(path, node) for path, node in functions() if node.name == "__init__" and node.args.kwarg]
    assert not found, f"**kwargs would swallow misspelt config keys: {found}"


def test_everything_is_annotated() -> None:
    found = [
        f"{where(path, node)} {node.name}({argument.arg})"
        for path, node in functions()
        for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        if argument.annotation is None and argument.arg not in {"self", "cls"}
    ]
    assert not found, found


def test_modules_say_what_they_are_for() -> None:
    silent = [where(path) for path, tree in TREES.items() if tree.body and not ast.get_docstring(tree)]
    assert not silent, f"no docstring: {silent}"


def test_file_names_say_what_is_inside() -> None:
    vague = {"utils", "util", "common", "helpers", "helper", "misc", "tools"}
    assert not [where(path) for path in MODULES if path.stem in vague or path.parent.name in vague]


def test_no_global_statements() -> None:
    assert not [where(path, node) for path, node in nodes(ast.Global)]


def test_only_training_and_what_starts_it_know_of_ranks() -> None:
    """LAVIS asks for the rank in forward; here a model, an objective or a data set is never told."""
    allowed = {"training", "launch", "faults"}
    asking = re.compile(r"torch\.distributed|get_rank|get_world_size|[\"'](RANK|WORLD_SIZE|LOCAL_RANK)[\"']")
    nested = [
        path for path in MODULES if path.parent != PACKAGE and path.parent.relative_to(PACKAGE).parts[0] not in allowed
    ]
    assert not [where(path) for path in nested if asking.search(path.read_text())]


# Tests ---------------------------------------------------------------------------------------------------------------


def test_tests_are_no_package() -> None:
    """With --import-mode=importlib an `__init__.py` among tests makes two files of one name collide."""
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_every_part_in_conf_has_a_test() -> None:
    """Each file in conf/model/<group>/ is found by a test that lists the group, or named by one."""
    written = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__))
    unknown = [
        f"{where(path)}"
        for path in sorted((ROOT / "conf" / "model").glob("*/*.yaml"))
        if path.stem not in written and not re.search(rf"model.{{1,6}}{path.parent.name}\b", written)
    ]
    assert not unknown, f"no test names or lists these: {unknown}"
