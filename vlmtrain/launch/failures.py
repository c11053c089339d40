"""What a user sees when something fails: one message, an exit code, and the whole story in logs/."""

import errno
import logging
import os
import traceback
from pathlib import Path

from rich.console import Console
from rich.text import Text

from vlmtrain.config.faults import ConfigError

USER_ERROR = 2
DISK_ERROR = 4
INTERRUPTED = 130
OF_THE_USER = (ValueError, FileNotFoundError, NotADirectoryError, PermissionError)
DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
MOST_LINES = 10
log = logging.getLogger(__name__)


def exit_code_of(error: BaseException) -> int:
    """0 fine, 2 the user's to mend, 3 non-finite, 4 disk, 8 hung, 11 ranks differ, 130 Ctrl-C, 143 preempted, 1 bug."""
    own = getattr(error, "exit_code", None)  # vlmtrain.training.stops
    if isinstance(own, int):
        return own
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, OSError) and error.errno in DISK_ERRNOS:
        return DISK_ERROR
    return USER_ERROR if isinstance(error, OF_THE_USER) else 1


def error_file(folder: Path, rank: int) -> Path:
    """Where a rank writes what stopped it."""
    return folder / "logs" / ("error.log" if rank == 0 else f"error.rank{rank}.log")


def report(error: BaseException, with_traceback: bool = False, folder: Path | None = None) -> int:
    """Shows `error` on stderr, writes its traceback to logs/ of the run, and gives the exit code."""
    rank = int(os.environ.get("RANK", "0"))
    file = _write_story(error, folder, rank)
    if with_traceback:
        traceback.print_exception(error)
    elif rank == 0:
        _show(error, file)
    return exit_code_of(error)


def _show(error: BaseException, file: Path | None) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if isinstance(error, ConfigError):
        count = len(error.faults)
        console.print(Text(f"vlmtrain: {count} fault{'s' if count > 1 else ''} in the configuration", style="bold red"))
        for fault in error.faults[:MOST_LINES]:
            console.print(Text(f"  {fault}"))
        if count > MOST_LINES:
            console.print(Text(f"  and {count - MOST_LINES} more"))
        return
    code = exit_code_of(error)
    title = "vlmtrain stopped: " if code not in (USER_ERROR, 1) else "vlmtrain: "
    message = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
    console.print(Text(title, style="bold red") + Text(message if code != 1 else f"{type(error).__name__}: {message}"))
    if file is not None:
        console.print(Text(f"The whole story is in {file}; --debug shows it here.", style="dim"))


def _write_story(error: BaseException, folder: Path | None, rank: int) -> Path | None:
    if folder is None or not folder.is_dir():
        return None
    file = error_file(folder, rank)
    try:
        file.parent.mkdir(exist_ok=True)
        with file.open("a", encoding="utf-8") as story:
            story.write("".join(traceback.format_exception(error)) + "\n")
    except OSError as failure:  # a full disk must not hide the error that it caused
        log.warning("could not write %s: %s", file, failure)
        return None
    return file
