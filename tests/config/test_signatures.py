"""Targets are read, not imported; only what an allowed package defines may be named."""

import subprocess
import sys
from pathlib import Path

import pytest

from vlmtrain.config.allowed import ALLOW_VARIABLE, allow
from vlmtrain.config.build import build
from vlmtrain.config.parts import check_parts
from vlmtrain.config.signatures import TargetError, read_signature

FORBIDDEN = [
    "os.system",
    "subprocess.Popen",
    "builtins.eval",
    "builtins.exec",
    "torch.load",
    "torch.hub.load",
    "numpy.load",
    "pickle.loads",
    "pandas.read_pickle",
    "logging.os.system",
    "vlmtrain",
    "vlmtrain.os.system",
    "vlmtrain.launch.run_folder.os.system",
    "vlmtrain.launch.run_folder.move_aside",
    "vlmtrain.launch.processes.subprocess.Popen",
    "vlmtrain.training.costs.nn.Module",
    "vlmtrain.training.run_lock.os.system",
    "vlmtrain.training.run_lock.Path",
    "vlmtrain.training.run_lock.RunLock.__init__.__globals__",
    "vlmtrain.config.build.build",
    "vlmtrain.main.main",
    "vlmtrain.run.train",
    "vlmtrainer.encoders.Evil",
    "vlmtrain..os.system",
    "",
    "transformers.AutoModel.from_pretrained",
]


@pytest.mark.parametrize("target", FORBIDDEN)
def test_forbidden_targets_are_refused_before_and_while_building(target: str) -> None:
    with pytest.raises(TargetError):
        read_signature(target)
    for node in ({"_target_": target}, {"_target_": target, "_partial_": True}, [{"a": {"_target_": target}}]):
        assert list(check_parts(node, "x"))
        with pytest.raises(ValueError):
            build(node)


@pytest.mark.parametrize("target", [None, 3, ["os.system"], {"a": 1}])
def test_a_target_that_is_no_name_is_refused(target: object) -> None:
    with pytest.raises(TargetError):
        read_signature(target)  # type: ignore[arg-type]


@pytest.mark.parametrize("directive", ["_args_", "_recursive_", "_convert_"])
def test_no_other_directive_is_known(directive: str) -> None:
    node = {"_target_": "vlmtrain.data.forms.captioning.Captioning", directive: ["x"]}
    assert "no such directive" in str(next(iter(check_parts(node, "form"))))


def test_something_only_imported_there_is_sent_home() -> None:
    with pytest.raises(TargetError, match=r"only imported there.*vlmtrain\.nn\.qformer\.QFormer"):
        read_signature("vlmtrain.connectors.qformer.QFormer")


def test_a_misspelt_target_is_answered_with_the_nearest() -> None:
    with pytest.raises(TargetError, match=r"did you mean vlmtrain\.connectors\.linear\.LinearConnector"):
        read_signature("vlmtrain.connectors.linear.LinearConector")


def test_inherited_and_dataclass_signatures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toyparts.py").write_text(
        "from dataclasses import dataclass\nfrom typing import Literal\nKind = Literal['a', 'b']\n"
        "class Base:\n    def __init__(self, width: int, kind: Kind = 'a'): ...\n"
        "class Child(Base):\n    pass\n"
        "@dataclass\nclass Data:\n    size: int\n    name: str | None = None\n"
        "class Made(Base):\n    @classmethod\n    def load(cls, path: str): ...\n"
        "class Strange(Exception):\n    pass\n"
        "raise RuntimeError('this module must never be imported')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(ALLOW_VARIABLE, "")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TargetError, match="--allow toyparts"):
        read_signature("toyparts.Child")
    allow(["toyparts"])
    child = read_signature("toyparts.Child")
    assert list(child.parameters) == ["width", "kind"]
    assert child.parameters["width"].is_required and not child.parameters["kind"].is_required
    assert child.parameters["kind"].annotation == "Literal['a', 'b']"
    assert [entry.is_required for entry in read_signature("toyparts.Data").parameters.values()] == [True, False]
    assert list(read_signature("toyparts.Made.load").parameters) == ["path"]
    assert read_signature("toyparts.Strange").takes_anything


def test_a_part_in_the_working_folder_joins_by_allow(tmp_path: Path) -> None:
    (tmp_path / "myparts.py").write_text("class Mine:\n    def __init__(self, x: int) -> None:\n        self.x = x\n")
    code = (
        "from vlmtrain.config.allowed import allow\nfrom vlmtrain.config.build import build\n"
        "allow(['myparts'])\nassert build({'_target_': 'myparts.Mine', 'x': 3}).x == 3"
    )
    root = str(Path(__file__).resolve().parents[2])
    environment = {"PATH": "", "PYTHONPATH": root, "PYTHONSAFEPATH": "1"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env=environment)


def test_build_makes_objects_partials_lists_and_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "abc")
    made = build(
        {
            "form": {"_target_": "vlmtrain.data.forms.captioning.Captioning", "prompt": "${oc.env:MY_TOKEN}"},
            "later": [{"_target_": "vlmtrain.data.forms.captioning.Captioning", "_partial_": True}],
            "number": 3,
        }
    )
    assert made["form"].prompt == "abc"
    assert made["later"][0](prompt="x").prompt == "x"
    assert made["number"] == 3
