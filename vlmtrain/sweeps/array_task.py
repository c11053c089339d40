"""One task of a sweep's job array: chooses its trial, trains it under srun, and writes down how it ended."""

import os
import sys
from pathlib import Path

from vlmtrain.launch.failures import report
from vlmtrain.launch.run_folder import say
from vlmtrain.launch.slurm_script import rank_command
from vlmtrain.launch.sweep_folder import OVER, SweepFolder
from vlmtrain.sweeps.asked import read_asked
from vlmtrain.sweeps.leaderboard import write_leaderboard
from vlmtrain.sweeps.local import make_judge, watch
from vlmtrain.sweeps.plans import make_plan
from vlmtrain.sweeps.preparing import open_trial, prepare
from vlmtrain.sweeps.trial_process import TrialProcess


def main(arguments: list[str] | None = None) -> int:
    """`python -m vlmtrain.sweeps.array_task SWEEP_FOLDER NUMBER`"""
    folder, number = (sys.argv[1:] if arguments is None else arguments)[:2]
    try:
        return run(Path(folder), int(number))
    except (Exception, KeyboardInterrupt) as error:
        return report(error)


def run(home: Path, number: int) -> int:
    """Trains trial `number` of the sweep in `home`; gives the exit code of the task."""
    asked, folder = read_asked(home), SweepFolder(home)
    trial = prepare(asked.sweep, make_plan(asked.sweep), folder, number)
    if trial.state in OVER:
        say(f"{trial.name}: {trial.state}")
        return 0
    config = open_trial(trial, asked.config_dirs)
    say(f"{trial.name}: begins")
    process = TrialProcess(trial, rank_command(config, trial.folder), os.environ)
    watch([process], make_judge(asked.sweep, folder))
    ended, code = process.finish()
    say(f"{ended.name}: {ended.state} {ended.reason}")
    write_leaderboard(folder)
    if ended.state in OVER:
        return 0  # a pruned trial ends with 143 as well, and must not go back into the queue
    return code


if __name__ == "__main__":
    sys.exit(main())
