"""Pairs of which no query has more than so many: a few common subjects no longer crowd out the many rare ones."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vlmtrain.data.keys import key_of
from vlmtrain.data.record import BrokenSample
from vlmtrain.data.sources.base import Source
from vlmtrain.data.subset import Subset


class QueryBalanced:
    """`data` with only those pairs of training whose captions hold a query, at most `most_per_query` of each.

    CLIP (Radford et al. 2021, arXiv:2103.00020, section 2.2) built its data from 500 000 queries, 20 000 pairs each.
    A pair that holds several queries counts for all of them and needs room in each, so that no query is ever above the
    cap.  Which pairs stay is drawn from `seed` and their keys: the order of the data has no part in it.  Every record
    of training is read once at the start; a broken one is left out.

    Args:
        data: any data; its evaluation stays as it is.
        queries: a list, or a file with one a line.  One is held where its words follow each other in a caption.
        most_per_query: pairs kept.
        seed: of the draw.
    """

    together = 1

    def __init__(self, data: Any, queries: str | list[str], most_per_query: int = 20_000, seed: int = 0) -> None:
        wanted = read_queries(queries)
        if most_per_query < 1 or not wanted:
            raise ValueError(f"most_per_query={most_per_query} must be 1 or more, and there are {len(wanted)} queries")
        if data.together != 1:
            raise ValueError("this data has samples that must come together, and balancing would tear them apart")
        kept = choose(data.train, wanted, most_per_query, seed)
        if not kept:
            raise ValueError(f"no caption of {data.train.name} holds any of the {len(wanted)} queries")
        self.train: Source = Subset(data.train, kept, f"at most {most_per_query} of each query")
        self.evaluation: dict[str, Source] = data.evaluation


def read_queries(queries: str | list[str]) -> list[tuple[str, ...]]:
    """The words of each query, in small letters, empty ones left out."""
    if isinstance(queries, str):
        file = Path(queries).expanduser()
        if not file.is_file():
            raise ValueError(f"queries={queries}: there is no such file; give one with a query on each line, or a list")
        queries = file.read_text("utf-8").splitlines()
    return [words for query in queries if (words := tuple(query.casefold().split()))]


def choose(source: Source, queries: Sequence[tuple[str, ...]], most_per_query: int, seed: int) -> list[int]:
    """Numbers of the pairs that are kept, in the order of the source."""
    known = frozenset(queries)
    lengths = sorted({len(query) for query in known})
    held = {index: found for index in range(len(source)) if (found := _queries_of(source, index, known, lengths))}
    taken: Counter[tuple[str, ...]] = Counter()
    kept = []
    for index in sorted(held, key=lambda index: (key_of("query balance", seed, source.key(index)), index)):
        if all(taken[query] < most_per_query for query in held[index]):
            taken.update(held[index])
            kept.append(index)
    return sorted(kept)


def _queries_of(
    source: Source, index: int, known: frozenset[tuple[str, ...]], lengths: Sequence[int]
) -> set[tuple[str, ...]]:
    """Those that any caption of the record holds."""
    try:
        captions = source.read(index).captions
    except BrokenSample:
        return set()
    return {words for caption in captions for words in _stretches(caption, lengths) if words in known}


def _stretches(caption: str, lengths: Sequence[int]) -> Iterator[tuple[str, ...]]:
    words = [word.strip(".,;:!?\"'()") for word in caption.casefold().split()]
    for length in lengths:
        for start in range(len(words) - length + 1):
            yield tuple(words[start : start + length])
