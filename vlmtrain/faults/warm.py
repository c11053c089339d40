"""Real runs of the real command, in processes forked from one that has imported everything: imports are most of a
run of seconds.  Nothing else of the way is left out: launcher, ranks, signals and exit codes are those of users."""

import multiprocessing
import os
import signal
import sys
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NoReturn

from vlmtrain.launch import processes
from vlmtrain.launch.rank import run_rank, watch_launcher

# The optimizer and DDP import dynamo when they are built; transformers imports architectures when they are asked for.
IMPORTED_ONCE = [
    "vlmtrain.run",
    "vlmtrain.faults.injection",
    "vlmtrain.models.vision_language_model",
    "vlmtrain.encoders.patch_embedding",
    "vlmtrain.connectors.mlp",
    "vlmtrain.fusions.interleave",
    "vlmtrain.language_models.causal",
    "vlmtrain.objectives.language_modeling",
    "vlmtrain.data.scenes_data",
    "transformers.models.llama.modeling_llama",
    "torch._dynamo",
    "torch.distributed.tensor",
    "torch._inductor.utils",
]


def boot() -> None:
    """Starts the process that all others are forked from, unless it runs."""
    process = _context().Process(target=int)
    process.start()
    process.join()


def start(arguments: list[str], environment: dict[str, str], log: Path) -> BaseProcess:
    """`vlmtrain ARGUMENTS`; what it says goes into `log`."""
    process = _context().Process(target=become_command, args=(arguments, environment, log))
    process.start()
    return process


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *IMPORTED_ONCE])
    return context


def become_command(arguments: list[str], environment: dict[str, str], log: Path) -> NoReturn:
    """`vlmtrain ARGUMENTS` in this process, which was forked for it; what it says goes into `log`."""
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(environment)
    from vlmtrain.faults.injection import arm  # torch loads here
    from vlmtrain.main import main

    arm()
    processes.start_rank = ForkedRank  # type: ignore[assignment]  # a rank that need not import
    _leave(main(arguments))


def _leave(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class ForkedRank:
    """A rank, started as processes.start_rank does it but for the imports."""

    def __init__(self, folder: Path, environment: dict[str, str], lifeline: int, with_traceback: bool) -> None:
        self._code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            for number in processes.FORWARDED:
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            os.environ.update(environment)
            watch_launcher()
            _leave(run_rank(folder, with_traceback))

    def poll(self) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self) -> int:
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)
