"""Writes the dual encoder of a run as a folder that open_clip loads: open_clip.create_model("local-dir:OUTPUT_FOLDER").

    python scripts/export_open_clip.py RUN_FOLDER STAGE OUTPUT_FOLDER

The stage's model must be one of open_clip (vlmtrain.models.open_clip.load_open_clip).
"""

import sys
from pathlib import Path

from vlmtrain.config.build import build
from vlmtrain.config.stored import read_config
from vlmtrain.models.open_clip import save_open_clip
from vlmtrain.training.checkpoint import newest_valid
from vlmtrain.training.hand_over import EVERYTHING, load_part


def export(run: Path, stage: str, output: Path) -> None:
    """ValueError where the run or its stage are not there, or open_clip could not hold the result."""
    model = build(read_config(run)["stages"][stage]["model"])
    checkpoint = newest_valid(run / "checkpoints" / stage)
    if checkpoint is None:
        raise ValueError(f"{run} has no checkpoint of stage {stage}.")
    load_part(checkpoint, EVERYTHING, model)
    save_open_clip(model, output)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    export(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
