"""Reads a caption back into the things and relations that it claims."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from vlmtrain.data.scenes.things import COLOURS, SHAPES
from vlmtrain.data.scenes.words import OPENINGS, RELATION_OF, SIDE_OF, SIZE_OF, TEXTURE_OF, TEXTURE_OF_ENDING

Meaning = TypeVar("Meaning")
_MOST_NAMED = 6


class ParseError(ValueError):
    """The text is no caption; the message says where it stops being one."""


@dataclass(frozen=True, slots=True)
class Named:
    """The attributes that a caption gives one thing."""

    size: str
    colour: str
    texture: str
    shape: str

    @property
    def attributes(self) -> tuple[str, str, str, str]:
        return self.size, self.colour, self.texture, self.shape

    def __str__(self) -> str:
        return " ".join(self.attributes)


@dataclass(frozen=True, slots=True)
class Description:
    """What a caption claims: things in the order named, and relations between them by their places in that order."""

    things: tuple[Named, ...]
    relations: tuple[tuple[int, str, int], ...]


def parse(text: str) -> Description:
    """The claims of a caption in any of the wordings; a ParseError says why a text is not one."""
    reader = _Reader(text.lower().strip().rstrip(".").replace(",", " , ").split())
    if not reader.tokens:
        raise ParseError("the caption is empty")
    fronted = reader.one_of(RELATION_OF)
    if fronted is not None:
        return _fronted(reader, fronted)
    reader.one_of({opening: True for opening in OPENINGS})
    claims = _Claims([_thing(reader)])
    while not reader.at_end:
        _clause(reader, claims)
    return Description(tuple(claims.things), tuple(claims.relations))


@dataclass(slots=True)
class _Claims:
    """What has been read so far; the subject is whom the next relation is about, None where that is not plain."""

    things: list[Named]
    relations: list[tuple[int, str, int]] = field(default_factory=list)
    subject: int | None = 0

    def add(self, thing: Named) -> int:
        if len(self.things) == _MOST_NAMED:
            raise ParseError(f"names more than {_MOST_NAMED} things")
        self.things.append(thing)
        return len(self.things) - 1


class _Reader:
    """A place in a list of words."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.place = 0

    @property
    def at_end(self) -> bool:
        return self.place == len(self.tokens)

    @property
    def next_word(self) -> str:
        return "the end" if self.at_end else repr(self.tokens[self.place])

    def one_of(self, phrases: Mapping[str, Meaning]) -> Meaning | None:
        """The meaning of the phrase that comes next, which is then read; None if none of them does."""
        for phrase, meaning in phrases.items():
            words = phrase.split()
            if self.tokens[self.place : self.place + len(words)] == words:
                self.place += len(words)
                return meaning
        return None

    def word(self, word: str) -> bool:
        return self.one_of({word: True}) is not None

    def expect(self, phrases: Mapping[str, Meaning], what: str) -> Meaning:
        meaning = self.one_of(phrases)
        if meaning is None:
            raise ParseError(f"expected {what} at word {self.place + 1}, found {self.next_word}")
        return meaning


_COLOUR_WORDS = {colour: colour for colour in COLOURS}
_SHAPE_WORDS = {shape: shape for shape in SHAPES}


def _thing(reader: _Reader) -> Named:
    reader.expect({"a": True}, "'a'")
    size = reader.expect(SIZE_OF, "a size")
    texture = reader.one_of(TEXTURE_OF)
    colour = reader.expect(_COLOUR_WORDS, "a colour")
    texture = texture or reader.one_of(TEXTURE_OF)
    shape = reader.expect(_SHAPE_WORDS, "a shape")
    texture = texture or reader.one_of(TEXTURE_OF_ENDING)
    if texture is None:
        raise ParseError(f"the {size} {colour} {shape} has no texture")
    return Named(size, colour, texture, shape)


def _fronted(reader: _Reader, relation: str) -> Description:
    first = _thing(reader)
    reader.expect({"is": True, "there is": True}, "'is'")
    second = _thing(reader)
    if not reader.at_end:
        raise ParseError(f"expected the end at word {reader.place + 1}, found {reader.next_word}")
    return Description((first, second), ((1, relation, 0),))


def _clause(reader: _Reader, claims: _Claims) -> None:
    """One more thing, with its relation to the subject if it has one."""
    if reader.word(","):
        if reader.word("which is"):
            _relative_clause(reader, claims)
            return
        reader.word("and")
        _listed(reader, claims)
        return
    if reader.word("with"):
        _at_side(reader, claims, required=True)
        return
    joined = reader.word("and")
    reader.word("is")
    relation = reader.one_of(RELATION_OF)
    if relation is not None:
        if claims.subject is None:
            raise ParseError(f"it is not plain what is {relation}, at word {reader.place}")
        subject = claims.subject
        claims.relations.append((subject, relation, claims.add(_thing(reader))))
    elif joined:
        _listed(reader, claims)
    else:
        raise ParseError(f"expected a relation at word {reader.place + 1}, found {reader.next_word}")


def _relative_clause(reader: _Reader, claims: _Claims) -> None:
    relation = reader.expect(RELATION_OF, "a relation")
    subject = len(claims.things) - 1
    claims.relations.append((subject, relation, claims.add(_thing(reader))))
    claims.subject = None


def _listed(reader: _Reader, claims: _Claims) -> None:
    """A thing after a comma or and: at the subject's side if it says so, otherwise only named."""
    if not _at_side(reader, claims, required=False):
        claims.subject = None


def _at_side(reader: _Reader, claims: _Claims, required: bool) -> bool:
    thing = claims.add(_thing(reader))
    relation = reader.expect(SIDE_OF, "a side") if required else reader.one_of(SIDE_OF)
    if relation is None:
        return False
    if claims.subject is None:
        raise ParseError(f"it is not plain what 'it' is, at word {reader.place}")
    claims.relations.append((thing, relation, claims.subject))
    return True
