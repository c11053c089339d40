"""Values against the text of an annotation."""

import pytest

from vlmtrain.config.annotations import fits

GOOD = [
    (1, "int"),
    (1, "float"),
    (1.5, "float | None"),
    (None, "float | None"),
    (None, "Optional[int]"),
    ("a", "Literal['a', 'b']"),
    ([1, 2], "list[int]"),
    ([0.5, 1], "tuple[float, float]"),
    ([1, 2, 3], "tuple[int, ...]"),
    ({"a": 1.0}, "dict[str, float | None]"),
    ({"a": {}}, "Mapping[str, Any]"),
    ("p", "str | Path"),
    ({"_target_": "x"}, "int"),
    ({"anything": 1}, "VisionEncoder"),
    (3, None),
    (3, "not an annotation ("),
    (3, "'int'"),
]
BAD = [
    (True, "int"),
    (1.5, "int"),
    ("1", "int | None"),
    (None, "int"),
    ("c", "Literal['a', 'b']"),
    ([1, "x"], "list[int]"),
    ([1.0], "tuple[float, float]"),
    ("abc", "list[str]"),
    ({"a": "x"}, "dict[str, float | None]"),
    (1, "bool"),
    (1, "str"),
]


@pytest.mark.parametrize(("value", "annotation"), GOOD)
def test_what_fits(value: object, annotation: str | None) -> None:
    assert fits(value, annotation)


@pytest.mark.parametrize(("value", "annotation"), BAD)
def test_what_does_not_fit(value: object, annotation: str) -> None:
    assert not fits(value, annotation)
