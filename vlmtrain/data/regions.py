"""The form of region descriptions: places, and what stands there."""

from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.layout import Part, Text, Visual


class Regions:
    """The image, and for every thing a place and what is there: "[27]", "small red dotted ring [3] [3]".

    Place `grid` * row + column is the patch that holds the middle of the thing.  Row and column are to be written as
    well: in an encoder trained without them a linear read-out no longer finds where a patch lies.
    The record must say in `extra["scene"]["things"]` where its things are; the embedded scenes do.
    """

    def __init__(self, grid: int) -> None:
        if grid < 1:
            raise ValueError(f"grid must be 1 or more patches a side; got {grid}")
        self.grid = grid

    def parts(self, record: Record, key: int) -> list[Part]:
        things = record.extra.get("scene", {}).get("things", [])
        if not things:
            raise BrokenSample(record.key, "it does not say where its things are (no scene, or an empty one)")
        parts: list[Part] = self.prompt_parts(record)
        for thing in things:
            row, column = self._cell(thing["y"]), self._cell(thing["x"])
            words = " ".join(thing[name] for name in ("size", "colour", "texture", "shape"))
            parts += [Text(f"[{self.grid * row + column}]", supervised=False), Text(f"{words} [{row}] [{column}]")]
        return parts

    def prompt_parts(self, record: Record) -> list[Part]:
        return [Visual()]

    def _cell(self, coordinate: float) -> int:
        return min(int(coordinate * self.grid), self.grid - 1)
