"""Whole tensors from a published folder, in whichever of two ways they were written.

Whole: `connector.safetensors`.  In parts: a folder `connector` with one file of each rank, as
torch.distributed.checkpoint lays out safetensors, and `shapes.json`, for parts that were laid out flat.
"""

import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from vlmtrain.training.manifest import read_manifest

SUFFIX, SHAPES = ".safetensors", "shapes.json"
OPTIMIZER, AVERAGES, OBJECTIVE = "optimizer", "ema", "objective"  # tensors beside those of components


def groups_of(folder: Path) -> dict[str, list[str]]:
    """Component, or "optimizer" and the like -> its files of tensors, by the manifest of a published folder."""
    return group_files(read_manifest(folder)["files"])


def group_files(files: Iterable[str]) -> dict[str, list[str]]:
    """The same, by the names in a manifest that has been read."""
    groups: dict[str, list[str]] = {}
    for file in sorted(files):
        if file.endswith(SUFFIX):
            groups.setdefault(file.split("/", 1)[0].removesuffix(SUFFIX), []).append(file)
    return groups


def read_group(folder: Path, group: str) -> dict[str, Tensor]:
    """The whole tensors of a component, in whatever way they were written; damage is for others to look for."""
    path = folder / f"{group}{SUFFIX}"
    return load_file(path) if path.exists() else _put_together(folder / group)


def _put_together(folder: Path) -> dict[str, Tensor]:
    from torch.distributed.checkpoint import load  # takes seconds to import
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    shapes = json.loads((folder / SHAPES).read_bytes())
    reader = HuggingFaceStorageReader(str(folder))
    found: dict[str, Any] = reader.read_metadata().state_dict_metadata
    tensors = {name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in found.items()}
    with warnings.catch_warnings():  # that nobody else takes part
        warnings.filterwarnings("ignore", message=".*torch.distributed is disabled.*")
        load(dict(tensors), storage_reader=reader, no_dist=True)
    return {name: value.view(shapes[name]) for name, value in tensors.items()}


def weight_groups(folder: Path) -> list[str]:
    """The components of which a checkpoint holds weights: those that were trained."""
    return components_of(groups_of(folder))


def components_of(groups: Iterable[str]) -> list[str]:
    """Those of the groups that are weights."""
    return [group for group in groups if group not in (OPTIMIZER, AVERAGES, OBJECTIVE)]
