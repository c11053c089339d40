"""Which part of a model trains, and how fast.  Frozen is a property with consequences."""

from difflib import get_close_matches
from fnmatch import fnmatchcase
from types import MethodType

from torch import nn

from vlmtrain.nn.adapters import adapter_names, is_adapter

ADAPTATION = "adaptation"  # names whatever was added to parts of the model (vlmtrain.nn.adapters)


def set_trainability(model: nn.Module, rates: dict[str, float | None]) -> dict[str, float]:
    """Free or freeze every parameter of `model`; gives trainable parameter name -> multiple of the learning rate.

    `rates` names every component of the model (its children and its own parameters): a number trains it at that
    multiple of the learning rate, None freezes it.  Further keys refine: the dotted name of a module or parameter, or
    a pattern with `*`; they apply in the order written, later ones win.  A frozen part has no gradient and stays in
    eval mode, also when `.train()` is called on the model later.

    What was added to a part (adapters, new rows) is named by "adaptation", not by the part: it trains at multiple 1
    where `rates` says nothing else, also in a frozen part.
    """
    components = component_names(model)
    patterns = {key: rate for key, rate in rates.items() if key not in components and _is_pattern(key)}
    _check_components(model, {key for key in rates if key not in patterns}, components)
    for key, rate in rates.items():
        if rate is not None and not rate > 0:
            raise ValueError(f"trainable: {key} has rate {rate}; give a multiple above 0, or null to freeze it")
    added = adapter_names(model)
    of_added = rates[ADAPTATION] if ADAPTATION in rates and ADAPTATION not in components else 1.0
    chosen = {name: of_added if name in added else rates[name.split(".", 1)[0]] for name, _ in model.named_parameters()}
    for pattern, rate in patterns.items():
        chosen.update(dict.fromkeys(_matching(pattern, list(chosen)), rate))
    for name, parameter in model.named_parameters():
        if chosen[name] is not None and not parameter.is_floating_point():
            raise ValueError(
                f"trainable: {name} is held in codes ({parameter.dtype}), which cannot learn; freeze it (null) and let "
                "model/adaptation=lora train beside it, or hold it in fp32 or bf16 (precision)"
            )
        parameter.requires_grad_(chosen[name] is not None)
        if chosen[name] is None:
            parameter.grad = None
    _set_modes(model)
    return {name: rate for name, rate in chosen.items() if rate is not None}


def component_names(model: nn.Module) -> list[str]:
    """Children and direct parameters of a model: what a configuration calls its parts."""
    return [name for name, _ in model.named_children()] + [name for name, _ in model.named_parameters(recurse=False)]


def enable_gradient_checkpointing(model: nn.Module) -> int:
    """Switch gradient checkpointing on in every outermost part that offers it; gives how many did, at least one."""
    switched = _switch_checkpointing_on(model)
    if switched == 0:
        raise ValueError(
            f"no part of {type(model).__name__} offers gradient checkpointing; set trainer.gradient_checkpointing=false"
        )
    return switched


def _switch_checkpointing_on(model: nn.Module) -> int:
    offer = getattr(model, "enable_gradient_checkpointing", None)
    if callable(offer):
        offer()
        return 1
    return sum(_switch_checkpointing_on(child) for child in model.children())


def _is_pattern(key: str) -> bool:
    return "." in key or "*" in key


def _check_components(model: nn.Module, named: set[str], components: list[str]) -> None:
    empty = {name for name, child in model.named_children() if next(child.parameters(), None) is None}
    unknown, missing = (
        sorted(named - {*components, ADAPTATION}),
        [name for name in components if name not in named | empty],
    )
    if not unknown and not missing:
        return
    hints = {name: get_close_matches(name, components, 1) for name in unknown}
    told = [name + (f" (did you mean {hints[name][0]}?)" if hints[name] else "") for name in unknown]
    raise ValueError(
        f"trainable: must name exactly the components of {type(model).__name__}: {', '.join(components)}"
        + (f"; unknown: {', '.join(told)}" if told else "")
        + (f"; missing: {', '.join(missing)}" if missing else "")
    )


def _matching(pattern: str, names: list[str]) -> list[str]:
    found = [name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, pattern + ".*")]
    if not found:
        close = get_close_matches(pattern, names, 1, cutoff=0.4)
        raise ValueError(
            f"trainable: {pattern} matches no parameter" + (f"; did you mean {close[0]}?" if close else "")
        )
    return found


def _stay_in_eval(self: nn.Module, mode: bool = True) -> nn.Module:
    return self


def _pass_on_mode(self: nn.Module, mode: bool = True) -> nn.Module:
    """Of a frozen module around adapters: they alone change, as in dropping out."""
    for child in self.children():
        child.train(mode)
    return self


def _set_modes(module: nn.Module, above: bool = False, is_frozen: bool = False) -> None:
    """Training mode where something trains, eval mode for good in every outermost part where nothing does.

    `above`: whether the module around is an adapter; `is_frozen`: whether this lies in a part that is.
    """
    here = is_adapter(module, above)
    added = set() if here else adapter_names(module)
    own = [parameter for name, parameter in module.named_parameters() if name not in added]
    is_frozen = not any(parameter.requires_grad for parameter in own) and (bool(own) or (is_frozen and not here))
    # A method of the instance: nn.Module.train() recurses by calling it, and deepcopy rebinds it.
    module.__dict__.pop("train", None)
    if is_frozen and not added:
        for part in module.modules():
            part.__dict__.pop("train", None)
        module.eval()
        module.__dict__["train"] = MethodType(_stay_in_eval, module)
        return
    module.training = not is_frozen
    if is_frozen:
        module.__dict__["train"] = MethodType(_pass_on_mode, module)
    for child in module.children():
        _set_modes(child, here, is_frozen)
