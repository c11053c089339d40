"""The closed vocabulary of captions: which words may stand for which fact."""

from vlmtrain.data.scenes.things import COLOURS, SHAPES

SIZE_WORDS = {"small": ("small", "little"), "large": ("large", "big")}
TEXTURE_BEFORE = {"plain": ("plain",), "striped": ("striped",), "dotted": ("dotted",)}
TEXTURE_AFTER = {"striped": ("with stripes",), "dotted": ("with dots",)}
RELATION_PHRASES = {
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
SIDE_PHRASES = {
    "left": ("to its left",),
    "right": ("to its right",),
    "above": ("above it", "over it"),
    "below": ("below it", "under it"),
}
OPENINGS = ("there is", "here is", "a picture of", "the picture shows")

SIZE_OF = {word: size for size, words in SIZE_WORDS.items() for word in words}
TEXTURE_OF = {word: texture for texture, words in TEXTURE_BEFORE.items() for word in words}
TEXTURE_OF_ENDING = {words: texture for texture, endings in TEXTURE_AFTER.items() for words in endings}
RELATION_OF = {phrase: relation for relation, phrases in RELATION_PHRASES.items() for phrase in phrases}
SIDE_OF = {phrase: relation for relation, phrases in SIDE_PHRASES.items() for phrase in phrases}


def vocabulary() -> list[str]:
    """Every word and mark that a caption can hold, in alphabetical order."""
    phrases = [*SIZE_OF, *TEXTURE_OF, *TEXTURE_OF_ENDING, *RELATION_OF, *SIDE_OF, *OPENINGS, *COLOURS, *SHAPES]
    return sorted({word for phrase in (*phrases, "a is there which and with ,") for word in phrase.split()})
