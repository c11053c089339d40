"""The command: quick answers without torch, exit codes, one message per failure."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from vlmtrain.config import embedded
from vlmtrain.main import VERBS, main

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(embedded, "list_embedded", lambda: ["bert_scenes", "opt_scenes", "vit_scenes"])


@pytest.mark.parametrize(
    ("typed", "expected_code"),
    [
        (["--help"], 0),
        (["help"], 0),
        (["trainer.max_step=3"], 2),
        (["experiment=x"], 2),
        (["config", "experiment=blip2_opt", "scale=small", "data=pairs", "data.path=x"], 0),
    ],
    ids=str,
)
def test_these_answers_load_no_torch(typed: list[str], expected_code: int) -> None:
    code = (
        "import sys\nfrom vlmtrain.main import main\n"
        f"code = main({typed!r})\n"
        "heavy = [name for name in ('torch', 'transformers', 'accelerate', 'numpy') if name in sys.modules]\n"
        "assert not heavy, heavy\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == expected_code, done.stderr
    assert "Traceback" not in done.stderr


def test_help_lists_verbs_groups_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for word in (
        *VERBS,
        "model/encoder=",
        "clip_b16",
        "experiment=",
        "blip2_opt",
        "+sweep=learning_rate",
        "--at-once",
        "--config-dir",
        "trainer.max_steps=",
    ):
        assert word in text


def test_the_keys_are_documented(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "keys"]) == 0
    assert "| `optimizer.lr` | float above 0 | 0.0001 | peak learning rate |" in capsys.readouterr().out


def test_config_shows_what_is_resolved(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "+experiment=blip2_opt", "seed=5"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["seed"] == 5


@pytest.mark.parametrize("typed", ["trian", "plann experiment=blip2_opt", "confg"])
def test_a_misspelt_verb_is_answered(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(typed.split()) == 2
    assert "did you mean" in capsys.readouterr().err


def test_many_faults_fit_twelve_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"trainer.wrong_{number}=1" for number in range(30)]) == 2
    text = capsys.readouterr().err
    assert len(text.splitlines()) <= 12
    assert "more" in text


@pytest.mark.parametrize("typed", ["--fresh=3", "--allow", "--allow=my-package", "--seed"])
def test_wrong_options_are_the_users_to_mend(typed: str) -> None:
    assert main(["experiment=blip2_opt", typed]) == 2


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment=nothing", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err
