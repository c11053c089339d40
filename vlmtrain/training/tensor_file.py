"""Tensors on their way into a safetensors file, and the bytes of a file on their way to the disk."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from vlmtrain.training.stops import NonFiniteTraining


@dataclass(frozen=True)
class TensorFile:
    """What a file of tensors will hold.

    Args:
        what: the tensors are of, for messages.
        tensors: by name; not written into before the file is there (see `copied`).
        unchecked: names of tensors that may hold what is not finite.
        metadata: goes into the file's header.
    """

    what: str
    tensors: dict[str, Tensor]
    unchecked: frozenset[str] = frozenset()
    metadata: dict[str, str] | None = None

    def copied(self) -> TensorFile:
        """The same in the CPU's memory, which training does not go on to change."""
        return replace(
            self, tensors={name: value.detach().to("cpu", copy=True) for name, value in self.tensors.items()}
        )

    def write(self, path: Path) -> None:
        """NonFiniteTraining where a value is NaN or infinite, OSError where the disk does not take it.

        The interpreter's lock is free while values are written, so that training goes on beside it.
        """
        for name, value in self.tensors.items():
            if name not in self.unchecked and value.is_floating_point() and not bool(value.isfinite().all()):
                raise NonFiniteTraining(f"{self.what}: {name} holds NaN or infinite values; nothing was published")
        alone = {name: _alone(value.detach().cpu().contiguous()) for name, value in self.tensors.items()}
        try:
            save_file(alone, path, self.metadata)
        except SafetensorError as error:
            raise OSError(f"{path}: {error}") from error
        path.chmod(path.parent.stat().st_mode & 0o666)  # it is made for its owner alone


Content = TensorFile | bytes


def write_durably(path: Path, content: Content) -> None:
    """The file is on the disk when this returns."""
    if isinstance(content, TensorFile):
        content.write(path)
    else:
        path.write_bytes(content)
    _sync(path)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power loss."""
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _alone(value: Tensor) -> Tensor:
    """Engines keep many weights in one piece of memory, and safetensors wants one for each."""
    return value if value.untyped_storage().nbytes() == value.numel() * value.element_size() else value.clone()
