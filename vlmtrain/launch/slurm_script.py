"""The batch script of a SLURM job, to be read and adapted by people."""

import shlex
import sys
from pathlib import Path
from typing import Any

PREEMPTED = 143  # vlmtrain.training.stops.Preempted, which torch is not loaded for here
SAVED_VARIABLE = "VLMTRAIN_SAVED"  # names the file by which rank 0 says that it was asked to end, and has saved


def write_script(config: dict[str, Any], folder: Path, working_folder: Path, last_stage: str | None = None) -> str:
    """The script that runs the run in `folder`, no further than `last_stage`, started from `working_folder`."""
    name = "-".join(filter(None, [config["experiment"] or "run", last_stage]))
    options = ["--requeue", *job_options(config, name, folder / "logs" / "slurm-%j.log")]
    command = rank_command(config, folder, last_stage)
    return surround(config, folder, options, command, working_folder)


def rank_command(config: dict[str, Any], folder: Path, last_stage: str | None = None) -> list[str]:
    """What starts the ranks of a run inside a job."""
    launcher = config["launcher"]
    srun = ["srun", "--kill-on-bad-exit=1", *launcher["srun_options"]]
    rank = [sys.executable, "-m", "vlmtrain.launch.slurm_rank", str(folder), *([last_stage] if last_stage else [])]
    return [*srun, *launcher["container"], *rank]


def surround(
    config: dict[str, Any], home: Path, options: list[str], command: list[str], working_folder: Path, end: str = ""
) -> str:
    """`command` as a batch script that puts its job back into the queue when it was asked to end; `end`: more words.

    The exit code alone does not tell: srun ends the tasks beside one that crashed by SIGTERM, which is 143 as well, and
    gives the largest code of all.  `home` is the folder of the run or of the sweep.
    """
    launcher = config["launcher"]
    saved = shlex.quote(str(home / "logs" / "saved-"))
    head = "\n".join(f"#SBATCH {option}" for option in options)
    setup = "".join(f"{line}\n" for line in launcher["setup"])
    return f"""#!/usr/bin/env bash
# Written by vlmtrain for what is in {home}.
# The command that wrote it submits it again; so does `sbatch` with this file.  Either way it goes on where it was.
{head}
set -uo pipefail
cd {shlex.quote(str(working_folder))}
{setup}MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
{SAVED_VARIABLE}={saved}"$SLURM_JOB_ID"
export MASTER_ADDR MASTER_PORT {SAVED_VARIABLE}
rm -f "${SAVED_VARIABLE}"

{shlex.join(command)}{end}
code=$?
# {PREEMPTED}: it was asked to end, by the signal before the time limit or by preemption, and has saved its state.
if [ "$code" -eq {PREEMPTED} ] && [ -e "${SAVED_VARIABLE}" ] &&
    [ "${{SLURM_RESTART_COUNT:-0}}" -lt {launcher["most_requeues"]} ]; then
    rm -f "${SAVED_VARIABLE}"
    echo "vlmtrain: saved; back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def job_options(config: dict[str, Any], name: str, output: Path) -> list[str]:
    """What stands behind #SBATCH; what people typed as launcher.options comes last and wins."""
    launcher = config["launcher"]
    tasks = launcher["tasks_per_node"]
    gpus = tasks if launcher["gpus_per_node"] is None else launcher["gpus_per_node"]
    chosen = {
        "job-name": f"vlmtrain-{name}",
        "nodes": launcher["nodes"],
        "ntasks-per-node": tasks,
        "cpus-per-task": launcher["cpus_per_task"],
        "gres": f"gpu:{gpus}" if gpus else None,
        "mem": launcher["memory"],
        "time": launcher["time"],
        "partition": launcher["partition"],
        "account": launcher["account"],
        "qos": launcher["qos"],
        "signal": f"USR1@{launcher['seconds_to_save']}",
        "open-mode": "append",
        "output": output,
        **launcher["options"],
    }
    return [f"--{name}={value}" for name, value in chosen.items() if value is not None]
