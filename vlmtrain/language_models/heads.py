"""The head of a causal language model as a function of the states it reads, and the proof that it is that."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def logit_head(model: PreTrainedModel) -> Callable[[Tensor], Tensor]:
    """States [s, D] -> logits [s, vocabulary], with what the model's class does to its logits after the projection.

    Soft caps (Gemma 2), scales (Cohere multiplies, Granite divides), tied weights and biases are honoured.
    """
    project: nn.Module = model.get_output_embeddings()
    config = model.config.get_text_config(decoder=True)
    cap = getattr(config, "final_logit_softcapping", None)
    scale = getattr(config, "logit_scale", None) or 1.0
    scale = scale / (getattr(config, "logits_scaling", None) or 1.0)

    def head(states: Tensor) -> Tensor:
        logits = project(states)
        if scale != 1.0:
            logits = logits * scale
        return logits if cap is None else cap * torch.tanh(logits / cap)

    return head


def decoder_states(model: PreTrainedModel, embeddings: Tensor, attention_mask: Tensor) -> Tensor:
    """[B, T, D], [B, T] -> states as the head reads them, [B, T, head width]."""
    backbone = model.base_model
    if backbone is model:
        raise ValueError(f"{type(model).__name__} has no backbone apart from its head.")
    output = backbone(inputs_embeds=embeddings, attention_mask=attention_mask.long(), use_cache=False)
    return output.last_hidden_state


@torch.no_grad()
def check_head(model: PreTrainedModel, head: Callable[[Tensor], Tensor]) -> None:
    """ValueError where head(states) is not what the model itself gives, tried on three tokens."""
    weight = model.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, weight.shape[0], (1, 3), generator=generator).to(weight.device)
    mask = torch.ones_like(ids)
    was_training = model.training
    model.eval()
    embeddings = model.get_input_embeddings()(ids)
    wanted = model(inputs_embeds=embeddings, attention_mask=mask, use_cache=False).logits.float()
    made = head(decoder_states(model, embeddings, mask)).float()
    model.train(was_training)
    tolerance = 1e-4 if weight.dtype == torch.float32 else 2e-2
    if made.shape != wanted.shape or (made - wanted).abs().max() > tolerance * wanted.abs().max().clamp(min=1e-6):
        raise ValueError(
            f"{type(model).__name__} makes its logits in a way that vlmtrain does not know: head(states) differs from "
            "the model's own logits.  Choose another language model, or teach vlmtrain.language_models.heads."
        )
