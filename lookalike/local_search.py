"""Search by queries of one or several parts in this process, for the Python API and the shell.

Texts and images of many queries are encoded in common batches. An error of one query costs no other.

Dimension letters: d embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from lookalike.cores import available_cores
from lookalike.errors import LookalikeError, QueryError
from lookalike.image_inputs import preprocess
from lookalike.query import combine, unit_embedding
from lookalike.query_parts import WeightedInput, modality
from lookalike.row_search import SearchOptions
from lookalike.search import Modality, Searcher, VectorSearcher
from lookalike.stopwatch import Stopwatch
from lookalike.types import Float32, SearchResult

_BATCH_SIZE = 64
"""Texts or images that are encoded at once."""
_QUERIES_AT_ONCE = 256
"""Queries whose pixels are in memory at once."""
QueryFailure = LookalikeError | TypeError
"""What makes a query fail alone."""


@dataclass(slots=True)
class _Part:
    """A part on its way to its vector (d,), and what the encoder takes for it until then."""

    kind: str
    weight: float
    vector: Any = None
    prepared: Any = None
    truncated_tokens: int = 0


@dataclass(slots=True)
class _Query:
    """A query on its way to its result."""

    parts: list[_Part]
    modality: Modality | None
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    warnings: list[str] = field(default_factory=list)
    outcome: SearchResult | QueryFailure | None = None

    @property
    def vector(self) -> Float32:
        """The unit vector (d,) of the encoded parts. Raises QueryError."""
        return combine(np.stack([part.vector for part in self.parts]), [part.weight for part in self.parts])


class LocalSearcher:
    """Search of a collection by parts. The first part that needs the encoder loads it. Safe to call from threads."""

    def __init__(
        self,
        searcher: VectorSearcher,
        with_encoder: Callable[[], Searcher],
        encoding: AbstractContextManager[object] | None = None,
    ) -> None:
        """`with_encoder` returns the searcher with its encoder, and `encoding` is held while that encodes."""
        self._searcher, self._with_encoder = searcher, with_encoder
        self._encoding = encoding or nullcontext()

    def search(self, parts: Sequence[WeightedInput], options: SearchOptions) -> SearchResult:
        """Return the items nearest to the sum of a query's weighted parts.

        A single part of positive weight gives the result of `search_text`, `search_image` or `search_item`.

        Raises:
            QueryError: an option is out of range (checked first), a part does not fit, all weights are zero, or the
                parts cancel each other out.
            ImageError: an image can't be decoded.
            SourceError: an image's file can't be read.
            EncoderError: the encoder can't be loaded, or has no text tower.
            TypeError: a value of another type.
        """
        result = self.search_batch([parts], options)[0]
        if isinstance(result, Exception):
            raise result
        return result

    def search_batch(
        self, queries: Sequence[Sequence[WeightedInput]], options: SearchOptions
    ) -> list[SearchResult | QueryFailure]:
        """Return for each query its result, or the error that `search` raises for it.

        Raises:
            FilterInvalid: the filter does not fit the metadata.
            QueryError: the store has no search parameter of that name.
        """
        results: list[SearchResult | QueryFailure] = []
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            results += self._search_some(queries[start : start + _QUERIES_AT_ONCE], options)
        return results

    def _search_some(
        self, queries: Sequence[Sequence[WeightedInput]], options: SearchOptions
    ) -> list[SearchResult | QueryFailure]:
        opened = [_Query([_Part(part.kind, part.weight) for part in parts], modality(parts)) for parts in queries]
        if len(opened) == 1:
            self._prepare(opened[0], queries[0], options)
        else:
            with ThreadPoolExecutor(available_cores(), "decode") as pool:
                list(pool.map(lambda query, parts: self._prepare(query, parts, options), opened, queries))
        self._encode(opened, "text")
        self._encode(opened, "image")
        for kind in dict.fromkeys(query.modality for query in opened):
            self._rank([query for query in opened if query.modality == kind], options, kind)
        return [cast(SearchResult | QueryFailure, query.outcome) for query in opened]

    def _prepare(self, query: _Query, inputs: Sequence[WeightedInput], options: SearchOptions) -> None:
        """Check a query, and do what needs no lock."""
        try:
            self._searcher.check_options(options, query.modality)
            for position, (part, given) in enumerate(zip(query.parts, inputs, strict=True)):
                self._prepare_part(query, part, given.value, f"query[{position}].{given.kind}")
        except (LookalikeError, TypeError) as error:
            query.outcome = error
            query.parts.clear()

    def _prepare_part(self, query: _Query, part: _Part, value: Any, name: str) -> None:
        if part.kind == "id":
            part.vector = self._searcher.item_vector(string("id", value))
        elif part.kind == "embedding":
            part.vector, warning = unit_embedding(value, self._searcher.store.dim, name)
            query.warnings += [warning] if warning else []
        elif part.kind == "text":
            text = string("text", value)
            part.prepared = self._with_encoder().prepare_text(text)
        else:
            searcher = self._with_encoder()
            part.prepared = preprocess(value, searcher.encoder, searcher.limits.pixels, query.stopwatch)

    def _encode(self, queries: Sequence[_Query], kind: str) -> None:
        """Encode the parts of one kind in batches; each query's time is that of its batches."""
        pending = [(query, part) for query in queries for part in query.parts if part.kind == kind]
        if not pending:
            return
        searcher = self._with_encoder()
        for start in range(0, len(pending), _BATCH_SIZE):
            batch, stopwatch = pending[start : start + _BATCH_SIZE], Stopwatch()
            prepared = [part.prepared for _, part in batch]
            with self._encoding:
                if kind == "text":
                    vectors = searcher.encode_texts(prepared, stopwatch)
                else:
                    vectors = searcher.encode_images(np.stack(prepared), stopwatch)
            for (_, part), vector in zip(batch, vectors, strict=True):
                part.vector = vector
                part.truncated_tokens = searcher.truncated_tokens(part.prepared) if kind == "text" else 0
                part.prepared = None
            _add_times({id(query): query for query, _ in batch}.values(), stopwatch)

    def _rank(self, queries: Sequence[_Query], options: SearchOptions, kind: Modality | None) -> None:
        """Search for queries of one kind."""
        vectors, ready = [], []
        for query in queries:
            try:
                if query.outcome is None:
                    vectors.append(query.vector)
                    ready.append(query)
            except QueryError as error:
                query.outcome = error
        if not ready:
            return
        stopwatch = Stopwatch()
        ranked = self._searcher.search_vectors(np.stack(vectors), options, stopwatch, kind)
        _add_times(ready, stopwatch)
        for query, found in zip(ready, ranked, strict=True):
            truncated = sum(part.truncated_tokens for part in query.parts)
            query.outcome = SearchResult(found.hits, query.stopwatch.took_ms, truncated, found.no_match, query.warnings)


def string(name: str, value: object) -> str:
    """Return a value that must be a string; raise TypeError for another one."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    return value


def _add_times(queries: Iterable[_Query], stopwatch: Stopwatch) -> None:
    for query in queries:
        for stage, milliseconds in stopwatch.took_ms.items():
            query.stopwatch.add(stage, milliseconds / 1000.0)
