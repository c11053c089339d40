"""Prepared samples -> Batch."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from vlmtrain.batch import Batch, TextBatch, VisualBatch
from vlmtrain.layout import Layout, Part
from vlmtrain.nn.canvas import share_canvas


@dataclass(frozen=True)
class Prepared:
    """One sample, decoded: its parts, and per Visual among them the tiles [tiles, 3, H, W] uint8."""

    key: str
    parts: list[Part]
    items: list[Tensor] = field(default_factory=list)
    weight: float = 1.0  # in the loss
    origin: str = ""  # the source that it comes from, where there are several


class Collator:
    """Puts samples side by side.  Where text and images stand is for the layout to say.

    `placeholders_per_item` is asked once per number of tiles, here and now, so that a worker process needs a copy of
    the layout but none of the model.
    """

    def __init__(self, layout: Layout, placeholders_per_item: Callable[[int], int], max_tiles: int = 1) -> None:
        self.layout = layout
        self._placeholders = [0, *(placeholders_per_item(tiles) for tiles in range(1, max_tiles + 1))]

    def __call__(self, samples: list[Prepared]) -> Batch:
        """For training: text with targets."""
        return self._batch(samples, self.layout.write([sample.parts for sample in samples], self.placeholders_per_item))

    def prompts(self, samples: list[Prepared]) -> Batch:
        """For generation: text to be continued."""
        parts = [sample.parts for sample in samples]
        return self._batch(samples, self.layout.write_prompts(parts, self.placeholders_per_item))

    def placeholders_per_item(self, tiles: int) -> int:
        if not 0 < tiles < len(self._placeholders):
            raise ValueError(
                f"an item has {tiles} tiles or frames, the collator was made for 1 to {len(self._placeholders) - 1}: "
                "the form's max_frames and the transform's max_tiles say how many there may be"
            )
        return self._placeholders[tiles]

    def _batch(self, samples: list[Prepared], text: TextBatch) -> Batch:
        items = [item for sample in samples for item in sample.items]
        pixels, sizes = share_canvas(items, [(item.shape[-2], item.shape[-1]) for item in items for _ in item])
        visual = VisualBatch(pixels, [len(item) for item in items], [len(sample.items) for sample in samples], sizes)
        weights = [sample.weight for sample in samples]
        origins = [sample.origin for sample in samples]
        return Batch(
            visual,
            text,
            sample_ids=[sample.key for sample in samples],
            origins=origins if any(origins) else [],
            weights=weights if any(each != 1.0 for each in weights) else [],
        )
