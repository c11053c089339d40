"""From the vector of an image to a word that a text encoder reads (Pic2Word)."""

from itertools import pairwise

from torch import Tensor, nn


class WordMapper(nn.Sequential):
    """The mapping network f_M of Pic2Word (Saito et al. 2023, arXiv:2302.03084, section 3.2): an MLP.

    Args:
        embedding_width: E, of the image's vector.
        word_width: of the text encoder's input embeddings.
        hidden_width: of every hidden layer; 512 in the authors' code.
        depth: hidden layers; 2 there, each with dropout before its ReLU.
        dropout: 0.1 there.
    """

    def __init__(
        self, embedding_width: int, word_width: int, hidden_width: int = 512, depth: int = 2, dropout: float = 0.1
    ) -> None:
        if depth < 0 or hidden_width < 1:
            raise ValueError(f"depth {depth} and hidden_width {hidden_width}: give 0 or more layers, at least 1 wide.")
        widths = [embedding_width, *[hidden_width] * depth]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.Dropout(dropout), nn.ReLU()]
        super().__init__(*layers, nn.Linear(widths[-1], word_width))

    def forward(self, vectors: Tensor) -> Tensor:
        """[B, E] -> [B, word_width]"""
        words: Tensor = super().forward(vectors)
        return words
