"""`embedded:NAME`: the pretrained weights, tokenizers and trained runs that travel inside the package."""

from difflib import get_close_matches
from pathlib import Path

PREFIX = "embedded:"


def resolve_source(source: str) -> str:
    """`embedded:NAME` -> the folder inside the package; any other name or folder as it is.  ValueError if unknown."""
    if not source.startswith(PREFIX):
        return source
    name = source.removeprefix(PREFIX)
    available = list_embedded()
    if name not in available:
        near = get_close_matches(name, available, 1)
        hint = f"did you mean {PREFIX}{near[0]}? " if near else ""
        listed = ", ".join(PREFIX + other for other in available) or "none in this installation"
        raise ValueError(f"{source}: no such embedded weights; {hint}Available: {listed}")
    return str(embedded_folder() / name)


def list_embedded() -> list[str]:
    """Names of the weights and of the runs inside the package."""
    return sorted(file.parent.name for file in embedded_folder().glob("*/config.*"))


def embedded_folder() -> Path:
    """Where they lie."""
    return Path(__file__).resolve().parent.parent / "embedded"
