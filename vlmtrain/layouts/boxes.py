"""Boxes in images, and how a language model writes them: as four places, each a token of its own."""

import re
from dataclasses import dataclass

_PLACE = re.compile(r"<place_(\d{1,6})>")


@dataclass(frozen=True, slots=True)
class Box:
    """An upright box: x grows rightwards and y downwards, in shares of the image's width and height."""

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        if not (0 <= self.left < self.right <= 1 and 0 <= self.top < self.bottom <= 1):
            raise ValueError(
                f"box (left {self.left}, top {self.top}, right {self.right}, bottom {self.bottom}) must lie within 0 "
                "and 1, left of right and top above bottom; divide pixels by the image's width and height"
            )

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.bottom - self.top)

    def overlap(self, other: "Box") -> float:
        """Intersection over union, from 0 to 1."""
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        common = max(across, 0.0) * max(down, 0.0)
        return common / (self.area + other.area - common)


def place_tokens(num_places: int) -> list[str]:
    """The tokens that a language model needs for boxes (model.adaptation.written)."""
    return [f"<place_{number}>" for number in range(_checked(num_places))]


def write_box(box: Box, num_places: int) -> str:
    """Top, left, bottom, right, each the nearest of `num_places` from edge to edge, as tokens (Pix2Seq, Chen et al.
    2021, arXiv:2109.10852, section 2.1; in this order in PaliGemma, Beyer et al. 2024, arXiv:2407.07726)."""
    last = _checked(num_places) - 1
    sides = (box.top, box.left, box.bottom, box.right)
    return "".join(f"<place_{round(side * last)}>" for side in sides)


def read_box(text: str, num_places: int) -> Box | None:
    """The box that a text tells; None where it is not four places, or these are the sides of no box."""
    last = _checked(num_places) - 1
    numbers = [int(number) for number in _PLACE.findall(text)]
    if len(numbers) != 4 or _PLACE.sub("", text).strip() or max(numbers) > last:
        return None
    top, left, bottom, right = (number / last for number in numbers)
    return Box(left, top, right, bottom) if left < right and top < bottom else None


def _checked(num_places: int) -> int:
    if num_places < 2:
        raise ValueError(f"num_places={num_places}: a box has two sides each way, so give two places or more")
    return num_places
