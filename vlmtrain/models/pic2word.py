"""A dual encoder that reads an image as a word of a text."""

from collections.abc import Callable

from torch import Tensor, nn

from vlmtrain.batch import TextBatch, VisualBatch, VisualFeatures
from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.layout import Layout
from vlmtrain.layouts.pseudo_words import PseudoWordLayout
from vlmtrain.models.dual_encoder import DualEncoder
from vlmtrain.nn.pseudo_words import putting_in


class Pic2Word(nn.Module):
    """Pic2Word (Saito et al. 2023, arXiv:2302.03084): a mapping network makes an image a pseudo word.  Composes.

    Freeze `dual_encoder` and only the network learns; the similarities keep the dual encoder's temperature.

    Args:
        dual_encoder: of an earlier stage, or pretrained.
        mapper: its mapping network, from the width of the shared space to that of the text encoder's input embeddings.
    """

    def __init__(self, dual_encoder: DualEncoder, mapper: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.dual_encoder = dual_encoder
        self.mapper = mapper(dual_encoder.embedding_width, dual_encoder.text_encoder.word_table().embedding_dim)

    @property
    def encoder(self) -> VisionEncoder:
        return self.dual_encoder.encoder

    def layout(self) -> Layout:
        return PseudoWordLayout(self.dual_encoder.layout())

    def placeholders_per_item(self, tiles: int) -> int:
        return 1

    def encode(self, visual: VisualBatch) -> VisualFeatures:
        return self.dual_encoder.encode(visual)

    def embed_visual(self, visual: VisualFeatures) -> Tensor:
        return self.dual_encoder.embed_visual(visual)

    def embed_text(self, text: TextBatch) -> Tensor:
        if text.placeholders:
            raise ValueError(
                f"{text.placeholders} places of this text wait for an image; give the images, too (embed_composed)."
            )
        return self.dual_encoder.embed_text(text)

    def embed_composed(self, visual: VisualFeatures, text: TextBatch) -> Tensor:
        words = self.pseudo_words(visual)
        if text.placeholders != len(words) or len(text.input_ids) != len(words):
            raise ValueError(
                f"{len(text.input_ids)} texts with {text.placeholders} placeholders for {len(words)} images: each text "
                "needs exactly one."
            )
        with putting_in(self.dual_encoder.text_encoder.word_table(), words, text.visual_mask):
            return self.dual_encoder.embed_text(text)

    def pseudo_words(self, visual: VisualFeatures) -> Tensor:
        """One word of each image: [B, D]."""
        words: Tensor = self.mapper(self.dual_encoder.project_visual(visual))
        return words

    def similarity_scale(self) -> Tensor:
        return self.dual_encoder.similarity_scale()
