"""Which words of a scene's caption say what is to be seen, and which other words would be as right."""

from vlmtrain.data.scenes.things import COLOURS, SHAPES
from vlmtrain.data.scenes.words import SIZE_WORDS, TEXTURE_AFTER, TEXTURE_BEFORE


class VisualWords:
    """Colours, shapes, sizes and textures; of sizes every word for the same size is right."""

    def __init__(self) -> None:
        known = {colour: ("colour", [colour]) for colour in COLOURS} | {shape: ("shape", [shape]) for shape in SHAPES}
        known |= {word: ("size", list(words)) for words in SIZE_WORDS.values() for word in words}
        for phrases in (*TEXTURE_BEFORE.values(), *TEXTURE_AFTER.values()):
            known |= {(word := phrase.split()[-1]): ("texture", [word]) for phrase in phrases}
        self._known = known

    def __call__(self, word: str) -> tuple[str, list[str]] | None:
        """Its kind and the words that are as right; None for a word that names nothing to be seen."""
        return self._known.get(word)
