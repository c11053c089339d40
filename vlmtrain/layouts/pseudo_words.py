"""Rows of a text encoder in which an image is a word."""

from collections.abc import Callable
from dataclasses import replace

from vlmtrain.batch import TextBatch
from vlmtrain.layout import Layout, Part, Text, Visual
from vlmtrain.layouts.tokens import describe

PLACEHOLDER = "*"


def parts_of_prompt(prompt: str) -> list[Part]:
    """The texts before and behind the one * of a prompt, and between them the image.  ValueError for another number."""
    if prompt.count(PLACEHOLDER) != 1:
        raise ValueError(f"The prompt {prompt!r} has {prompt.count(PLACEHOLDER)} {PLACEHOLDER}; it takes exactly one.")
    before, behind = prompt.split(PLACEHOLDER)
    parts: list[Part] = [Text(before.rstrip()), Visual(), Text(behind)]
    return [part for part in parts if isinstance(part, Visual) or part.string.strip()]


class PseudoWordLayout(Layout):
    """Writes rows as `inner` does, with a token that marks the place of each image: there `visual_mask` is True.

    The token is * where the tokenizer knows it as one token, as in CLIP's, or else its mask token.  What stands in its
    place is the model's to say; a text that holds it by itself is refused.
    """

    def __init__(self, inner: Layout) -> None:
        self.inner = inner
        self.tokenizer = inner.tokenizer
        self.marker, self.marker_id = _find_marker(inner)

    def write(self, samples: list[list[Part]], placeholders_per_item: Callable[[int], int]) -> TextBatch:
        wanted = [
            sum(placeholders_per_item(part.tiles) for part in parts if isinstance(part, Visual)) for parts in samples
        ]
        text = self.inner.write([self._marked(parts, placeholders_per_item) for parts in samples], lambda tiles: 0)
        places = text.input_ids == self.marker_id
        for parts, number, found in zip(samples, wanted, places.sum(1).tolist(), strict=True):
            if number != found:
                raise ValueError(
                    f"{describe(parts)} has room for {number} words of images and, as written, {found} {self.marker}: "
                    f"leave {self.marker} out of texts, write blanks around the image, or raise max_tokens if the row "
                    "was cut."
                )
        return replace(text, visual_mask=places, placeholders=sum(wanted))

    def write_prompts(self, samples: list[list[Part]], placeholders_per_item: Callable[[int], int]) -> TextBatch:
        raise ValueError("Rows with words of images are only read; no model of them continues a prompt.")

    def read(self, token_ids: list[int]) -> str:
        return self.inner.read(token_ids)

    def _marked(self, parts: list[Part], placeholders_per_item: Callable[[int], int]) -> list[Part]:
        marked: list[Part] = []
        for part in parts:
            if isinstance(part, Visual):
                marked += [Text(self.marker)] * placeholders_per_item(part.tiles)
            else:
                marked.append(part)
        return marked


def _find_marker(inner: Layout) -> tuple[str, int]:
    """The token and its id, seen in a row; ValueError where the tokenizer has neither."""
    unknown = getattr(inner.tokenizer, "unk_token_id", None)
    for marker in (PLACEHOLDER, getattr(inner.tokenizer, "mask_token", None)):
        if marker is None:
            continue
        row, other = (set(inner.write([[Text(each)]], lambda tiles: 0).input_ids[0].tolist()) for each in (marker, "a"))
        own = row - other
        if len(own) == 1 and own != {unknown}:
            return marker, own.pop()
    name = getattr(inner.tokenizer, "name_or_path", type(inner.tokenizer).__name__)
    raise ValueError(
        f"The tokenizer {name!r} knows no {PLACEHOLDER} as one token and has no mask token; take a text encoder with "
        "one of them."
    )
