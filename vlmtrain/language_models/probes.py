"""What a language model of transformers must do right to stand behind our seam, tried on a few tokens of its own.

Which architectures can is not listed anywhere: lists of names go stale, and silently.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from transformers import PreTrainedModel

from vlmtrain.batch import IGNORED_TARGET

ATTEMPT_FAILED = (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError, NotImplementedError)


@torch.no_grad()
def check_generation(
    model: PreTrainedModel,
    logits: Callable[[Tensor, Tensor, Tensor], Tensor],
    generating: AbstractContextManager[None] | None = None,
) -> None:
    """ValueError where writing from embeddings (cached, two rows, one padded on the left) is not what `logits` says.

    `logits` runs one row without cache and padding; `generating` is what the model needs around its `generate`.
    """
    was_training = model.training
    model.eval()
    try:
        error, gap = None, _generation_gap(model, logits, generating or nullcontext())
    except ATTEMPT_FAILED as failure:
        error, gap = failure, float("inf")
    finally:
        model.train(was_training)
    if gap > (1e-3 if _weight(model).dtype == torch.float32 else 0.1):
        told = f"it fails ({error})" if error else f"its logits are off by {gap:.1%} of the largest"
        raise ValueError(
            f"{type(model).__name__} cannot be used: continuing two embedded prompts of different length with its "
            f"cache, {told}.  Choose another language model."
        ) from error


def _generation_gap(
    model: PreTrainedModel,
    logits: Callable[[Tensor, Tensor, Tensor], Tensor],
    generating: AbstractContextManager[None],
) -> float:
    ids = random_tokens(model, 2, 4)
    mask = torch.ones_like(ids)
    mask[1, :2] = 0
    embed = model.get_input_embeddings()
    with generating:
        written = model.generate(
            inputs_embeds=embed(ids),
            attention_mask=mask,
            max_new_tokens=2,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=None,
            output_logits=True,
            return_dict_in_generate=True,
        )
    made = torch.stack(written.logits, dim=1).float()  # [2, 2 steps, vocabulary]
    gap = 0.0
    for row in range(2):
        prompt, said = ids[row][mask[row].bool()], written.sequences[row]
        targets = torch.cat([torch.full_like(prompt[1:], IGNORED_TARGET), said]).unsqueeze(0)
        embeddings = embed(torch.cat([prompt, said[:1]])).unsqueeze(0)
        wanted = logits(embeddings, torch.ones_like(targets, dtype=torch.bool), targets)[0, -2:].float()
        gap = max(gap, ((made[row] - wanted).abs().max() / wanted.abs().max().clamp(min=1e-6)).item())
    return gap


def random_tokens(model: PreTrainedModel, num_rows: int, length: int) -> Tensor:
    """[num_rows, length] ids, always the same ones."""
    weight = _weight(model)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, weight.shape[0], (num_rows, length), generator=generator).to(weight.device)


def _weight(model: PreTrainedModel) -> Tensor:
    return model.get_input_embeddings().weight
