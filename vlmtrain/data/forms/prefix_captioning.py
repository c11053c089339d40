"""Captions of which the first words are given: how BLIP-2 trains an encoder-decoder, and SimVLM."""

import re

from vlmtrain.data.forms.captioning import Captioning
from vlmtrain.data.forms.drawn_caption import drawn_caption
from vlmtrain.data.keys import key_of
from vlmtrain.data.record import Record
from vlmtrain.layout import Part, Text, Visual


class PrefixCaptioning(Captioning):
    """The image and the first words of a caption, after which the others are to be written.

    Where the caption is cut is drawn from the key, evenly from its beginning and the ends of all words but the last:
    so the prefix may be empty and the rest never is.  The blank between them goes with the rest, as tokenizers see it;
    both together are the caption, letter for letter.  BLIP-2 (Li et al. 2023, section 3.3) gives the prefix to the
    encoder of Flan-T5; for decoders it is prefix language modelling (SimVLM, Wang et al. 2022, section 3.1).

    A caption that is asked for goes on after `prompt`, as if that had been its prefix; training takes its prefixes
    from the captions.
    """

    def parts(self, record: Record, key: int) -> list[Part]:
        prefix, rest = split_at_word(drawn_caption(record, key), key_of("prefix", key))
        given: list[Part] = [Text(prefix, supervised=False)] if prefix else []
        return [Visual(), *given, Text(rest)]


def split_at_word(text: str, key: int) -> tuple[str, str]:
    """A text without blanks around it -> its first words, possibly none, and the rest, blank in front and all."""
    cuts = [0, *(blank.start() for blank in re.finditer(r"\s+", text))]
    cut = cuts[key % len(cuts)]
    return text[:cut], text[cut:]
