"""Put the table of `vlmtrain config keys` into docs/configuration.md.  `--check` only says whether it is up to date."""

import io
import sys
from contextlib import redirect_stdout
from pathlib import Path

from vlmtrain.launch.help import show_keys

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"
BEGIN, END = "<!-- keys: begin -->\n", "<!-- keys: end -->\n"


def with_table(document: str) -> str:
    """`document` with the table between its two marks."""
    with redirect_stdout(io.StringIO()) as table:
        show_keys()
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table.getvalue().replace('<', '&lt;')}{END}{after}"


def main() -> int:
    document = DOCUMENT.read_text()
    if "--check" in sys.argv:
        return int(with_table(document) != document)
    DOCUMENT.write_text(with_table(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
