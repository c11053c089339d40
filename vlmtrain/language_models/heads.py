"""The head of a causal language model as a function of the states it reads, and the proof that it is that."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from vlmtrain.language_models.probes import random_tokens


def logit_head(model: PreTrainedModel) -> Callable[[Tensor], Tensor]:
    """States [s, D] -> logits [s, vocabulary], with what the model's class does to its logits after the projection.

    Soft caps (Gemma 2), scales (Cohere and Falcon-H1 multiply, Granite divides), tied weights and biases are honoured.
    """
    project: nn.Module = model.get_output_embeddings()
    config = model.config.get_text_config(decoder=True)
    cap = getattr(config, "final_logit_softcapping", None)
    scale = getattr(config, "logit_scale", None) or getattr(config, "lm_head_multiplier", None) or 1.0
    scale = scale / (getattr(config, "logits_scaling", None) or 1.0)
    if scale == 1.0 and cap is None:
        return project  # the layer itself: where it is frozen, linear_cross_entropy keeps no logits

    def head(states: Tensor) -> Tensor:
        logits = project(states)
        if scale != 1.0:
            logits = logits * scale
        return logits if cap is None else cap * torch.tanh(logits / cap)

    return head


def decoder_states(
    model: PreTrainedModel, embeddings: Tensor, attention_mask: Tensor, position_ids: Tensor | None = None
) -> Tensor:
    """[B, T, D], [B, T] (or [B, 1, T, T] to be added to scores), [B, T] -> states as the head reads them, [B, T, D]."""
    backbone = model.base_model
    if backbone is model:
        raise ValueError(f"{type(model).__name__} has no backbone apart from its head.")
    takes_positions = "position_ids" in inspect.signature(backbone.forward).parameters
    options = {"position_ids": position_ids} if takes_positions else {}
    output = backbone(inputs_embeds=embeddings, attention_mask=attention_mask, use_cache=False, **options)
    weights = model.get_input_embeddings().weight
    return output.last_hidden_state.to(weights.dtype)  # Mamba's residuals are fp32, whatever its weights are


def positions(attention_mask: Tensor) -> Tensor:
    """[B, T] -> how many tokens stand before each; some models would count padding on the left as well."""
    return (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)


def seq2seq_states(
    model: PreTrainedModel,
    embeddings: Tensor,
    attention_mask: Tensor,
    decoder_ids: Tensor,
    decoder_masks: tuple[Tensor | None, Tensor] | None = None,
) -> Tensor:
    """[B, T, D], [B, T] for the encoder, [B, L] for the decoder -> the decoder's states, [B, L, D].

    With masks to be added to scores: [B, 1, T, T], and of the decoder [B, 1, L, L] for itself, [B, 1, L, T] for what
    was encoded.
    """
    own, encoded_mask = (None, attention_mask) if decoder_masks is None else decoder_masks
    encoded = model.get_encoder()(inputs_embeds=embeddings, attention_mask=attention_mask).last_hidden_state
    output = model.get_decoder()(
        input_ids=decoder_ids,
        attention_mask=own,
        encoder_hidden_states=encoded,
        encoder_attention_mask=encoded_mask,
        use_cache=False,
    )
    return output.last_hidden_state


def seq2seq_head(model: PreTrainedModel, shrinks: bool) -> Callable[[Tensor], Tensor]:
    """As `logit_head`, for encoder-decoders; BART adds a bias.

    `shrinks`: T5 multiplies states by their width ** -0.5 before a head that is tied to the embedding.
    """
    plain = logit_head(model)
    bias = getattr(model, "final_logits_bias", None)
    if not shrinks and bias is None:
        return plain

    def head(states: Tensor) -> Tensor:
        logits = plain(states * states.shape[-1] ** -0.5 if shrinks else states)
        return logits if bias is None else logits + bias.to(logits.dtype)

    return head


@torch.no_grad()
def check_head(model: PreTrainedModel, head: Callable[[Tensor], Tensor]) -> None:
    """ValueError where head(states) is not what the model itself gives, tried on three tokens."""
    with _in_eval_mode(model):
        ids = random_tokens(model, 1, 3)
        embeddings, mask = model.get_input_embeddings()(ids), torch.ones_like(ids)
        wanted = model(inputs_embeds=embeddings, attention_mask=mask, use_cache=False).logits
        made = head(decoder_states(model, embeddings, mask))
    if not _agree(model, made, wanted):
        raise _unknown_head(model)


@torch.no_grad()
def shrinks_states(model: PreTrainedModel) -> bool:
    """Which of the two `seq2seq_head`s is this model's own, tried on three tokens; ValueError where none is.

    Found by trying: what config files say of tied heads is rewritten by some classes and not by others.
    """
    with _in_eval_mode(model):
        ids = random_tokens(model, 1, 3)
        embeddings, mask = model.get_input_embeddings()(ids), torch.ones_like(ids)
        wanted = model(inputs_embeds=embeddings, attention_mask=mask, decoder_input_ids=ids, use_cache=False).logits
        states = seq2seq_states(model, embeddings, mask, ids)
    for shrinks in (False, True):
        if _agree(model, seq2seq_head(model, shrinks)(states), wanted):
            return shrinks
    raise _unknown_head(model)


@contextmanager
def _in_eval_mode(model: PreTrainedModel) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _agree(model: PreTrainedModel, made: Tensor, wanted: Tensor) -> bool:
    tolerance = 1e-4 if model.get_input_embeddings().weight.dtype == torch.float32 else 2e-2
    made, wanted = made.float(), wanted.float()
    largest = wanted.abs().max().clamp(min=1e-6)
    return made.shape == wanted.shape and bool((made - wanted).abs().max() <= tolerance * largest)


def _unknown_head(model: PreTrainedModel) -> ValueError:
    return ValueError(
        f"{type(model).__name__} makes its logits in a way that vlmtrain does not know: head(states) differs from "
        "the model's own logits.  Choose another language model, or teach vlmtrain.language_models.heads."
    )
