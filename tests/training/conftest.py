"""Makes training_toy importable, here and in the processes that tests start."""

import os
import sys
from pathlib import Path

import pytest

FOLDER, ROOT = str(Path(__file__).parent), str(Path(__file__).parents[2])

sys.path.insert(0, FOLDER)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [FOLDER, ROOT, os.environ.get("PYTHONPATH", "")]))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process that writes whole tensors, with nothing between it and its optimizer."""
    from toy_comparison import JOB  # importable from here on
    from training_toy import join, start

    folder = tmp_path_factory.mktemp("alone")
    assert join(start(folder, 1, **JOB)) == [0]
    return folder
