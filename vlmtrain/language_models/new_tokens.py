"""New tokens for a frozen language model: only their rows train (OpenFlamingo's <image>, Kosmos' places)."""

import torch
import torch.nn.functional as F
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from vlmtrain.language_models.base import LanguageModel
from vlmtrain.nn.adapters import mark_adapter
from vlmtrain.nn.pretrained import builds_without_weights


class ExtendedEmbedding(nn.Module):
    """The embedding of a language model, untouched, and beside it rows for the ids from `first` on."""

    def __init__(self, base: nn.Embedding, first: int, num_tokens: int) -> None:
        super().__init__()
        self.base = base
        self.first = first
        self.rows = nn.Parameter(torch.empty(num_tokens, base.embedding_dim))
        self.num_embeddings = max(base.num_embeddings, first + num_tokens)
        self.embedding_dim = base.embedding_dim
        self.scale = float(getattr(base, "embed_scale", None) or 1.0)  # Gemma 3 multiplies what it looks up
        if self.rows.device.type != "meta":
            nn.init.normal_(self.rows)
            deviation, mean = torch.std_mean(base.weight.detach().float(), dim=0)
            self.rows.data.mul_(deviation).add_(mean)  # as likely as any old one
        mark_adapter(self, base)

    @property
    def weight(self) -> Tensor:
        """The rows of old tokens, for whoever asks for format or device."""
        return self.base.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        """[...] -> [..., D]; the rows are read also where no new token is, so that they always have a gradient."""
        is_new = (input_ids >= self.first) & (input_ids < self.first + len(self.rows))
        old = self.base(input_ids.masked_fill(is_new, 0))
        new = F.embedding((input_ids - self.first).clamp(0, len(self.rows) - 1), self.rows) * self.scale
        return torch.where(is_new.unsqueeze(-1), new.to(old.dtype), old)


class ExtendedHead(nn.Module):
    """The head of a language model, untouched, and beside it the logits of the ids from `first` on."""

    def __init__(self, base: nn.Linear, first: int, rows: nn.Parameter | None, num_tokens: int) -> None:
        super().__init__()
        self.base = base
        self.first = first
        self.num_tokens = num_tokens
        self.rows = nn.Parameter(torch.empty(num_tokens, base.in_features)) if rows is None else rows
        self.row_bias = None if base.bias is None else nn.Parameter(base.bias.new_zeros(num_tokens))
        if rows is None and self.rows.device.type != "meta":
            nn.init.normal_(self.rows)
            deviation, mean = torch.std_mean(base.weight.detach().float(), dim=0)
            self.rows.data.mul_(deviation).add_(mean)
        mark_adapter(self, base)

    @property
    def weight(self) -> Tensor:
        return self.base.weight

    def forward(self, states: Tensor) -> Tensor:
        """[..., D] -> [..., vocabulary].  The base may have columns for ids that no token had: they are replaced."""
        old = self.base(states)
        bias = None if self.row_bias is None else self.row_bias.to(states.dtype)
        new = F.linear(states, self.rows[: self.num_tokens].to(states.dtype), bias)
        return torch.cat([old[..., : self.first], new.to(old.dtype), old[..., self.first + self.num_tokens :]], -1)


def with_new_tokens(
    language_model: LanguageModel,
    read: list[str] | None = None,
    written: list[str] | None = None,
    ends_answers: str | None = None,
) -> LanguageModel:
    """`language_model` with tokens added to its tokenizer and rows for them; what it made of old ones it makes still.

    Args:
        language_model: changed in place; its own tables stay as they are and stay frozen.
        read: tokens that stand in prompts only.  They have no logits.
        written: tokens that answers may hold.  Where head and embedding are one, so are their rows.
        ends_answers: the one of `written` that ends every answer, in place of the layout's terminator
            (OpenFlamingo's <|endofchunk|>).
    """
    read, written = read or [], written or []
    if ends_answers is not None and ends_answers not in written:
        raise ValueError(
            f"ends_answers={ends_answers!r} must be among the written tokens: {', '.join(written) or 'none'}."
        )
    model = pretrained_model(language_model)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if isinstance(embedding, ExtendedEmbedding):
        raise ValueError("This language model has new tokens already: name all of them in one adaptation.")
    first = embedding.num_embeddings
    if not builds_without_weights():
        layout = language_model.layout()
        first = _add_to_tokenizer(layout.tokenizer, written, read)
        if ends_answers is not None:
            layout.end_answers_with(first + written.index(ends_answers))
    extended = ExtendedEmbedding(embedding, first, len(written) + len(read))
    is_tied = head.weight is embedding.weight
    model.set_input_embeddings(extended)
    if written:
        model.set_output_embeddings(ExtendedHead(head, first, extended.rows if is_tied else None, len(written)))
    return language_model


def pretrained_model(language_model: LanguageModel) -> PreTrainedModel:
    """The model of transformers inside; ValueError where there is none."""
    for module in language_model.modules():
        if isinstance(module, PreTrainedModel):
            return module
    raise ValueError(f"{type(language_model).__name__} holds no model of transformers to add tokens to.")


def _add_to_tokenizer(tokenizer: PreTrainedTokenizerBase, written: list[str], read: list[str]) -> int:
    """The id of the first new token; the others follow.  Written ones are not special, so that they are read back."""
    names, known = [*written, *read], tokenizer.get_vocab()
    if not names:
        raise ValueError("No new tokens are named: give read, written or both, or choose model/adaptation=none.")
    for name in names:
        if not name or names.count(name) > 1:
            raise ValueError(f"New token {name!r} is empty or named twice.")
        if name in known:
            raise ValueError(
                f"The tokenizer has the token {name!r} already (id {known[name]}), and its row stays frozen; "
                "leave it out, or choose another name."
            )
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in written])
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in read], special_tokens=True)
    ids = tokenizer.convert_tokens_to_ids(names)
    if ids != list(range(ids[0], ids[0] + len(ids))):
        raise ValueError(f"The tokenizer numbers the new tokens {ids}: it has gaps, and one table cannot hold them.")
    return int(ids[0])
