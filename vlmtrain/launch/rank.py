"""One training process: trains what the run folder says, and turns the outcome into an exit code."""

import os
import sys
import threading
from pathlib import Path

from vlmtrain.launch.failures import report

LIFELINE_VARIABLE = "VLMTRAIN_LIFELINE"  # file descriptor whose end means that the launcher is gone
ORPHANED = 129


def run_rank(folder: Path, with_traceback: bool = False, last_stage: str | None = None) -> int:
    """Trains in this process, no further than `last_stage`."""
    try:
        from vlmtrain.run import train  # torch loads here

        train(folder, last_stage)
    except (Exception, KeyboardInterrupt) as error:
        return report(error, with_traceback, folder)
    return 0


def watch_launcher() -> None:
    """Ends this process when its launcher has died, so that nobody trains on in a folder that looks free."""
    descriptor = os.environ.get(LIFELINE_VARIABLE)
    if descriptor is None:
        return

    def wait() -> None:
        os.read(int(descriptor), 1)  # nothing is ever written: this returns at the end only
        os._exit(ORPHANED)

    threading.Thread(target=wait, name="launcher-watch", daemon=True).start()


def main(arguments: list[str] | None = None) -> int:
    """`python -m vlmtrain.launch.rank RUN_FOLDER [--debug]`"""
    arguments = sys.argv[1:] if arguments is None else arguments
    watch_launcher()
    return run_rank(Path(arguments[0]), "--debug" in arguments)


if __name__ == "__main__":
    sys.exit(main())
