"""What a checkpoint holds of a training: trained tensors per component, moments, averages; and how they come back."""

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.optim import Optimizer

from vlmtrain.nn.adapters import adapter_names, has_frozen_base, plain_names
from vlmtrain.training.ema import ExponentialMovingAverage
from vlmtrain.training.manifest import read_manifest
from vlmtrain.training.optimizer import Restored, optimizer_tensors, restore_optimizer
from vlmtrain.training.stops import NonFiniteTraining
from vlmtrain.training.trainability import component_names

logger = logging.getLogger(__name__)

OPTIMIZER, AVERAGES, PROGRESS = "optimizer.safetensors", "ema.safetensors", "progress.json"
OBJECTIVE = "objective.safetensors"


@dataclass
class Progress:
    """Where training stands.  Everything else follows from the step."""

    step: int = 0
    samples: int = 0
    skipped_in_a_row: int = 0
    open_interval: dict[str, Any] = field(default_factory=dict)  # of the meter: steps that no line has told of yet


class TrainingState:
    """Model, optimizer, average and what the objective keeps of one stage, as the files of a checkpoint."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        average: ExponentialMovingAverage | None = None,
        objective: nn.Module | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.average = average
        self.objective = objective
        self._frozen: dict[str, dict[str, Any]] | None = None
        # also what begins to train later: its present values belong to a checkpoint, should training go back to it
        self._trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}

    def files(self, progress: Progress) -> Iterator[tuple[str, bytes]]:
        """File name -> content, one at a time.  NonFiniteTraining where a weight or a moment is NaN or infinite."""
        for component, tensors in trained_tensors(self.model, self._trained).items():
            yield f"{component}.safetensors", _serialized(component, tensors, self._buffers())
        yield OPTIMIZER, _serialized("optimizer", optimizer_tensors(self.optimizer), set())
        if self.average is not None:
            yield AVERAGES, _serialized("average", self.average.averages, set())
        kept = self._kept()
        if kept:
            yield OBJECTIVE, _serialized("objective", kept, set())
        yield PROGRESS, json.dumps(asdict(progress)).encode()

    def size(self) -> int:
        """Bytes of a checkpoint, moments included, also before there are any."""
        tensors = [value for each in trained_tensors(self.model, self._trained).values() for value in each.values()]
        copies = 3 if self.average is None else 4  # weights, two moments, average
        kept = sum(value.numel() * value.element_size() for value in self._kept().values())
        return kept + copies * sum(value.numel() * value.element_size() for value in tensors)

    def frozen_parts(self) -> dict[str, dict[str, Any]]:
        """Component -> where its weights come from and their sha256, for every component that is frozen but for what
        was added to it, which the hash leaves out."""
        if self._frozen is None:
            self._frozen = {
                name: {"source": getattr(part, "source", type(part).__name__), "sha256": weights_hash(part)}
                for name, part in self.model.named_children()
                if has_frozen_base(part, self._trained)
            }
        return self._frozen

    def restore(self, folder: Path) -> Progress:
        """Take everything from a published folder; what is trained now decides, by name, what is taken up."""
        manifest = read_manifest(folder)
        self._check_frozen(folder, manifest["frozen"])
        weights: dict[str, Tensor] = {}
        for file in weight_files(manifest):
            weights.update(load_file(folder / file))
        self._restore_weights(folder, weights)
        self.restore_moments(folder)
        if self.average is not None:
            path = folder / AVERAGES
            self.average.restore(load_file(path) if path.exists() else {})
        self._restore_kept(folder)
        return Progress(**json.loads((folder / PROGRESS).read_bytes()))

    def restore_moments(self, folder: Path) -> Restored:
        return restore_optimizer(self.optimizer, load_file(folder / OPTIMIZER))

    def _kept(self) -> dict[str, Tensor]:
        """What the objective remembers of earlier steps."""
        return {} if self.objective is None else self.objective.state_dict(keep_vars=True)

    def _restore_kept(self, folder: Path) -> None:
        """All of it or nothing: with another queue the next steps would differ."""
        kept = self._kept()
        saved = load_file(folder / OBJECTIVE) if (folder / OBJECTIVE).exists() else {}
        if missing := sorted(kept.keys() - saved.keys()):
            raise ValueError(f"{folder} does not hold {', '.join(missing)} of the objective; start a new run")
        copy_tensors(folder, saved, kept)

    def _restore_weights(self, folder: Path, weights: dict[str, Tensor]) -> None:
        own = named_state(self.model)
        trained = {name for tensors in trained_tensors(self.model, self._trained).values() for name in tensors}
        matched = copy_tensors(folder, weights, own)
        if not matched:
            raise ValueError(f"{folder}: no tensor in it has a name that the model knows; is it of another model?")
        fresh, unused = sorted(trained - set(matched)), sorted(set(weights) - set(matched))
        if fresh or unused:
            logger.warning(
                "weights: %d restored; %d not in the checkpoint keep their present values (%s); %d unused (%s)",
                *(len(matched), len(fresh), ", ".join(fresh[:5]) or "none"),
                *(len(unused), ", ".join(unused[:5]) or "none"),
            )

    def _check_frozen(self, folder: Path, recorded: dict[str, dict[str, Any]]) -> None:
        present = self.frozen_parts()
        for name in recorded.keys() & present.keys():
            if recorded[name]["sha256"] != present[name]["sha256"]:
                raise ValueError(
                    f"{folder} was trained with other frozen weights of {name} (from {recorded[name]['source']}) "
                    f"than are loaded now (from {present[name]['source']}); give the same weights and precision, "
                    "or start a new run"
                )

    def _buffers(self) -> set[str]:
        plain = plain_names(self.model)
        return {plain[name] for name, _ in self.model.named_buffers()}


def weight_files(manifest: dict[str, Any]) -> list[str]:
    """The files of a checkpoint that hold weights of the model, one for each component that was trained."""
    others = (OPTIMIZER, AVERAGES, OBJECTIVE)
    return [file for file in manifest["files"] if file.endswith(".safetensors") and file not in others]


def named_state(module: nn.Module) -> dict[str, Tensor]:
    """Parameters (each once, tied or not) and persistent buffers, by the name that they have without adapters."""
    plain, persistent = plain_names(module), module.state_dict().keys()
    buffers = {plain[name]: value for name, value in module.named_buffers() if name in persistent}
    return {**{plain[name]: value for name, value in module.named_parameters()}, **buffers}


def trained_tensors(model: nn.Module, trained: set[int] | None = None) -> dict[str, dict[str, Tensor]]:
    """Component -> its trained parameters and, where more than adapters trains, its persistent buffers; by name.

    `trained`: ids of the parameters that train at some time; None: those that do now.
    """
    state = named_state(model)
    if trained is None:
        trained = {id(value) for value in model.parameters() if value.requires_grad}
    untouched = {name for name, part in model.named_children() if has_frozen_base(part, trained)}
    found: dict[str, dict[str, Tensor]] = {}
    for component in component_names(model):
        members = {name: value for name, value in state.items() if name.split(".", 1)[0] == component}
        if any(id(value) in trained for value in members.values()):
            found[component] = {
                name: value.detach()
                for name, value in members.items()
                if id(value) in trained or not (isinstance(value, nn.Parameter) or component in untouched)
            }
    return found


def copy_tensors(origin: Path, saved: dict[str, Tensor], own: dict[str, Tensor]) -> list[str]:
    """Copy by name what both sides know; gives these names.  ValueError where a shape differs, before any copy."""
    matched = [name for name in own if name in saved]
    for name in matched:
        if saved[name].shape != own[name].shape:
            raise ValueError(
                f"{origin}: {name} has shape {list(saved[name].shape)} there and {list(own[name].shape)} in the model"
            )
    with torch.no_grad():
        for name in matched:
            own[name].copy_(saved[name])
    return matched


def weights_hash(module: nn.Module) -> str:
    """sha256 over names, formats, shapes and bytes of parameters and persistent buffers, but for added ones."""
    digest, added, plain = hashlib.sha256(), adapter_names(module), plain_names(module)
    state, left_out = named_state(module), {plain[name] for name in added}
    for name, value in sorted(state.items()):
        if name in left_out:
            continue
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _serialized(what: str, tensors: dict[str, Tensor], unchecked: set[str]) -> bytes:
    for name, value in tensors.items():
        if name not in unchecked and value.is_floating_point() and not bool(value.isfinite().all()):
            raise NonFiniteTraining(f"{what}: {name} holds NaN or infinite values; nothing was published")
    return save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
