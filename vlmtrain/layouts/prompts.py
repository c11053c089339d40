"""Prompts in which an image is a word."""

from vlmtrain.layout import Part, Text, Visual

PLACEHOLDER = "*"


def parts_of_prompt(prompt: str) -> list[Part]:
    """The texts before and behind the one * of a prompt, and between them the image.  ValueError for another number."""
    if prompt.count(PLACEHOLDER) != 1:
        raise ValueError(f"The prompt {prompt!r} has {prompt.count(PLACEHOLDER)} {PLACEHOLDER}; write one for the image.")
    before, behind = prompt.split(PLACEHOLDER)
    parts = [Text(before.rstrip()), Visual(), Text(behind)]
    return [part for part in parts if isinstance(part, Visual) or part.string.strip()]
