"""A sweep as a job array, with stand-ins for SLURM's commands.  scripts/sweep_test.py --slurm has a real one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vlmtrain.config.sweep import Sweep
from vlmtrain.launch.status import show_status
from vlmtrain.launch.sweep_folder import DONE, FAILED, PRUNED, SweepFolder
from vlmtrain.main import main
from vlmtrain.sweeps import array_task
from vlmtrain.sweeps.asked import Asked, write_asked

TYPED = ["-m", "experiment=clip", "optimizer.lr=1e-3,1e-4", "seed=0,1", "launcher=slurm", "run_dir=sweep"]


def write_command(file: Path, body: str) -> None:
    file.write_text(f"#!/bin/bash\n{body}\n")
    file.chmod(0o755)


@pytest.fixture
def cluster(commands: Path) -> Path:
    write_command(commands / "sbatch", 'cp "$2" submitted; echo "7;cluster"')
    write_command(commands / "squeue", "cat queue 2>/dev/null")
    return commands


def test_an_array_has_a_task_for_every_trial_that_is_not_over(cluster: Path) -> None:
    assert main([*TYPED, "--at-once=2"]) == 0
    script = Path("submitted").read_text()
    assert (
        "#SBATCH --array=0,1,2,3%2\n" in script
        and f"#SBATCH --output={Path('sweep').resolve()}/logs/slurm-%A_%a.log" in script
    )
    assert "vlmtrain.sweeps.array_task" in script and script.count('"$SLURM_ARRAY_TASK_ID"') == 1
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    names = ["lr_0.001__seed_0", "lr_0.001__seed_1", "lr_0.0001__seed_0", "lr_0.0001__seed_1"]
    for number in (0, 2):
        folder = Path("sweep", names[number])
        folder.mkdir()
        (folder / "trial.json").write_text(json.dumps({"number": number, "overrides": [], "outcome": FAILED}))
    (Path("sweep", names[0]) / "summary.json").write_text(json.dumps({"state": "done"}))
    Path("queue").write_text("7_3 COMPLETED None\n")
    assert main(TYPED) == 0
    assert "#SBATCH --array=1,2,3\n" in Path("submitted").read_text()


def test_an_array_that_lives_is_not_submitted_twice(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(TYPED)
    Path("queue").write_text("7_1 RUNNING None\n7_[2-3] PENDING Resources\n")
    assert main(TYPED) == 2
    assert "is job 7 already (7_1 RUNNING, 7_[2-3] PENDING (Resources)); scancel 7" in capsys.readouterr().err
    assert show_status(["."]) == 0
    told = capsys.readouterr().out
    assert "sweep multirun" in told and "running" in told and "4 trials: 4 to come" in told


def test_a_dry_run_needs_no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main([*TYPED, "launcher.dry_run=true"]) == 0
    assert Path("sweep/job.sbatch").is_file() and not Path("sweep/job.json").exists()
    assert main(TYPED) == 2


@pytest.fixture
def task(commands: Path, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    """A sweep of three trials; srun stands for the training of the run folder that is its last word."""
    settings = {name: ["experiment=clip", f"seed={name[-1]}"] for name in ("seed_0", "seed_1", "seed_2")}
    sweep = Sweep(settings, metric="contrastive/test/loss")
    folder = write_asked(Asked("mine", sweep, Path("sweep").resolve(), []), sweep, 3)
    monkeypatch.setattr(array_task, "write_leaderboard", lambda folder: None)
    write_command(
        commands / "srun",
        'folder=${@: -1}; [ -f "$folder/config.yaml" ] || exit 9\n'
        'case $folder in *0) echo "{\\"state\\": \\"done\\"}" > "$folder/summary.json";;\n'
        '*1) echo "vlmtrain: no" >&2; exit 3;; *2) exit 143;; esac',
    )
    return folder


def test_a_task_trains_its_trial_and_writes_down_how_it_ended(task: SweepFolder) -> None:
    codes = [array_task.main([str(task.folder), str(number)]) for number in range(3)]
    assert codes == [0, 3, 143], "143 goes back into the queue"
    states = {trial.name: (trial.state, trial.reason) for trial in task.trials()}
    assert states["seed_0"] == (DONE, "") and states["seed_1"] == (FAILED, "vlmtrain: no (exit code 3)")
    assert states["seed_2"] == ("waiting", "")
    assert array_task.main([str(task.folder), "0"]) == 0
    assert task.trials()[0].attempts == 1, "what is over is not started again"


def test_a_pruned_trial_does_not_go_back_into_the_queue(task: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    write_command(
        Path("bin/srun"),
        'trap "exit 143" USR1; touch "${@: -1}/metrics.jsonl"; for i in $(seq 100); do sleep 0.1; done',
    )

    class Strict:
        def is_hopeless(self, trial: object) -> bool:
            return True

    monkeypatch.setattr(array_task, "make_judge", lambda sweep, folder: Strict())
    assert array_task.main([str(task.folder), "2"]) == 0
    assert task.trials()[0].state == PRUNED


def test_a_folder_with_another_configuration_is_not_touched(
    task: SweepFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert array_task.main([str(task.folder), "0"]) == 0
    config = task.folder / "seed_1"
    config.mkdir()
    (config / "config.yaml").write_text((task.folder / "seed_0" / "config.yaml").read_text())
    assert array_task.main([str(task.folder), "1"]) == 2
    assert "holds a run of another configuration: seed: 0 -> 1" in capsys.readouterr().err


def test_submitting_loads_no_torch() -> None:
    code = "import sys, vlmtrain.sweeps.command, vlmtrain.sweeps.slurm, vlmtrain.sweeps.array_task\n"
    code += "sys.exit('torch' in sys.modules or 'optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_stages_of_a_trial_are_no_chain(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TYPED, "launcher.chain_stages=true"]) == 2
    assert "chain_stages is for a single run" in capsys.readouterr().err
