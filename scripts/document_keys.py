"""Write the table of keys in docs/configuration.md from the schema.  `--check` only says whether it is up to date."""

import json
import sys
from dataclasses import is_dataclass
from pathlib import Path

from vlmtrain.config.schema import REQUIRED, RunConfig, default_of, list_keys

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"
BEGIN, END = "<!-- keys: begin -->\n", "<!-- keys: end -->\n"


def make_table() -> str:
    """One row a key of the closed sections that has a plain value."""
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for path, entry in list_keys(RunConfig).items():
        default = default_of(entry)
        if is_dataclass(default):
            continue
        choices = entry.metadata["choices"]
        meaning = entry.metadata["doc"] + (f": {', '.join(choices)}" if choices else "")
        rows.append(f"| `{path}` | {spell(default)} | {meaning.replace('<', '&lt;')} |")
    return "\n".join(rows) + "\n"


def spell(default: object) -> str:
    """As it is written in YAML."""
    if default is REQUIRED:
        return "from its group"
    if default is None or isinstance(default, bool):
        return json.dumps(default)
    return str(default)


def with_table(document: str) -> str:
    """`document` with the table between its two marks."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{make_table()}{END}{after}"


def main() -> int:
    document = DOCUMENT.read_text()
    if "--check" in sys.argv:
        return int(with_table(document) != document)
    DOCUMENT.write_text(with_table(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
