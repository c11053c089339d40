"""An image encoder that learns to say what stands where (dense captioning: Johnson et al. 2016, "DenseCap")."""

from torch import nn

from vlmtrain.batch import IGNORED_TARGET, TargetStates, TextBatch, VisualBatch, VisualFeatures
from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.language_models.tokenizers import load_tokenizer
from vlmtrain.layout import Layout
from vlmtrain.layouts.pair import PairLayout


class RegionCaptioner(nn.Module):
    """Every word about a region is read from the one patch in its middle, whatever the words before.  WritesText.

    Texts name places as `data.scenes.regions` writes them: "[27] small red dotted ring [3] [3] ..." is about patch 27
    of the grid, which lies in row 3 and column 3.  Only a place that is not itself to be written opens a description.

    A contrastive loss over whole captions teaches an encoder that a star is in the picture; this one teaches it at
    once, and at the patch where the star is, which is what a connector has to read.

    Args:
        encoder: gives a grid of patches, a class token before them or not.
        tokenizer: of the words; a token for each place is added.
        num_places: patches of the grid.
        words_per_region: the longest description; every word, place and closing separator counts.
        max_tokens: longest text, places and special tokens included.
    """

    def __init__(
        self, encoder: VisionEncoder, tokenizer: str, num_places: int, words_per_region: int = 10, max_tokens: int = 64
    ) -> None:
        super().__init__()
        if num_places > encoder.patches_per_tile:
            raise ValueError(f"num_places {num_places} is more than the encoder's {encoder.patches_per_tile} patches")
        self.tokenizer = load_tokenizer(tokenizer)
        self.tokenizer.add_tokens([f"[{place}]" for place in range(num_places)])
        self.first_place = int(self.tokenizer.convert_tokens_to_ids("[0]"))
        self.num_places, self.words_per_region, self.max_tokens = num_places, words_per_region, max_tokens
        self.encoder = encoder
        self.to_words = nn.Linear(encoder.width, words_per_region * encoder.width)
        self.head = nn.Linear(encoder.width, len(self.tokenizer))

    def layout(self) -> Layout:
        return PairLayout(self.tokenizer, self.max_tokens)

    def placeholders_per_item(self, tiles: int) -> int:
        return 0

    def encode(self, visual: VisualBatch) -> VisualFeatures:
        return self.encoder(visual)

    def target_states(self, visual: VisualFeatures, text: TextBatch) -> TargetStates:
        """The state of word number k about a patch is what the k-th projection makes of that patch."""
        if text.targets is None:
            raise ValueError("These rows are prompts without targets; write them with Layout.write.")
        supervised = text.targets != IGNORED_TARGET
        opens = text.input_ids >= self.first_place
        opens[:, 1:] &= ~supervised[:, :-1]  # a row or column that is to be written opens nothing
        home, start = opens.nonzero(as_tuple=True)  # row and column where each region's description opens
        place = home * self.num_places + text.input_ids[opens] - self.first_place
        patches = visual.patches[:, -self.num_places :].flatten(0, 1).index_select(0, place)
        row, column = supervised.nonzero(as_tuple=True)
        region = opens.flatten().cumsum(0).view_as(opens)[row, column] - 1  # the last one opened
        if bool((region < 0).any()) or bool((home[region] != row).any()):
            raise ValueError(
                "a text is to be written before any place is named; use the form vlmtrain.data.scenes.regions"
            )
        word = column - start[region]
        if word.numel() and int(word.max()) >= self.words_per_region:
            raise ValueError(
                f"a region is described in more than {self.words_per_region} words; raise words_per_region"
            )
        states = self.to_words(patches).unflatten(-1, (self.words_per_region, -1))[region, word]
        return TargetStates(states, text.targets[row, column], self.head)
