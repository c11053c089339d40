"""Texts of which words are hidden, to be filled in (masked language modelling)."""

from dataclasses import replace

from vlmtrain.data.forms.base import Form, max_frames_of
from vlmtrain.data.keys import key_of
from vlmtrain.data.record import Record
from vlmtrain.layout import Hiding, Part, Text


class Masked:
    """What `form` makes of a record, with about `share` of the supervised text hidden, by whole words.

    The key of the sample decides which words, so that they are the same after resuming and on any number of ranks, and
    others when the sample comes again.  The layout hides them, since only it knows tokens.

    Args:
        form: says what the text is.
        share: of the tokens; BERT, ViLT, VisualBERT and ALBEF hide 0.15.
    """

    def __init__(self, form: Form, share: float = 0.15) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"share is {share}; hide more than none of the tokens and at most all, as 0.15")
        self.form = form
        self.share = share
        self.max_frames = max_frames_of(form)

    def parts(self, record: Record, key: int) -> list[Part]:
        return [
            replace(part, hiding=Hiding(self.share, key_of("hidden", key, record.key, place)))
            if isinstance(part, Text) and part.supervised
            else part
            for place, part in enumerate(self.form.parts(record, key))
        ]

    def prompt_parts(self, record: Record) -> list[Part]:
        return self.form.prompt_parts(record)
