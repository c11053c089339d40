"""The commands of README and docs work: each block says how it is tested, and is (CONTRIBUTING.md, Tests)."""

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
WAYS = {"run", "compose", "make", "syntax"}
BLOCK = re.compile(
    r"(?:^<!-- (?P<note>[^\n]+?) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
SHORT = ["trainer.max_steps=2", "trainer.batch_size=4", "trainer.num_workers=0", "optimizer.warmup=0"]


@dataclass(frozen=True)
class Block:
    """A fenced block and the comment above it."""

    document: Path
    line: int
    language: str
    note: str
    text: str

    @property
    def way(self) -> str:
        return re.match(r"(?:tested: )?(\w*)", self.note).group(1)  # type: ignore[union-attr]

    @property
    def commands(self) -> list[str]:
        """One command a line, continued lines joined, comments dropped."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def blocks(language: str) -> list[Block]:
    found = []
    for document in DOCUMENTS:
        text = document.read_text()
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start("text")) + 1
            found.append(Block(document, line, match["language"], match["note"] or "", match["text"]))
    return [block for block in found if block.language == language]


def cases(way: str) -> list[object]:
    """One parameter set a command, for the blocks that are tested in this way."""
    chosen = [block for block in blocks("bash") if block.way == way]
    return [pytest.param(block, line, id=f"{block} {line[:60]}") for block in chosen for line in block.commands]


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """An empty folder with what the documents speak of: photos/ with captions, their files, and `vlmtrain` on PATH."""
    write_photos(tmp_path / "photos")
    for language in ("python", "yaml", "json"):
        for block in blocks(language):
            if block.note.startswith("file: "):
                file = tmp_path / block.note.removeprefix("file: ")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block.text)
    start = tmp_path / "bin" / "vlmtrain"
    start.parent.mkdir()
    start.write_text(f"#!{sys.executable}\nimport sys\nfrom vlmtrain.main import main\nsys.exit(main())\n")
    start.chmod(0o755)
    return tmp_path


def write_photos(folder: Path, count: int = 8) -> None:
    """JPEG files and a captions.jsonl, as a user would have them."""
    folder.mkdir()
    colours = ["red", "green", "blue", "yellow", "purple", "orange", "white", "black"]
    lines = []
    for index in range(count):
        picture = Image.new("RGB", (120 + 8 * index, 96), "grey")
        ImageDraw.Draw(picture).ellipse([20, 20, 80, 80], fill=colours[index])
        picture.save(folder / f"{index}.jpg")
        lines.append(json.dumps({"image": f"{index}.jpg", "caption": f"a {colours[index]} disc on grey"}))
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n")


def run(command: str, folder: Path, timeout: int = 300) -> str:
    path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def training_arguments(command: str) -> list[str]:
    """What `vlmtrain` is given; a verb other than train is kept for `run`."""
    words = shlex.split(command, comments=True)
    assert words[0] == "vlmtrain", f"only vlmtrain commands can be composed: {command}"
    return words[2:] if words[1] == "train" else words[1:]


@pytest.mark.parametrize("block", blocks("bash"), ids=str)
def test_every_block_says_how_it_is_tested(block: Block) -> None:
    assert block.note.startswith("tested: ") and block.way in WAYS, (
        f"{block}: put <!-- tested: run | compose | make | syntax, REASON --> above the block"
    )
    assert block.way != "syntax" or "," in block.note, f"{block}: say why it cannot be run"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_fence_is_read(document: Path) -> None:
    """No block escapes the pattern above, and each has a language or is plain text."""
    fences = re.findall(r"^```", document.read_text(), flags=re.MULTILINE)
    assert len(fences) % 2 == 0
    assert not re.search(r"^```(sh|shell|console|zsh)$", document.read_text(), flags=re.MULTILINE), "say bash"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_named_paths_exist(document: Path) -> None:
    text = re.sub("<!--.*?-->", "", document.read_text(), flags=re.DOTALL)
    linked = [link.partition("#")[0] for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)]+)\)", text)]
    missing = [link for link in linked if not (document.parent / link).exists()]
    named = re.findall(r"`((?:conf|vlmtrain|tests|docs|docker|scripts)/[\w./-]+)`", text)
    missing += [name for name in named if not re.search("[A-Z]{3}", name) and not (ROOT / name).exists()]
    assert not missing, missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_tests_exist(document: Path) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", document.read_text())
    missing = [(file, name) for file, name in named if f"def {name}(" not in (ROOT / file).read_text()]
    assert not missing, missing


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_blocks_run(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "block.py"
    file.write_text(block.text)
    runpy.run_path(str(file))


def test_table_of_keys_is_up_to_date() -> None:
    """The schema is the source: `make docs` writes the table."""
    run(f"PYTHONPATH=. {sys.executable} scripts/document_keys.py --check", ROOT)


@pytest.mark.parametrize(("block", "command"), cases("make"))
def test_make_commands_exist(block: Block, command: str) -> None:
    for part in re.findall(r"make [^&;|#]*", command):
        subprocess.run(
            ["make", "--dry-run", *shlex.split(part)[1:]], cwd=ROOT, check=True, capture_output=True, text=True
        )


@pytest.mark.parametrize("block", [block for block in blocks("bash") if block.way == "syntax"], ids=str)
def test_blocks_that_cannot_run_parse_and_name_real_files(block: Block) -> None:
    subprocess.run(["bash", "-n"], input=block.text, check=True, text=True)
    named = re.findall(r"(?:^|[ =])((?:scripts|docker|conf|docs)/[\w./-]+)", block.text)
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize(("block", "command"), cases("run"))
def test_commands_run(block: Block, command: str, workplace: Path) -> None:
    run(command, workplace)


def is_sweep(command: str) -> bool:
    return training_arguments(command)[0] in ("-m", "sweep")


@pytest.mark.parametrize(("block", "command"), cases("compose"))
def test_training_commands_compose(block: Block, command: str, workplace: Path) -> None:
    """A sweep composes all of its trials before it would submit them."""
    arguments = training_arguments(command)
    if is_sweep(command):
        run(shlex.join(["vlmtrain", *arguments, "launcher=slurm", "launcher.dry_run=true"]), workplace)
    else:
        run(shlex.join(["vlmtrain", "config", *arguments]), workplace)


@pytest.mark.slow
@pytest.mark.parametrize(("block", "command"), cases("compose"))
def test_training_commands_train(block: Block, command: str, workplace: Path) -> None:
    if is_sweep(command):
        pytest.skip("hours; scripts/sweep_test.py trains one")
    if "launcher=slurm" in training_arguments(command):
        pytest.skip("needs a cluster; make slurm starts one of two nodes, and trains on it")
    command = re.sub(r"from_step: \d+", "from_step: 1", command).replace("num_processes=16", "num_processes=4")
    run(shlex.join(["vlmtrain", *training_arguments(command), *SHORT, "run_dir=readme_run"]), workplace)
    assert (workplace / "readme_run" / "summary.json").exists()
