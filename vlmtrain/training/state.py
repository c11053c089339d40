"""What a checkpoint holds of a training: trained tensors per component, moments, averages; and how they come back."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.optim import Optimizer

from vlmtrain.nn.adapters import adapter_names, has_frozen_base, plain_names
from vlmtrain.training.ema import ExponentialMovingAverage
from vlmtrain.training.engines.base import Engine
from vlmtrain.training.engines.replicated import Replicated
from vlmtrain.training.manifest import read_manifest
from vlmtrain.training.optimizer import Restored, named_parameters, restore_moments
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
    """Model, optimizer, average and what the objective keeps of one stage, as the files of a checkpoint.

    Made before `engine` is started, while every parameter still has its shape.  Files hold whole tensors, whatever the
    engine, so that another one, on more or fewer processes, can go on from them.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        average: ExponentialMovingAverage | None = None,
        objective: nn.Module | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.average = average
        self.objective = objective
        self.engine = Replicated.over(optimizer) if engine is None else engine
        self._frozen: dict[str, dict[str, Any]] | None = None
        # also what begins to train later: its present values belong to a checkpoint, should training go back to it
        self._moved = dict(named_parameters(optimizer))
        self._trained = {id(parameter) for parameter in self._moved.values()}
        self._shapes = {name: value.shape for name, value in named_state(model).items()}
        self._moved_shapes = {name: value.shape for name, value in self._moved.items()}
        self._size = self._count_bytes()

    def files(self, progress: Progress) -> Iterator[tuple[str, bytes]]:
        """File name -> content, one file at a time."""
        return self.written(self.gathered(progress))

    def gathered(self, progress: Progress) -> Iterator[tuple[str, dict[str, Tensor] | bytes]]:
        """File name -> whole tensors, or content, one file at a time.  All ranks have to go through to the end."""
        for component, held in trained_tensors(self.model, self._trained).items():
            yield f"{component}.safetensors", {name: self.engine.whole(value) for name, value in held.items()}
        yield (
            OPTIMIZER,
            {
                f"{name}::{moment}": whole
                for name, parameter in self._moved.items()
                for moment, whole in self.engine.moments(parameter).items()
            },
        )
        if self.average is not None:
            averages = self.average.averages
            yield AVERAGES, {name: self.engine.whole(self._own()[name], held) for name, held in averages.items()}
        kept = self._kept()
        if kept:
            yield OBJECTIVE, kept
        yield PROGRESS, json.dumps(asdict(progress)).encode()

    def written(self, files: Iterator[tuple[str, dict[str, Tensor] | bytes]]) -> Iterator[tuple[str, bytes]]:
        """File name -> content.  NonFiniteTraining where a weight or a moment is NaN or infinite."""
        plain = plain_names(self.model)
        buffers = {plain[name] for name, _ in self.model.named_buffers()}
        for name, content in files:
            if isinstance(content, bytes):
                yield name, content
                continue
            unchecked = set() if name in (OPTIMIZER, AVERAGES, OBJECTIVE) else buffers
            yield name, _serialized(name.removesuffix(".safetensors"), content, unchecked)

    def size(self) -> int:
        """Bytes of a checkpoint, moments included, also before there are any."""
        return self._size

    def frozen_parts(self) -> dict[str, dict[str, Any]]:
        """Component -> where its weights come from and their sha256, for every component that is frozen but for what
        was added to it, which the hash leaves out.  All ranks call."""
        if self._frozen is None:
            self._frozen = {
                name: {
                    "source": getattr(part, "source", type(part).__name__),
                    "sha256": weights_hash(part, self.engine.whole),
                }
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
            self.average.restore(load_file(path) if path.exists() else {}, self.engine.put)
        self._restore_kept(folder)
        return Progress(**json.loads((folder / PROGRESS).read_bytes()))

    def restore_moments(self, folder: Path) -> Restored:
        return restore_moments(self._moved, self._moved_shapes, load_file(folder / OPTIMIZER), self.engine.put_moments)

    def _own(self) -> dict[str, Tensor]:
        return dict(self.model.named_parameters())

    def _count_bytes(self) -> int:
        tensors = [value for each in trained_tensors(self.model, self._trained).values() for value in each.values()]
        copies = 3 if self.average is None else 4  # weights, two moments, average
        kept = sum(value.numel() * value.element_size() for value in self._kept().values())
        return kept + copies * sum(value.numel() * value.element_size() for value in tensors)

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
        matched = match_shapes(folder, weights, self._shapes)
        for name in matched:
            self.engine.put(own[name], weights[name])
        self.engine.weights_were_put()
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
                name: value
                for name, value in members.items()
                if id(value) in trained or not (isinstance(value, nn.Parameter) or component in untouched)
            }
    return found


def copy_tensors(origin: Path, saved: dict[str, Tensor], own: dict[str, Tensor]) -> list[str]:
    """Copy by name what both sides know; gives these names.  ValueError where a shape differs, before any copy."""
    matched = match_shapes(origin, saved, {name: value.shape for name, value in own.items()})
    with torch.no_grad():
        for name in matched:
            own[name].copy_(saved[name])
    return matched


def match_shapes(origin: Path, saved: dict[str, Tensor], own: dict[str, torch.Size]) -> list[str]:
    """The names that both sides know; ValueError where a shape differs."""
    matched = [name for name in own if name in saved]
    for name in matched:
        if saved[name].shape != own[name]:
            raise ValueError(
                f"{origin}: {name} has shape {list(saved[name].shape)} there and {list(own[name])} in the model"
            )
    return matched


def weights_hash(module: nn.Module, whole: Callable[[Tensor], Tensor] = Tensor.detach) -> str:
    """sha256 over names, formats, shapes and bytes of parameters and persistent buffers, but for added ones."""
    digest, added, plain = hashlib.sha256(), adapter_names(module), plain_names(module)
    state, left_out = named_state(module), {plain[name] for name in added}
    for name, held in sorted(state.items()):
        if name in left_out:
            continue
        value = whole(held)
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _serialized(what: str, tensors: dict[str, Tensor], unchecked: set[str]) -> bytes:
    for name, value in tensors.items():
        if name not in unchecked and value.is_floating_point() and not bool(value.isfinite().all()):
            raise NonFiniteTraining(f"{what}: {name} holds NaN or infinite values; nothing was published")
    return save({name: _alone(value.detach().cpu().contiguous()) for name, value in tensors.items()})


def _alone(value: Tensor) -> Tensor:
    """Engines keep many weights in one piece of memory, and safetensors wants one for each."""
    return value if value.untyped_storage().nbytes() == value.numel() * value.element_size() else value.clone()
