import json
import subprocess

import pytest

from vlmtrain.report.summary_json import (
    RunSummary,
    StageSummary,
    find_git_revision,
    find_versions,
    read_summary,
    write_summary,
)


def make_summary(**changes) -> RunSummary:
    values = {
        "experiment": "blip2_opt",
        "scale": "tiny",
        "state": "done",
        "stages": [StageSummary("language", 900, 28_800, 61.5, 468.0, {"loss": float("nan")})],
        "metrics": {"test/caption_accuracy": 0.97},
        "trainable_parameters": 10,
        "total_parameters": 100,
        "seconds": 100.0,
        "samples_per_second": 468.0,
        "peak_memory_bytes": 1_000_000,
    }
    return RunSummary(**(values | changes))


def test_the_file_holds_what_programs_need(tmp_path):
    path = tmp_path / "summary.json"
    write_summary(path, make_summary(versions=find_versions(), git_revision="abc"))
    summary = json.loads(path.read_text(), parse_constant=pytest.fail)
    for name in ("experiment", "scale", "stages", "metrics", "trainable_parameters", "total_parameters",
                 "peak_memory_bytes", "samples_per_second", "versions", "git_revision"):  # fmt: skip
        assert name in summary
    stage = summary["stages"][0]
    assert {"name", "steps", "samples", "seconds", "metrics"} <= set(stage)
    assert stage["metrics"]["loss"] == "NaN"
    assert {"python", "torch"} <= set(summary["versions"])
    assert read_summary(path) == summary
    assert [each.name for each in tmp_path.iterdir()] == ["summary.json"]


@pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense"])
def test_a_file_that_is_none_is_named(tmp_path, text):
    path = tmp_path / "summary.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"summary\.json is no run summary"):
        read_summary(path)


def test_the_revision_of_a_checkout_and_of_none(tmp_path):
    assert find_git_revision(tmp_path) is None

    def git(*arguments):
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "one")
    clean = find_git_revision(tmp_path)
    assert clean is not None and len(clean) == 40
    (tmp_path / "a").write_text("2")
    assert find_git_revision(tmp_path) == f"{clean}-dirty"


def test_packages_that_are_not_installed_are_left_out():
    assert find_versions(["no-such-package"]).keys() == {"python"}
