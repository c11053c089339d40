"""Several adaptations of one language model."""

from collections.abc import Callable

from vlmtrain.language_models.base import LanguageModel


def adapt_in_turn(
    language_model: LanguageModel, adaptations: list[Callable[[LanguageModel], LanguageModel]]
) -> LanguageModel:
    """The language model after all of `adaptations`, in order.  LoRA comes before new tokens, so that it sees the head
    as transformers made it."""
    for adaptation in adaptations:
        language_model = adaptation(language_model)
    return language_model
