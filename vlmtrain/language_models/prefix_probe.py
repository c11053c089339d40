"""Whether every layer of a decoder lets a prefix see itself both ways, tried on a few tokens."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from vlmtrain.language_models.heads import decoder_states, positions
from vlmtrain.language_models.probes import ATTEMPT_FAILED, random_tokens
from vlmtrain.nn.prefix_mask import prefix_mask
from vlmtrain.nn.residual_blocks import residual_blocks

PADDING, PREFIX, SUFFIX = [0, 6], [1, 2, 3], [4, 5]
HEARD = 1e-5  # of what a position hears of a change in itself


@torch.no_grad()
def check_prefix_attention(model: PreTrainedModel) -> None:
    """ValueError where a layer does not hear what it should of a prefix, or hears what it should not.

    The row is padding, three tokens of prefix, two of suffix, padding.  Each layer is run again as it is called, with
    one position changed at a time: so a recurrent layer is found out also among attention layers, and a mask that is
    taken and not heeded as well.
    """
    ids = random_tokens(model, 1, 7)
    mask, in_prefix = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    mask[:, PREFIX + SUFFIX] = 1
    in_prefix[:, [*PADDING, *PREFIX]] = True
    embeddings = model.get_input_embeddings()(ids)
    was_training = model.training
    model.eval()
    faults: list[str] = []
    handles = [
        layer.register_forward_hook(lambda *call, at=number: faults.extend(_faults(at, *call)), with_kwargs=True)
        for number, layer in enumerate(residual_blocks(model))
    ]
    try:
        decoder_states(model, embeddings, prefix_mask(mask, in_prefix, embeddings.dtype), positions(mask))
    except ATTEMPT_FAILED as error:
        raise _refusal(model, f"it fails with such a mask ({error})") from error
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)
    if faults:
        raise _refusal(model, faults[0])


def _faults(
    number: int, layer: nn.Module, arguments: tuple[Tensor, ...], options: dict[str, object], output: object
) -> list[str]:
    states = arguments[0] if arguments else options["hidden_states"]
    assert isinstance(states, Tensor)
    noise = torch.randn(states.shape[-1], generator=torch.Generator().manual_seed(1)).to(states) * states.std()

    def hears(position: int) -> list[bool]:
        changed = states.clone()
        changed[0, position] += noise
        again = (
            layer.forward(*(changed, *arguments[1:]), **options)
            if arguments
            else layer.forward(**{**options, "hidden_states": changed})
        )
        difference = (_first(again) - _first(output)).float().abs().amax(dim=-1)[0]
        return (difference > HEARD * difference[position]).tolist()

    faults = []
    last, next_one = hears(PREFIX[-1]), hears(SUFFIX[0])
    if not all(last[position] for position in PREFIX):
        faults.append(f"in layer {number} a token of the prefix does not see the one behind it")
    if any(next_one[position] for position in PREFIX):
        faults.append(f"in layer {number} the prefix sees what follows it")
    if any(any(hears(padding)[position] for position in PREFIX + SUFFIX) for padding in PADDING):
        faults.append(f"in layer {number} padding is seen")
    return faults


def _first(output: object) -> Tensor:
    states = output[0] if isinstance(output, tuple) else output
    assert isinstance(states, Tensor)
    return states


def _refusal(model: PreTrainedModel, reason: str) -> ValueError:
    return ValueError(
        f"{type(model).__name__} cannot read a prefix both ways: {reason}.  Choose a model whose layers are all plain "
        "attention (Llama, Qwen, Gemma...), or read it one way: vlmtrain.language_models.causal.CausalLanguageModel."
    )
