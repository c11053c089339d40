"""Trains for tests, each time in a process forked from this one, which has imported all of vlmtrain.

Without, imports are most of a training of two steps.  Every line of its input is a request, `{"arguments": [...],
"folder": ..., "environment": {...}, "log": ...}`; every line of its output the exit code of one.  A training ends when
this process does.
"""

import importlib
import json
import os
import pkgutil
import sys
from pathlib import Path

import vlmtrain
from vlmtrain.faults.warm import IMPORTED_ONCE, become_command
from vlmtrain.launch.rank import LIFELINE_VARIABLE

# What several experiments import when they ask for it.
ALSO_IMPORTED = [
    "sklearn.linear_model",
    "sklearn.datasets",
    "torchvision.transforms.v2",
    "transformers.models.clip.modeling_clip",
    "transformers.models.opt.modeling_opt",
    "transformers.models.qwen3.modeling_qwen3",
]


def main() -> None:
    ours = [module.name for module in pkgutil.walk_packages(vlmtrain.__path__, "vlmtrain.")]
    for name in [*ours, *IMPORTED_ONCE, *ALSO_IMPORTED]:
        importlib.import_module(name)
    for line in sys.stdin:
        sys.stdout.write(f"{train(**json.loads(line))}\n")
        sys.stdout.flush()


def train(arguments: list[str], folder: str, environment: dict[str, str], log: str) -> int:
    lifeline, keep_open = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(keep_open)
        os.chdir(folder)
        become_command(arguments, {**environment, LIFELINE_VARIABLE: str(lifeline)}, Path(log))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(lifeline)
    os.close(keep_open)
    return code


if __name__ == "__main__":
    main()
