"""Makes training_toy importable, here and in subprocesses."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
