"""One run folder, one process."""

import os
import signal
import socket
from pathlib import Path

import pytest

from vlmtrain.training.run_lock import RunLock


def hold(folder: Path) -> int:
    """A process that holds the lock until it is killed."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        with RunLock(folder):
            os.write(told, b"x")
            signal.pause()
        os._exit(0)
    os.read(ready, 1)
    return child


def test_second_process_is_refused_by_name_and_a_dead_one_is_not_in_the_way(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    child = hold(tmp_path)
    try:
        with pytest.raises(ValueError, match=f"in use by process {child} on {socket.gethostname()}"), RunLock(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with RunLock(tmp_path):
        assert f"process {child}" in caplog.text and "gone" in caplog.text
    with RunLock(tmp_path):
        assert caplog.text.count("gone") == 1
