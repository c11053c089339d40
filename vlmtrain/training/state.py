"""What a checkpoint holds of a training: trained tensors per component, moments, averages; and how they come back."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vlmtrain.nn.adapters import adapter_names, has_frozen_base, plain_names
from vlmtrain.nn.file_weights import overwrite
from vlmtrain.training.ema import ExponentialMovingAverage
from vlmtrain.training.engines.base import Engine
from vlmtrain.training.engines.part import Part
from vlmtrain.training.engines.replicated import Replicated
from vlmtrain.training.manifest import read_manifest
from vlmtrain.training.optimizer import Restored, named_parameters, restore_moments
from vlmtrain.training.saved import AVERAGES, OBJECTIVE, OPTIMIZER, groups_of, read_group, weight_groups
from vlmtrain.training.trainability import component_names

logger = logging.getLogger(__name__)

PROGRESS = "progress.json"

Held = TypeVar("Held")


@dataclass
class Progress:
    """Where training stands.  Everything else follows from the step."""

    step: int = 0
    samples: int = 0
    skipped_in_a_row: int = 0
    open_interval: dict[str, Any] = field(default_factory=dict)  # of the meter: steps that no line has told of yet
    loss_scale: dict[str, float] = field(default_factory=dict)


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

    def gathered(self, progress: Progress) -> Iterator[tuple[str, dict[str, Tensor] | bytes]]:
        """Component, "optimizer" and the like -> whole tensors, one at a time, and a file's name -> its content.

        All ranks have to go through to the end.
        """
        return self._collected(progress, self.engine.whole, self.engine.moments)

    def parts(self, progress: Progress) -> Iterator[tuple[str, dict[str, Part] | bytes]]:
        """The same with what this rank writes of each tensor, where every rank writes its own."""
        return self._collected(progress, self.engine.part, self.engine.moment_parts)

    def unchecked(self, component: str) -> frozenset[str]:
        """Names of the buffers among a component's tensors: these may hold what is not finite."""
        plain = plain_names(self.model)
        is_other = component in (OPTIMIZER, AVERAGES, OBJECTIVE)
        return frozenset() if is_other else frozenset(plain[name] for name, _ in self.model.named_buffers())

    def _collected(
        self, progress: Progress, take: Callable[..., Held], take_moments: Callable[[Tensor], dict[str, Held]]
    ) -> Iterator[tuple[str, dict[str, Held] | bytes]]:
        for component, held in trained_tensors(self.model, self._trained).items():
            yield component, {name: take(value) for name, value in held.items()}
        yield (
            OPTIMIZER,
            {
                f"{name}::{moment}": value
                for name, parameter in self._moved.items()
                for moment, value in take_moments(parameter).items()
            },
        )
        if self.average is not None:
            averages = self.average.averages
            yield AVERAGES, {name: take(self._own()[name], held) for name, held in averages.items()}
        kept = self._kept()
        if kept:
            yield OBJECTIVE, {name: take(value) for name, value in kept.items()}
        yield PROGRESS, json.dumps(asdict(progress)).encode()

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
        self._check_frozen(folder, read_manifest(folder)["frozen"])
        weights: dict[str, Tensor] = {}
        for component in weight_groups(folder):
            weights.update(read_group(folder, component))
        self._restore_weights(folder, weights)
        self.restore_moments(folder)
        if self.average is not None:
            self.average.restore(_read_if_there(folder, AVERAGES), self.engine.put)
        self._restore_kept(folder)
        return Progress(**json.loads((folder / PROGRESS).read_bytes()))

    def restore_moments(self, folder: Path) -> Restored:
        return restore_moments(self._moved, self._moved_shapes, read_group(folder, OPTIMIZER), self.engine.put_moments)

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
        saved = _read_if_there(folder, OBJECTIVE)
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
            overwrite(own[name], saved[name])
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


def _read_if_there(folder: Path, group: str) -> dict[str, Tensor]:
    return read_group(folder, group) if group in groups_of(folder) else {}
