"""One task of a SLURM job: becomes the rank that SLURM's own variables say, and trains."""

import os
import sys
from pathlib import Path

from vlmtrain.launch.rank import run_rank
from vlmtrain.launch.run_folder import is_finished
from vlmtrain.launch.slurm_script import PREEMPTED, SAVED_VARIABLE
from vlmtrain.training.run_lock import RunLock
from vlmtrain.training.signals import remember_early_signals

FROM_SLURM = {
    "RANK": "SLURM_PROCID",
    "LOCAL_RANK": "SLURM_LOCALID",
    "WORLD_SIZE": "SLURM_NTASKS",
    "LOCAL_WORLD_SIZE": "SLURM_NTASKS_PER_NODE",
}


def main(arguments: list[str] | None = None) -> int:
    """`srun python -m vlmtrain.launch.slurm_rank RUN_FOLDER [LAST_STAGE]`"""
    folder, last_stage = [*(sys.argv[1:] if arguments is None else arguments), None][:2]
    assert folder is not None
    missing = [theirs for theirs in FROM_SLURM.values() if theirs not in os.environ]
    if missing:
        raise ValueError(f"{', '.join(missing)} not set: this is what srun starts; submit with launcher=slurm")
    remember_early_signals()
    os.environ.update({ours: os.environ[theirs] for ours, theirs in FROM_SLURM.items()})
    if is_finished(Path(folder)):
        return 0
    if os.environ["RANK"] == "0":
        with RunLock(Path(folder)):
            code = run_rank(Path(folder), last_stage=last_stage)
        if code == PREEMPTED and SAVED_VARIABLE in os.environ:
            Path(os.environ[SAVED_VARIABLE]).touch()
        return code
    code = run_rank(Path(folder), last_stage=last_stage)
    # rank 0 alone tells srun that all were asked to end: the first bad exit kills the others, who may still be saving
    return 0 if code == PREEMPTED else code


if __name__ == "__main__":
    sys.exit(main())
