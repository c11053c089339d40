"""The files around the code: make targets, wheel, containers, workflow, shell scripts."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*command: str, **options: Any) -> str:
    """stdout of `command`, run from the top of the repository; its stderr in the message if it fails."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, **options)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# Make ----------------------------------------------------------------------------------------------------------------


def test_make_help_lists_every_promised_target() -> None:
    listed = re.findall(r"^  make ([a-z-]+)", run("make", "help"), flags=re.MULTILINE)
    assert {"setup", "demo", "test", "check", "format", "check-configs", "smoke", "golden", "slow", "clean"} <= set(
        listed
    )


def test_make_targets_are_phony() -> None:
    """A file called `test` must not stop `make test`."""
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE).group(1).split())  # type: ignore[union-attr]
    assert phony == set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))


def test_setup_is_done_once(tmp_path: Path) -> None:
    """With a stamp newer than what it depends on, `make demo` has nothing to install."""
    stamp = tmp_path / ".installed"
    stamp.touch()
    planned = run("make", "--dry-run", "demo", f"VENV={tmp_path}")
    assert "pip install" not in planned
    assert "vlmtrain +experiment=blip2_opt" in planned


def test_setup_is_redone_when_dependencies_change(tmp_path: Path) -> None:
    assert "pip install" in run("make", "--dry-run", "--what-if=constraints.txt", "setup", f"VENV={tmp_path}")


# Dependencies --------------------------------------------------------------------------------------------------------


def name_of(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=\[; ]", requirement)[0]).lower()


def test_every_dependency_is_pinned_once_in_constraints() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+", line) for line in lines)
    pinned = [name_of(line) for line in lines]
    assert len(pinned) == len(set(pinned))
    wanted = [
        *PROJECT["dependencies"],
        *(line for extra in PROJECT["optional-dependencies"].values() for line in extra),
    ]
    assert {name_of(line) for line in wanted} <= set(pinned)


def test_docker_installs_the_runtime_dependencies() -> None:
    printed = run(sys.executable, "docker/dependencies.py", "pyproject.toml", "fast").splitlines()
    assert printed == [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["fast"]]


# Containers ----------------------------------------------------------------------------------------------------------


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """(INSTRUCTION, rest) with continued lines joined."""
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"^\s*#.*\n", "", dockerfile, flags=re.MULTILINE))
    return [(line.split()[0], line.partition(" ")[2]) for line in joined.splitlines() if line.strip()]


def test_dockerfile_pins_its_base() -> None:
    base = re.search(r"^ARG BASE_IMAGE=(\S+)$", DOCKERFILE, flags=re.MULTILINE)
    assert base and re.search(r":\d[\w.-]+$", base.group(1)), "pin the base image by tag"
    sources = [rest.split()[0] for name, rest in instructions(DOCKERFILE) if name == "FROM"]
    assert sources == ["${BASE_IMAGE}", "${BASE_IMAGE}"]


def test_dockerfile_runs_as_an_ordinary_user() -> None:
    users = [rest for name, rest in instructions(DOCKERFILE) if name == "USER"]
    assert users and users[-1] not in {"root", "0"}
    order = [name for name, _ in instructions(DOCKERFILE)]
    assert order.index("USER") < order.index("ENTRYPOINT")


def test_dockerfile_leaves_no_package_lists_and_no_secrets() -> None:
    for name, rest in instructions(DOCKERFILE):
        assert "apt-get install" not in rest or "rm -rf /var/lib/apt/lists" in rest
        assert not (name in {"ENV", "ARG"} and re.search(r"TOKEN|PASSWORD|API_KEY", rest))
        assert name != "ADD", "COPY says what it does"


def test_dockerfile_copies_what_exists_and_is_not_ignored() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for name, rest in instructions(DOCKERFILE):
        if name == "COPY" and "--from" not in rest:
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert source.removeprefix("./").split("/")[0] in allowed, f"{source} is in .dockerignore"


def test_compose_gives_shared_memory_and_the_run_folder() -> None:
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    for name, service in compose["services"].items():
        assert service["shm_size"] == "8gb", name
        assert "../runs:/work/runs" in service["volumes"], name
        assert (ROOT / "docker" / service["build"]["context"] / service["build"]["dockerfile"]).exists(), name
        known = set(re.findall(r"^ARG (\w+)", DOCKERFILE, flags=re.MULTILINE))
        assert set(service["build"].get("args", {})) <= known, name


def test_apptainer_definition_has_the_same_base_and_copies_what_exists() -> None:
    definition = (ROOT / "docker" / "vlmtrain.def").read_text()
    base = re.search(r"^ARG BASE_IMAGE=(\S+)$", DOCKERFILE, flags=re.MULTILINE)
    assert base and f"From: {base.group(1)}\n" in definition
    copied = re.search(r"^%files\n((?: .*\n)+)", definition, flags=re.MULTILINE)
    assert copied
    assert all((ROOT / line.split()[0]).exists() for line in copied.group(1).splitlines())
    assert 'exec vlmtrain "$@"' in definition


# Continuous integration, scripts ------------------------------------------------------------------------------------


def test_workflow_runs_make_targets_with_pinned_actions() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert all(re.search(r"@v\d+\.\d+\.\d+$|@[0-9a-f]{40}$", step["uses"]) for step in steps if "uses" in step)
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())
    for command in [step["run"] for step in steps if "run" in step]:
        run("make", "--dry-run", *command.split()[1:])


def test_pre_commit_pins_its_hooks() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert all(re.match(r"v?\d", repository["rev"]) for repository in hooks["repos"] if repository["repo"] != "local")


@pytest.mark.parametrize(
    "script", sorted([*(ROOT / "scripts").glob("*.s*h*"), ROOT / ".ci" / "run"]), ids=lambda p: p.name
)
def test_shell_scripts_parse_and_stop_at_the_first_error(script: Path) -> None:
    run("bash", "-n", str(script))
    assert "set -euo pipefail" in script.read_text()
    assert script.suffix == ".sbatch" or script.stat().st_mode & 0o100, f"chmod +x {script}"


@pytest.mark.parametrize(
    ("codes", "setting", "status", "told"),
    [
        ({}, {}, 0, "ci: SLURM took"),
        ({"test": 1}, {}, 2, "ci: faults took"),  # make's own code
        ({"slurm": 1}, {}, 1, "ci: faults took"),
        ({"faults": 1}, {}, 2, "ci: SLURM took"),
        ({"install": 3}, {}, 0, "ci: SLURM was NOT run: no root here"),
        ({"install": 3}, {"VLMTRAIN_REQUIRE_SLURM": "1"}, 3, "ci: SLURM was NOT run: no root here"),
        ({}, {"CI_LIMIT_SECONDS": "100"}, 0, r"ci: SLURM was NOT run: \d+ s were left"),
    ],
)
def test_continuous_integration_fails_with_what_fails_and_ends_with_the_closing_line_of_pytest(
    codes: dict[str, int], setting: dict[str, str], status: int, told: str, tmp_path: Path
) -> None:
    """With stand-ins for what it runs."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    (tmp_path / "scripts" / "local_slurm.sh").write_text(
        f"#!/bin/bash\necho no root here >&2; exit {codes.get('install', 0)}\n"
    )
    (tmp_path / "scripts" / "slurm_check.sh").write_text(f"#!/bin/bash\nexit {codes.get('slurm', 0)}\n")
    for script in (tmp_path / "scripts").iterdir():
        script.chmod(0o755)
    (tmp_path / "Makefile").write_text(
        f"test:\n\t@echo '=== 7 passed, 1 failed in 3.21s ==='; exit {codes.get('test', 0)}\n"
        f"faults:\n\t@echo score 100/100; exit {codes.get('faults', 0)}\n"
    )
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), **setting}
    done = subprocess.run([".ci/run"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "=== 7 passed, 1 failed in 3.21s ==="
    assert re.search(told, done.stdout)


def test_multi_node_script_prints_the_command_it_would_run() -> None:
    setting = {"PATH": "/usr/bin:/bin", "HEAD": "node0", "NODES": "2", "NODE": "1", "PROCESSES": "4", "DRY_RUN": "1"}
    printed = run("scripts/multi_node.sh", "+experiment=blip2_opt", "run_dir=/shared/a b", env=setting)
    assert "--nnodes 2 --node_rank 1 --nproc_per_node 4 --master_addr node0" in printed
    assert r"run_dir=/shared/a\ b" in printed


def test_multi_node_script_asks_for_a_shared_run_folder() -> None:
    setting = {"PATH": "/usr/bin:/bin", "HEAD": "node0", "NODES": "2", "NODE": "1", "PROCESSES": "4", "DRY_RUN": "1"}
    done = subprocess.run(
        ["scripts/multi_node.sh", "+experiment=blip2_opt"],
        cwd=ROOT,
        env=setting,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "run_dir=FOLDER" in done.stderr


# The wheel -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_wheel_carries_config_files_and_embedded_parts(tmp_path: Path) -> None:
    """What git tracks under conf/ and vlmtrain/ is in the wheel, and nothing else is."""
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), ".")
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    tracked = run("git", "ls-files", "conf", "vlmtrain").splitlines()
    wanted = {f"vlmtrain/{name}" if name.startswith("conf/") else name for name in tracked}
    assert wanted <= packed, f"missing: {sorted(wanted - packed)}"
    assert not [name for name in packed if "__pycache__" in name or name.startswith("tests/")]


@pytest.mark.slow
def test_unpacked_wheel_answers_help_from_its_own_conf(tmp_path: Path) -> None:
    """The installed package finds conf/ beside its code, in a folder that has no checkout around it."""
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), ".")
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-c", "from vlmtrain.main import main; raise SystemExit(main())", "--help"],
        cwd=tmp_path / "site",
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path / "site"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "blip2_opt" in done.stdout


def test_the_cloud_example_installs_and_starts_what_there_is() -> None:
    task = yaml.safe_load((ROOT / "scripts" / "cloud.sky.yaml").read_text())
    extras = re.search(r"\.\[([\w,]+)\]", task["setup"])
    assert extras is not None and set(extras[1].split(",")) <= set(PROJECT["optional-dependencies"])
    overrides = [*task["envs"]["OVERRIDES"].split(), *task["run"].split("$OVERRIDES ")[1].split()]
    filled = [
        word.replace('"', "").replace("$SKYPILOT_NUM_GPUS_PER_NODE", "8").replace("$RUN", "x") for word in overrides
    ]
    printed = run(sys.executable, "-m", "vlmtrain.main", "config", *filled)
    assert "num_processes: 8" in printed and "run_dir: /runs/x" in printed
    assert [mount["mode"] for mount in task["file_mounts"].values()] == ["MOUNT_CACHED"]
