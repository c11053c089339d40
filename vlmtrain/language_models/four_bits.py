"""Frozen language models whose linear layers are held in four bits, through bitsandbytes."""

import torch
from torch import nn
from transformers import BitsAndBytesConfig

REST = torch.bfloat16  # of embeddings, norms and heads, and of the arithmetic


def four_bit_loading() -> BitsAndBytesConfig:
    """How transformers is to load such a model: NF4 with quantized scales (Dettmers et al. 2023, arXiv:2305.14314,
    sections 3.1 and 3.2).  ValueError where bitsandbytes is missing.

    Weights are rounded as they are read, tensor by tensor.  What hashes and checkpoints see of a layer are its codes;
    the scales beside them follow from the source.
    """
    try:
        import bitsandbytes  # noqa: F401 - takes a second: only where it is asked for
    except ImportError as error:
        raise ValueError(
            f"precision=nf4 needs bitsandbytes ({error}): pip install 'vlmtrain[quantization]', or choose bf16."
        ) from error
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=REST,
    )


def keep_codes(model: nn.Module) -> None:
    """Let codes be written once: on CPUs that know bf16, bitsandbytes rewrites them for a faster product in the first
    pass of a model in eval mode, which frozen ones always are.  Hashes would change, and later passes of training would
    run through that product, which has no gradient."""
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
    model.requires_grad_(False)
