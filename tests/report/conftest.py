import io
from collections.abc import Callable

import pytest
from PIL import Image
from rich.console import Console

from vlmtrain.evaluation.base import SampleOutcome


def make_jpeg(colour: str = "teal", size: tuple[int, int] = (40, 30)) -> bytes:
    held = io.BytesIO()
    Image.new("RGB", size, colour).save(held, format="JPEG")
    return held.getvalue()


@pytest.fixture
def jpeg() -> Callable[..., bytes]:
    return make_jpeg


@pytest.fixture
def make_outcome() -> Callable[..., SampleOutcome]:
    def make(text: str = "a red dog", **changes: object) -> SampleOutcome:
        values: dict = {
            "task": "captioning",
            "split": "test",
            "key": "r1",
            "image": make_jpeg(),
            "references": ["a dog"],
        }
        return SampleOutcome(text=text, **(values | changes))

    return make


@pytest.fixture
def to_text() -> Callable[..., str]:
    def render(renderable: object, width: int = 100) -> str:
        console = Console(file=io.StringIO(), width=width, force_terminal=False)
        console.print(renderable)
        return console.file.getvalue()

    return render
