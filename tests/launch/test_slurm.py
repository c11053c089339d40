"""Submitting to SLURM with stand-ins for its commands: the script, what is refused, and what `status` makes of it.

A SLURM of two nodes is started by scripts/local_slurm.sh; scripts/slurm_test.py runs a whole training under it.
"""

import json
import os
import subprocess
import sys
import textwrap
import types
from pathlib import Path
from typing import Any

import pytest

from vlmtrain.config.check import check
from vlmtrain.config.compose import compose
from vlmtrain.config.faults import ConfigError
from vlmtrain.config.stored import read_config
from vlmtrain.launch import slurm, slurm_rank
from vlmtrain.launch.slurm_script import write_script
from vlmtrain.launch.status import show_logs, show_status, standings
from vlmtrain.training.run_lock import RunLock, who_holds

TYPED = ["experiment=blip2_opt", "distributed=ddp", "launcher=slurm", "run_dir=run"]


def configure(*typed: str) -> dict[str, Any]:
    composed = compose([*TYPED, *typed])
    check(composed)
    return composed.config


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(started_by_a_user: None) -> None:
    """Every test here."""


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder first on the PATH; sbatch numbers jobs from 7 on, squeue tells what `queue` says."""
    folder = tmp_path / "bin"
    folder.mkdir()
    write_command(folder / "sbatch", 'cp "$2" submitted; echo "7;cluster"')
    write_command(folder / "squeue", "cat queue 2>/dev/null")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def write_command(file: Path, body: str) -> None:
    file.write_text(f"#!/bin/bash\n{body}\n")
    file.chmod(0o755)


def options_of(script: str) -> dict[str, str]:
    lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH ")]
    return dict(line.partition("=")[::2] for line in lines)


def test_the_processes_are_nodes_times_tasks() -> None:
    config = configure("launcher.nodes=2", "launcher.tasks_per_node=4")
    assert config["distributed"]["num_processes"] == 8


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (
            ["launcher.nodes=2", "distributed.num_processes=3"],
            r"distributed.num_processes: 3, and 2 nodes with 1 tasks",
        ),
        (["launcher.nodes=2", "distributed=single"], r"num_processes is 2, and there is no engine.*distributed=ddp"),
        (["launcher=local", "launcher.nodes=2"], r"launcher.nodes: 2 means nothing to launcher=local.*launcher=slurm"),
        (["distributed.hang_limits.saev=5"], r"hang_limits.saev: there is no such phase.*save"),
        (["launcher=local", "launcher.local_cache=/tmp/x", "launcher.time=5"], r"launcher.time: 5 means nothing"),
        (["launcher.nodes=0"], r"launcher.nodes: got 0"),
        (["launcher.setup=[1]"], r"launcher.setup: got \[1\]"),
        (["launcher.walltime=1:00:00"], r"launcher.walltime.*launcher.time"),
    ],
)
def test_what_does_not_fit_is_told(typed: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?s){told}"):
        configure(*typed)


def test_the_script_asks_for_what_was_typed(tmp_path: Path) -> None:
    config = configure(
        "launcher.nodes=2", "launcher.tasks_per_node=4", "launcher.time=24:00:00", "launcher.partition=low",
        "launcher.options={constraint: a100, mem: 9G}", "launcher.setup=[module load cuda]", "launcher.memory=5G",
        "launcher.container=[apptainer, exec, --nv, my image.sif]", 'launcher.srun_options=["--mpi=none"]',
        "launcher.most_requeues=3", "launcher.seconds_to_save=60",
    )  # fmt: skip
    folder = tmp_path / "a run"
    script = write_script(config, folder, tmp_path)
    assert options_of(script) == {
        "requeue": "", "job-name": "vlmtrain-blip2_opt", "nodes": "2", "ntasks-per-node": "4", "cpus-per-task": "8",
        "gres": "gpu:4", "mem": "9G", "time": "24:00:00", "partition": "low", "signal": "USR1@60",
        "open-mode": "append", "output": f"{folder}/logs/slurm-%j.log", "constraint": "a100",
    }  # fmt: skip
    (srun,) = [line for line in script.splitlines() if line.startswith("srun ")]
    assert srun == (
        f"srun --kill-on-bad-exit=1 --mpi=none apptainer exec --nv 'my image.sif' {sys.executable} "
        f"-m vlmtrain.launch.slurm_rank '{folder}'"
    )
    assert script.index("module load cuda") < script.index("srun")
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


@pytest.mark.parametrize(("typed", "gres"), [("null", "gpu:4"), ("0", None), ("2", "gpu:2")])
def test_a_gpu_for_every_task_unless_told_otherwise(typed: str, gres: str | None, tmp_path: Path) -> None:
    config = configure("launcher.tasks_per_node=4", f"launcher.gpus_per_node={typed}")
    assert options_of(write_script(config, tmp_path, tmp_path)).get("gres") == gres


@pytest.mark.parametrize(
    ("code", "saved", "restarts", "requeued"),
    [
        (143, True, 0, True), (143, True, 2, True), (143, True, 3, False), (0, True, 0, False), (1, True, 0, False),
        (143, False, 0, False),  # a task crashed, and srun ended the others by SIGTERM
    ],
)  # fmt: skip
def test_only_who_saved_goes_back_into_the_queue(
    code: int, saved: bool, restarts: int, requeued: bool, commands: Path, tmp_path: Path
) -> None:
    say_so = 'touch "$VLMTRAIN_SAVED"; ' if saved else ""
    write_command(commands / "srun", f'{say_so}echo "$MASTER_ADDR $MASTER_PORT" > where; exit {code}')
    (tmp_path / "run" / "logs").mkdir(parents=True)
    (tmp_path / "run" / "logs" / "saved-45").touch()  # of an earlier start, which was killed since
    write_command(commands / "scontrol", '[ "$1" = show ] && echo node1 && echo node2 || echo "$*" > requeued')
    script = write_script(configure("launcher.most_requeues=3"), tmp_path / "run", tmp_path)
    environment = {
        **os.environ, "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_ID": "45", "SLURM_RESTART_COUNT": str(restarts)
    }  # fmt: skip
    done = subprocess.run(["bash"], input=script, text=True, env=environment, check=False)
    assert done.returncode == code
    assert Path("where").read_text() == "node1 20045\n"
    assert Path("requeued").exists() == requeued
    assert not requeued or Path("requeued").read_text() == "requeue 45\n"
    assert not requeued or not (tmp_path / "run" / "logs" / "saved-45").exists()


def test_submitting_leaves_run_script_and_job_number(commands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configure("launcher.nodes=2")
    assert slurm.launch(config) == 0
    assert "job 7 in the queue" in capsys.readouterr().err
    assert read_config(Path("run")) == config
    assert Path("submitted").read_text() == Path("run/job.sbatch").read_text()
    assert slurm.read_job(Path("run")) == "7"


def test_a_dry_run_submits_nothing_and_needs_no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert slurm.launch(configure("launcher.dry_run=true")) == 0
    assert Path("run/job.sbatch").is_file() and not Path("run/job.json").exists()
    with pytest.raises(ValueError, match=r"sbatch, which is not on the PATH.*launcher.dry_run=true"):
        slurm.launch(configure())


def test_stages_may_be_jobs_that_wait_for_each_other(commands: Path) -> None:
    write_command(commands / "sbatch", 'echo "$*" >> asked; echo $((6 + $(wc -l < asked)))')
    assert slurm.launch(configure("launcher.chain_stages=true")) == 0
    run = Path("run").resolve()
    assert Path("asked").read_text().splitlines() == [
        f"--parsable {run}/job-representation.sbatch",
        f"--parsable --dependency=afterok:7 --kill-on-invalid-dep=yes {run}/job-language.sbatch",
    ]
    assert slurm.read_job(run) == "8", "the last one stands for the run"
    assert "slurm_rank " + str(run) + " representation\n" in (run / "job-representation.sbatch").read_text()
    (run / "results").mkdir()
    (run / "results" / "representation.json").touch()
    Path("asked").unlink()
    assert slurm.launch(configure("launcher.chain_stages=true")) == 0
    assert Path("asked").read_text() == f"--parsable {run}/job.sbatch\n", "one stage is left: an ordinary job"


def test_a_run_in_the_queue_or_in_training_is_not_submitted_twice(commands: Path) -> None:
    slurm.launch(configure())
    Path("queue").write_text("7 PENDING Resources\n")
    with pytest.raises(ValueError, match=r"is job 7 already \(PENDING \(Resources\)\); scancel 7"):
        slurm.launch(configure())
    Path("queue").write_text("7 COMPLETED None\n")
    assert slurm.launch(configure()) == 0


def test_what_sbatch_says_is_told(commands: Path) -> None:
    write_command(commands / "sbatch", "echo 'sbatch: error: invalid partition' >&2; exit 1")
    with pytest.raises(ValueError, match=r"sbatch refused .*job.sbatch: .*invalid partition.*launcher\."):
        slurm.launch(configure())
    assert not Path("run/job.json").exists()


def test_a_finished_run_is_not_submitted(commands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slurm.launch(configure("launcher.dry_run=true"))
    Path("run/summary.json").write_text(json.dumps({"state": "done"}))
    assert slurm.launch(configure()) == 0
    assert "nothing left to do" in capsys.readouterr().err and not Path("submitted").exists()


@pytest.mark.parametrize(
    ("rank", "ended_with", "code"), [("0", 143, 143), ("1", 143, 0), ("1", 1, 1), ("0", 0, 0), ("3", 2, 2)]
)
def test_a_task_becomes_the_rank_that_slurm_says(
    rank: str, ended_with: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 0 alone tells srun that all were asked to end."""
    slurm_says = {"PROCID": rank, "LOCALID": "1", "NTASKS": "4", "NTASKS_PER_NODE": "2"}
    for name, value in slurm_says.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    for name in slurm_rank.FROM_SLURM:
        monkeypatch.setenv(name, "")  # so that what the task sets is gone after the test
    monkeypatch.setenv("VLMTRAIN_SAVED", "saved")
    locked = []

    def train(folder: Path, last_stage: str | None = None) -> int:
        assert last_stage == "language"
        locked.append((folder / ".lock").exists())
        return ended_with

    monkeypatch.setattr(slurm_rank, "run_rank", train)
    monkeypatch.setattr(slurm_rank, "remember_early_signals", lambda: None)
    assert slurm_rank.main(["run", "language"]) == code
    assert locked == [rank == "0"]
    assert Path("saved").exists() == (rank == "0" and ended_with == 143)
    assert {ours: os.environ[ours] for ours in slurm_rank.FROM_SLURM} == {
        "RANK": rank, "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"
    }  # fmt: skip


def test_a_task_that_srun_did_not_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in slurm_rank.FROM_SLURM.values():
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=r"SLURM_PROCID.*not set.*launcher=slurm"):
        slurm_rank.main(["run"])


def test_status_tells_queued_running_stopped_and_done(commands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slurm.launch(configure())
    folder = Path("run").resolve()

    def state() -> str:
        return standings([folder])[0].state

    assert state() == "stopped"  # SLURM knows nothing of it
    Path("queue").write_text("7 PENDING Priority\n")
    assert state() == "queued"
    Path("queue").write_text("7 RUNNING None\n")
    assert state() == "starting"
    with holding(folder):
        assert state() == "running" and "process" in who_holds(folder)
    row = {"stage": "language", "step": 30, "kind": "train", "metrics": {}, "timing": {}}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    assert standings([folder])[0].progress.startswith("language 2/2, step 30/")
    (folder / "summary.json").write_text(json.dumps({"state": "done"}))
    assert state() == "done"
    assert show_status(["."]) == 0
    assert "blip2_opt" in capsys.readouterr().out
    with pytest.raises(ValueError, match="there is no run in nowhere"):
        show_status(["nowhere"])


def holding(folder: Path) -> Any:
    """Another process has the lock in this block: one's own is invisible to oneself."""
    code = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from vlmtrain.training.run_lock import RunLock
        with RunLock(Path({str(folder)!r})):
            print("held", flush=True)
            sys.stdin.read()
    """)
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"held\n"
    return process


def test_logs_shows_what_a_job_said(commands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slurm.launch(configure())
    Path("run/logs/slurm-7.log").write_text("step 1\n")
    capsys.readouterr()
    assert show_logs(["run"], follow=False) == 0 and capsys.readouterr().out == "step 1\n"
    Path("run/summary.json").write_text(json.dumps({"state": "done"}))
    assert show_logs(["run"], follow=True) == 0 and capsys.readouterr().out == "step 1\n"
    with pytest.raises(ValueError, match="wants one run"):
        show_logs([], follow=False)
    with pytest.raises(ValueError, match="holds no run"):
        show_logs(["nowhere"], follow=False)


def test_the_lock_is_asked_for_and_not_taken(tmp_path: Path) -> None:
    assert who_holds(tmp_path) == ""
    with RunLock(tmp_path):
        pass
    assert who_holds(tmp_path) == ""


def test_this_module_imports_no_torch() -> None:
    code = "import sys, vlmtrain.launch.slurm, vlmtrain.launch.status; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert isinstance(slurm, types.ModuleType)
