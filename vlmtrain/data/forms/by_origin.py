"""Mixed data: every record in the form of the source that it comes from."""

from vlmtrain.data.forms.base import Form, max_frames_of
from vlmtrain.data.record import Record
from vlmtrain.layout import Part


class ByOrigin:
    """`forms` by the name of the part of the data (vlmtrain.data.mixed.Mixed) that a record comes from."""

    def __init__(self, forms: dict[str, Form]) -> None:
        if not forms:
            raise ValueError("forms is empty: name a form for every part of the data")
        self.forms = forms
        self.max_frames = max(map(max_frames_of, forms.values()))

    def parts(self, record: Record, key: int) -> list[Part]:
        return self._form(record).parts(record, key)

    def prompt_parts(self, record: Record) -> list[Part]:
        return self._form(record).prompt_parts(record)

    def _form(self, record: Record) -> Form:
        if record.origin not in self.forms:
            raise RuntimeError(
                f"record {record.key!r} comes from {record.origin!r} and there are forms for {', '.join(self.forms)}: "
                "name one for every part of the data"
            )
        return self.forms[record.origin]
