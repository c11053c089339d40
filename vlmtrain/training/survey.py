"""First of the two passes over a global batch that is cut into several micro-batches: who is in it?"""

import torch
from accelerate import Accelerator
from einops import rearrange
from torch import Tensor

from vlmtrain.batch import IGNORED_TARGET, Batch, TextBatch
from vlmtrain.objectives.base import Everyone


def gather_everyone(accelerator: Accelerator, embeddings: list[dict[str, Tensor]], texts: list[TextBatch]) -> Everyone:
    """What all ranks' micro-batches said, in sample order; `start` is 0 and is set per micro-batch by the caller.

    Micro-batch number `accumulate index * num_processes + rank` holds the samples that come next, so the order over
    the global batch is accumulate-index first, then rank, then row.
    """
    _check_sizes(accelerator, texts)
    gathered = {name: _gather(accelerator, torch.stack([each[name] for each in embeddings])) for name in embeddings[0]}
    return Everyone(gathered, _gather_texts(accelerator, texts), 0)


def _check_sizes(accelerator: Accelerator, texts: list[TextBatch]) -> None:
    sizes = torch.tensor([len(text.input_ids) for text in texts], device=accelerator.device)
    everywhere = accelerator.gather(sizes)
    if bool((everywhere != everywhere[0]).any()):
        raise ValueError(
            f"the micro-batches of one step hold {everywhere.tolist()} samples; an objective that compares samples "
            "needs them equal: let batch_size be a multiple of num_processes * accumulate"
        )


def _gather(accelerator: Accelerator, rows: Tensor) -> Tensor:
    """[accumulate, B, ...] of every rank -> [G, ...]"""
    everywhere = accelerator.gather(rows.detach().contiguous().unsqueeze(0))  # [ranks, accumulate, B, ...]
    return rearrange(everywhere, "ranks accumulate b ... -> (accumulate ranks b) ...")


def _gather_texts(accelerator: Accelerator, texts: list[TextBatch]) -> TextBatch:
    num_targets = [0 if text.targets is None else text.targets.shape[1] for text in texts]
    own = [max(text.input_ids.shape[1] for text in texts), max(num_targets)]
    counts = [sum(text.placeholders for text in texts), sum(text.supervised for text in texts)]
    told = accelerator.gather(torch.tensor([own + counts], device=accelerator.device)).cpu()
    length, target_length = told[:, 0].max().item(), told[:, 1].max().item()

    def gather(tensors: list[Tensor], width: int, filler: int) -> Tensor:
        rows = [torch.nn.functional.pad(each, (0, width - each.shape[1]), value=filler) for each in tensors]
        return _gather(accelerator, torch.stack(rows))

    targets = [text.targets for text in texts if text.targets is not None]
    instructions = [text.instruction for text in texts if text.instruction is not None]
    return TextBatch(
        input_ids=gather([text.input_ids for text in texts], int(length), 0),
        attention_mask=gather([text.attention_mask for text in texts], int(length), 0),
        visual_mask=gather([text.visual_mask for text in texts], int(length), 0),
        targets=gather(targets, int(target_length), IGNORED_TARGET) if targets else None,
        placeholders=int(told[:, 2].sum()),
        supervised=int(told[:, 3].sum()),
        instruction=_gather_texts(accelerator, instructions) if instructions else None,
    )


def first_sample(accelerator: Accelerator, accumulate_index: int, batch: Batch) -> int:
    """Index of a micro-batch's first sample in the global batch, all micro-batches being of one size."""
    return (accumulate_index * accelerator.num_processes + accelerator.process_index) * len(batch)
