"""Where pretrained weights come from, asked in one place by every part that loads some."""

from pathlib import Path

import torch


def is_local(source: str) -> bool:
    """Whether `source` is a folder here.  ValueError where it looks like a path and none is there."""
    path = Path(source).expanduser()
    if path.is_dir():
        return True
    if path.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1:
        raise ValueError(f"{source}: no such folder.  Give an existing folder, or the name of a model on the hub.")
    return False


def builds_without_weights() -> bool:
    """Whether parts are being built on the meta device, where shapes are all that exists (`vlmtrain plan`)."""
    return torch.get_default_device().type == "meta"
