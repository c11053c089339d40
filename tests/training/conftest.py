"""Makes training_toy importable, here and in the processes that tests start."""

import os
import sys
from pathlib import Path

FOLDER, ROOT = str(Path(__file__).parent), str(Path(__file__).parents[2])

sys.path.insert(0, FOLDER)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [FOLDER, ROOT, os.environ.get("PYTHONPATH", "")]))
