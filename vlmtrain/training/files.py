"""The two ways in which a state becomes the files of a checkpoint; vlmtrain.training.saved reads both."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator

from accelerate import Accelerator
from torch import Tensor

from vlmtrain.training.engines.part import Part
from vlmtrain.training.saved import SHAPES, SUFFIX
from vlmtrain.training.state import Progress, TrainingState
from vlmtrain.training.tensor_file import Content, TensorFile

Files = Iterator[tuple[str, Content]]


class CheckpointFiles(ABC):
    """What a rank writes of a state."""

    layout: str  # goes into the manifest

    @abstractmethod
    def num_writers(self, world_size: int) -> int:
        """The first so many ranks write."""

    @abstractmethod
    def collect(self, state: TrainingState, progress: Progress, accelerator: Accelerator) -> Files:
        """File name -> content, one file at a time.  All ranks have to go through to the end."""


class WholeFiles(CheckpointFiles):
    """Whole tensors, put together on every rank and written by the first."""

    layout = "whole"

    def num_writers(self, world_size: int) -> int:
        return 1

    def collect(self, state: TrainingState, progress: Progress, accelerator: Accelerator) -> Files:
        return whole_files(state, progress)


class PartFiles(CheckpointFiles):
    """Every rank writes what it holds, and nothing travels."""

    layout = "parts"

    def num_writers(self, world_size: int) -> int:
        return world_size

    def collect(self, state: TrainingState, progress: Progress, accelerator: Accelerator) -> Files:
        rank, world_size = accelerator.process_index, accelerator.num_processes
        for name, content in state.parts(progress):
            if isinstance(content, dict):
                own = _own_values(content)
                if own:
                    file = f"{name}/part-{rank + 1:05d}-of-{world_size:05d}{SUFFIX}"
                    yield file, TensorFile(name, own, state.unchecked(name), _where_they_lie(content))
                if rank == 0:
                    shapes = {each: part.shape for each, part in content.items()}
                    yield f"{name}/{SHAPES}", json.dumps(shapes, sort_keys=True).encode()
            elif rank == 0:
                yield name, content


def whole_files(state: TrainingState, progress: Progress) -> Files:
    """File name -> content, one file at a time."""
    for name, content in state.gathered(progress):
        if isinstance(content, dict):
            yield f"{name}{SUFFIX}", TensorFile(name, content, state.unchecked(name))
        else:
            yield name, content


def _own_values(parts: dict[str, Part]) -> dict[str, Tensor]:
    return {name: part.values for name, part in parts.items() if part.values is not None}


def _where_they_lie(parts: dict[str, Part]) -> dict[str, str]:
    """In the words of torch.distributed.checkpoint; a single one, since safetensors writes several in any order."""
    offsets = {name: {"saved_offsets": part.offsets} for name, part in parts.items() if part.values is not None}
    return {"DCP_SHARDING_INFO": json.dumps(offsets, sort_keys=True)}
