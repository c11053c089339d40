"""What a language model of transformers must do right to stand behind our seam, tried on a few tokens of its own.

Which architectures can is not listed anywhere: lists of names go stale, and silently.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from vlmtrain.batch import IGNORED_TARGET
from vlmtrain.nn.file_weights import is_in_file, take_all_out
from vlmtrain.nn.residual_blocks import residual_blocks

Found = TypeVar("Found")

FEW = 8  # blocks: more than a period of most hybrids of attention and recurrence
ATTEMPT_FAILED = (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError, NotImplementedError)


def try_out(model: PreTrainedModel, attempt: Callable[[], Found]) -> Found:
    """What `attempt` finds out about `model`; ValueError where it does not do what is needed.

    Of weights that lie in their files still, the first few blocks are tried, in the format that they have there: else
    every process would read all of a large model.  What is refused so, gets all of its blocks in the format asked for.
    """
    if not any(is_in_file(parameter) for parameter in model.parameters()):
        return attempt()
    try:
        with _first_blocks(model):
            return attempt()
    except ATTEMPT_FAILED:
        take_all_out(model, torch.device("cpu"))
        return attempt()


@contextmanager
def _first_blocks(model: PreTrainedModel) -> Iterator[None]:
    """A block in which the model ends earlier."""
    stacks = (model.get_encoder(), model.get_decoder()) if model.config.is_encoder_decoder else (model,)
    with ExitStack() as stack:
        for each in stacks:
            blocks = residual_blocks(each)
            stack.callback(blocks.extend, list(blocks[FEW:]))
            del blocks[FEW:]
        yield


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
    if not gap <= (1e-3 if _weight(model).dtype == torch.float32 else 0.1):  # what overflows is no number
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
