"""The form of region descriptions: places, and what stands there."""

from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.data.scenes.grammar import in_order_of_telling
from vlmtrain.data.scenes.questions import COUNT_WORDS
from vlmtrain.data.scenes.things import Scene, main_relation
from vlmtrain.layout import Part, Text, Visual


class Regions:
    """The image, and for every thing a place and what is there: "[27]", "small red dotted ring [3] [3] two left above".

    Place `grid` * row + column is the patch that holds the middle of the thing.  Behind the attributes come row and
    column (in an encoder trained without them a linear read-out no longer finds where a patch lies), as the how many-th
    a caption names the thing, and how it stands to each of the others in that order: what an encoder has to compare
    things for, and what one that only names things leaves to the connector.

    The record must hold its scene; the embedded data do.
    """

    def __init__(self, grid: int) -> None:
        if grid < 1:
            raise ValueError(f"grid must be 1 or more patches a side; got {grid}")
        self.grid = grid

    def parts(self, record: Record, key: int) -> list[Part]:
        if not record.extra.get("scene", {}).get("things"):
            raise BrokenSample(record.key, "it does not say where its things are (no scene, or an empty one)")
        things = in_order_of_telling(Scene.from_json(record.extra["scene"]))
        parts: list[Part] = self.prompt_parts(record)
        for number, thing in enumerate(things, start=1):
            row, column = self._cell(thing.y), self._cell(thing.x)
            relations = [main_relation(thing, other) for other in things if other is not thing]
            words = [*thing.attributes, f"[{row}]", f"[{column}]", COUNT_WORDS[number], *relations]
            parts += [Text(f"[{self.grid * row + column}]", supervised=False), Text(" ".join(words))]
        return parts

    def prompt_parts(self, record: Record) -> list[Part]:
        return [Visual()]

    def _cell(self, coordinate: float) -> int:
        return min(int(coordinate * self.grid), self.grid - 1)
