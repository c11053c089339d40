"""What an objective may ask of a model.  A model offers a capability by having its methods; there is no base class."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from vlmtrain.batch import TargetStates, TextBatch, VisualBatch, VisualFeatures
from vlmtrain.layout import Layout


@runtime_checkable
class Trainable(Protocol):
    """What the trainer and the collator ask of every model."""

    def encode(self, visual: VisualBatch) -> VisualFeatures:
        """Pixels -> features that every other method takes.  Runs once per batch."""

    def layout(self) -> Layout:
        """How this model wants its text."""

    def placeholders_per_item(self, tiles: int) -> int:
        """How many text positions the collator must leave for an item of `tiles` tiles."""


@runtime_checkable
class EmbedsBoth(Trainable, Protocol):
    """Unit vectors of images and texts in one space."""

    def embed_visual(self, visual: VisualFeatures) -> Tensor: ...  # [B, Q, E]; Q = 1 for a plain dual encoder
    def embed_text(self, text: TextBatch) -> Tensor: ...  # [B, E]
    def similarity_scale(self) -> Tensor: ...  # scalar


@runtime_checkable
class EmbedsBothWithBias(EmbedsBoth, Protocol):
    """Similarities with a threshold: scale * cosine + bias above 0 means that image and text belong together."""

    def similarity_bias(self) -> Tensor: ...  # scalar


@runtime_checkable
class HasTeacher(EmbedsBoth, Protocol):
    """Learns beside a frozen model that embeds images and texts as well, in a space of its own."""

    def teach(self, visual: VisualBatch, text: TextBatch) -> tuple[Tensor, Tensor]: ...  # [B, Q, E], [B, E]
    def teacher_scale(self) -> Tensor: ...  # scalar


@runtime_checkable
class Composes(EmbedsBoth, Protocol):
    """Reads an image as a word of a text: the unit vector of row b with image b at its placeholder."""

    def embed_composed(self, visual: VisualFeatures, text: TextBatch) -> Tensor: ...  # [B, E]


@runtime_checkable
class MatchesPairs(Trainable, Protocol):
    """Judges whether image `image_of_row[r]` of `visual` and row r of `text` belong together."""

    def match(self, visual: VisualFeatures, text: TextBatch, image_of_row: Tensor) -> Tensor: ...  # [R] logits


@runtime_checkable
class WritesText(Trainable, Protocol):
    """Predicts `text.targets`, given the image and the text before (causal LM, prefix LM, captioning)."""

    def target_states(self, visual: VisualFeatures, text: TextBatch) -> TargetStates: ...


@runtime_checkable
class PredictsTokens(Trainable, Protocol):
    """Predicts the hidden tokens of row r from the words on both sides of them and from image `image_of_row[r]`.

    `text.targets[r, i]` is what stood at position i of the row, or IGNORED_TARGET (masked language modelling).
    """

    def hidden_states(self, visual: VisualFeatures, text: TextBatch, image_of_row: Tensor) -> TargetStates: ...


@dataclass(frozen=True)
class JudgedWords:
    """Whether R texts fit their images, as a whole and word by word."""

    words: Tensor  # [R, T] logits of "this word fits"
    word_mask: Tensor  # [R, T] bool, False on padding
    pairs: Tensor  # [R] logits, as MatchesPairs gives them


@runtime_checkable
class MatchesAndPredicts(MatchesPairs, PredictsTokens, Protocol):
    """Judges pairs, and fills hidden words in."""


@runtime_checkable
class JudgesWords(MatchesAndPredicts, Protocol):
    """Says in one pass which words of row r fit image `image_of_row[r]`, and what `match` says."""

    def judge_words(self, visual: VisualFeatures, text: TextBatch, image_of_row: Tensor) -> JudgedWords: ...


@dataclass(frozen=True)
class AlignedPairs:
    """Words and patches of R pairs after each has seen the other, in one space, and whether they belong together."""

    words: Tensor  # [R, T, D]
    word_mask: Tensor  # [R, T] bool, False on padding and on special tokens
    patches: Tensor  # [R, P, D]
    patch_mask: Tensor  # [R, P] bool, False on padding and on a class token
    logits: Tensor  # [R], as MatchesPairs gives them


@runtime_checkable
class AlignsWords(MatchesPairs, Protocol):
    """Gives, in one pass, what `match` says and what it says it by."""

    def align(self, visual: VisualFeatures, text: TextBatch, image_of_row: Tensor) -> AlignedPairs: ...


@runtime_checkable
class Captions(Trainable, Protocol):
    """Continues a prompt about an image."""

    def write(self, visual: VisualFeatures, text: TextBatch, max_new_tokens: int) -> Tensor: ...  # [B, new] ids
