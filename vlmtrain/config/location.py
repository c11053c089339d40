"""Where configuration files lie, which groups they form and which options a group has.  Reads names only, no YAML."""

import os
from pathlib import Path

ROOT_CONFIG = "train"


def conf_folder() -> Path:
    """The shipped `conf/`: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / f"{ROOT_CONFIG}.yaml").is_file():
            return folder
    raise FileNotFoundError(f"vlmtrain's conf/ is neither in {package} nor beside it: install vlmtrain again.")


def search_folders(config_dirs: list[str]) -> list[Path]:
    """The shipped folder first, then the user's.  ValueError where one is not a folder."""
    folders = [Path(os.path.expanduser(folder)).resolve() for folder in config_dirs]
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"--config-dir {folder}: no such folder; it should hold e.g. experiment/mine.yaml")
    return [conf_folder(), *folders]


def find_groups(folders: list[Path]) -> dict[str, dict[str, Path]]:
    """Group -> option -> file.  Subfolders that only serve another group's files (`scale/NAME`) are groups as well."""
    groups: dict[str, dict[str, Path]] = {}
    for folder in folders:
        for file in sorted(folder.rglob("*.yaml")):
            group = file.parent.relative_to(folder).as_posix()
            if group != ".":
                groups.setdefault(group, {}).setdefault(file.stem, file)
    return groups


def describe(file: Path) -> str:
    """The first comment of a configuration file that is not a Hydra directive: its one-line description."""
    for line in file.read_text(encoding="utf-8").splitlines():
        text = line.removeprefix("#").strip()
        if line.startswith("#") and text and not text.startswith("@package"):
            return text
        if not line.startswith("#"):
            break
    return ""


def find_package(file: Path, group: str) -> str:
    """Dotted place in the configuration where the keys of `file` go: its group, unless line 1 says otherwise."""
    first, _, _ = file.read_text(encoding="utf-8").partition("\n")
    if not first.startswith("# @package"):
        return group.replace("/", ".")
    package = first.removeprefix("# @package").strip()
    return "" if package == "_global_" else package


def find_line(files: dict[Path, str], path: str) -> str:
    """'file:line' of the last of `files` (file -> its package) that sets `path`; '' if none does.

    Reads keys by indentation: good enough to point at a line, and no YAML parser tells lines.
    """
    found = ""
    for file, package in files.items():
        stack: list[tuple[int, str]] = []
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            key, colon, _ = line.strip().partition(":")
            if not colon or key.startswith(("#", "-")):
                continue
            indent = len(line) - len(line.lstrip())
            stack = [*[entry for entry in stack if entry[0] < indent], (indent, key.strip("'\""))]
            if ".".join(filter(None, [package, *(name for _, name in stack)])) == path:
                found = f"{file.name}:{number}"
    return found
