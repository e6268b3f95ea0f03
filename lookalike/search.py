"""Search of a collection by image, text or item, and comparison of two embeddings.

The steps are separate methods, since the service runs them on different threads: `prepare_*` on any thread, `encode_*`
on the threads that own the device, `search_vectors` on any thread. `search_text`, `search_image` and `search_item` run
all steps, for the command line and for tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np

from lookalike import images
from lookalike.calibration import PairCalibration
from lookalike.collection import Collection
from lookalike.encoders.protocol import Encoder, TextEncoder
from lookalike.errors import EncoderError, InvalidLimit, QueryError, TextEmpty, TextTooLong, TextUnsupported
from lookalike.filters import Filter
from lookalike.messages import unknown_name
from lookalike.row_search import RowSearcher, SearchOptions
from lookalike.stopwatch import Stopwatch
from lookalike.stores.protocol import VectorStore
from lookalike.text import normalize_text
from lookalike.types import EncoderSpec, Float32, Hit, Int64, Neighbors, SearchResult, UInt8

Modality = Literal["image", "text"]
_DEFAULTS = SearchOptions()
_SPECIAL_TOKENS = 4
"""Tokens of a text beside those of its characters, such as its start and its end; no tokenizer here adds more."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a single query.

    Attributes:
        results: maximum `limit`.
        candidates: maximum `candidates` (rows to re-rank) and `efSearch`.
        text: maximum length of a text query, characters.
        pixels: maximum width x height of an image.
    """

    results: int = 1_000
    candidates: int = 10_000
    text: int = 1_000
    pixels: int = images.DEFAULT_MAX_PIXELS


@dataclass(frozen=True, slots=True)
class Embedding:
    """A unit vector of an image or a text.

    Attributes:
        vector: (d,) float32 of unit norm.
        modality: of its source.
        truncated_tokens: tokens at the end of a text that the encoder did not read.
    """

    vector: Float32
    modality: Modality
    truncated_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Similarity:
    """Similarity of two embeddings.

    Attributes:
        cosine: in [-1, 1].
        distance: 1 - cosine.
        threshold: the distance up to which a pair is similar.
        similar: distance <= threshold.
        probability: that the two belong together; None if the encoder is not calibrated for such a pair.
        truncated_tokens: of each side, tokens at the end of a text that the encoder did not read; 0 for images.
    """

    cosine: float
    distance: float
    threshold: float
    similar: bool
    probability: float | None = None
    truncated_tokens: tuple[int, int] = (0, 0)


class VectorSearcher:
    """Search of one opened collection by vectors and by its own items; needs no encoder. Safe to call from threads."""

    def __init__(self, collection: Collection, store: VectorStore, limits: Limits | None = None) -> None:
        self.collection = collection
        self.store = store
        self.limits = limits or Limits()
        self._rows = RowSearcher(store, collection.vectors, collection.metadata, self.limits.candidates)

    def item_vector(self, item_id: str) -> Float32:
        """Return the stored vector of an item, (d,) float32 of unit norm; raise UnknownItem if there is none."""
        vector = np.asarray(self.collection.vectors[self.collection.metadata.row_of(item_id)], np.float32)
        return vector / max(float(np.linalg.norm(vector)), 1e-12)

    def check_options(self, options: SearchOptions) -> None:
        """Check the options' ranges, before any work is done.

        Raises:
            InvalidLimit: `limit` is out of range.
            QueryError: a search parameter is too large, or a field is unknown.
        """
        if not 1 <= options.limit <= self.limits.results:
            raise InvalidLimit(f"limit is {options.limit}; it must be between 1 and {self.limits.results:,}")
        for name in ("candidates", "efSearch"):
            value = (options.params or {}).get(name, 0)
            if value > self.limits.candidates:
                raise QueryError(f"params.{name} is {value}; it must be at most {self.limits.candidates:,}")
        self.columns(options.fields)

    def columns(self, fields: Sequence[str] | None) -> list[str] | None:
        """Return the columns to read for records that have an id and `fields`; None for all columns.

        Raises:
            QueryError: a field is no column of the metadata.
        """
        if fields is None:
            return None
        known = self.collection.metadata.columns
        for name in fields:
            if name not in known:
                raise QueryError(f"fields: {unknown_name('metadata column', name, known)}")
        return list(dict.fromkeys(("id", *fields)))

    def filtered_rows(self, condition: Filter) -> Int64:
        """Return the rows that pass a filter, (m,) ascending. Raises FilterInvalid: it does not fit the metadata."""
        return self._rows.filtered_rows(condition)

    def search_vectors(self, queries: Float32, options: SearchOptions, stopwatch: Stopwatch) -> list[list[Hit]]:
        """Return the nearest items by exact cosine, best first, for each query.

        Args:
            queries: (q, d) float32 of unit norm.
            options: limit, filter and search parameters.
            stopwatch: times the stages filter, search, rerank and metadata.

        Raises:
            InvalidLimit: `limit` is out of range.
            FilterInvalid: the filter does not fit the metadata.
            QueryError: a search parameter is unknown or out of range.
        """
        self.check_options(options)
        results = self._rows.search(queries, options, stopwatch)
        with stopwatch.stage("metadata"):
            return self._hits(results, options.fields)

    def search_item(self, item_id: str, options: SearchOptions = _DEFAULTS) -> SearchResult:
        """Return the items nearest to an item of the collection, itself first."""
        stopwatch = Stopwatch()
        return SearchResult(
            self.search_vectors(self.item_vector(item_id)[None], options, stopwatch)[0], stopwatch.took_ms
        )

    def _hits(self, results: Sequence[Neighbors], fields: Sequence[str] | None) -> list[list[Hit]]:
        """Fetch all records in one call: one at a time would take several times as long."""
        rows = [neighbors.rows.tolist() for neighbors in results]
        records = iter(self.collection.metadata.records([row for each in rows for row in each], self.columns(fields)))
        return [
            [
                Hit(str(record.pop("id")), score, record, row)
                for row, score, record in zip(each, neighbors.scores.tolist(), islice(records, len(each)), strict=True)
            ]
            for each, neighbors in zip(rows, results, strict=True)
        ]


class Searcher(VectorSearcher):
    """Search of one opened collection with its store and its encoder, by text and by image as well.

    Raises:
        EncoderMismatch: the collection was made by another encoder.
    """

    def __init__(
        self, collection: Collection, store: VectorStore, encoder: Encoder, limits: Limits | None = None
    ) -> None:
        collection.require_encoder(encoder.spec)
        super().__init__(collection, store, limits)
        self.encoder = encoder
        self._text_encoder = encoder if isinstance(encoder, TextEncoder) else None

    def prepare_image(self, data: bytes, stopwatch: Stopwatch) -> UInt8:
        """Decode and preprocess the bytes of an image file to (3, S, S) uint8; raise ImageError if they are invalid."""
        with ExitStack() as decoded:
            with stopwatch.stage("decode"):
                target = self.encoder.preprocessing.resize
                decoded_image = decoded.enter_context(
                    images.open_decoded(data, max_pixels=self.limits.pixels, target=target)
                )
            with stopwatch.stage("preprocess"):
                return self.encoder.preprocess(decoded_image.image)

    def prepare_text(self, text: str) -> str:
        """Return the text for the encoder, normalized; see `lookalike.text`.

        Raises:
            TextEmpty: the text has no visible character.
            TextTooLong: the text exceeds the limit.
            QueryError: the text is not valid Unicode.
            TextUnsupported: the encoder has no text tower here.
        """
        if not self.encoder.spec.text:
            spec = self.encoder.spec
            raise TextUnsupported(f"encoder {spec.name!r} has no text tower here: {spec.text_hint}")
        stripped = text.strip()
        require_unicode(stripped)
        if len(stripped) > self.limits.text:
            raise TextTooLong(f"the text has {len(stripped):,} characters; the limit is {self.limits.text:,}")
        normalized = normalize_text(stripped)
        if not normalized:
            raise TextEmpty("the text is empty; describe what to search for")
        return normalized

    def reads_whole(self, text: str) -> bool:
        """Return whether the encoder surely reads all of a prepared text; takes no time.

        An ASCII character is one token at most, so a short text needs no tokenizer to be sure.
        """
        limit = None if self._text_encoder is None else self._text_encoder.max_tokens
        return limit is None or (text.isascii() and len(text) + _SPECIAL_TOKENS <= limit)

    def truncated_tokens(self, text: str) -> int:
        """Return the number of tokens at the end of a prepared text that the encoder does not read."""
        if self._text_encoder is None or self.reads_whole(text):
            return 0
        return self._text_encoder.truncated_tokens(text)

    def encode_images(self, batch: UInt8, stopwatch: Stopwatch) -> Float32:
        """Encode (n, 3, S, S) uint8 to (n, d) float32 of unit norm."""
        with stopwatch.stage("encode"):
            return _finite(self.encoder.encode_images(batch))

    def encode_texts(self, texts: Sequence[str], stopwatch: Stopwatch) -> Float32:
        """Encode prepared texts to (n, d) float32 of unit norm."""
        if self._text_encoder is None:
            raise TextUnsupported(f"encoder {self.encoder.spec.name!r} has no text tower")
        with stopwatch.stage("encode"):
            return _finite(self._text_encoder.encode_texts(texts))

    def warm_up(self, texts: int) -> None:
        """Encode dummy batches, so that the first concurrent queries need not wait for a compiler."""
        side = self.encoder.spec.image_size
        count = self.encoder.image_batch_size + 1  # a full batch, and a batch of one
        self.encode_images(np.zeros((count, 3, side, side), np.uint8), Stopwatch())
        if self.encoder.spec.text:
            self.encode_texts(["a photograph"] * texts, Stopwatch())

    def search_text(self, text: str, options: SearchOptions = _DEFAULTS) -> SearchResult:
        """Return the items nearest to a text."""
        stopwatch = Stopwatch()
        prepared = self.prepare_text(text)
        hits = self.search_vectors(self.encode_texts([prepared], stopwatch), options, stopwatch)[0]
        return SearchResult(hits, stopwatch.took_ms, self.truncated_tokens(prepared))

    def search_image(self, data: bytes, options: SearchOptions = _DEFAULTS) -> SearchResult:
        """Return the items nearest to an image file."""
        stopwatch = Stopwatch()
        vectors = self.encode_images(self.prepare_image(data, stopwatch)[None], stopwatch)
        return SearchResult(self.search_vectors(vectors, options, stopwatch)[0], stopwatch.took_ms)


def require_unicode(text: str) -> None:
    """Raise QueryError for a text with a lone surrogate, which tokenizers can't read."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise QueryError(f"the text is not valid Unicode: {text[error.start]!a} at position {error.start}") from error


def _finite(vectors: Float32) -> Float32:
    """Return the vectors; raise EncoderError if one is not finite, which is not the query's fault."""
    if not np.isfinite(vectors).all():
        raise EncoderError("the encoder returned a vector that is not finite")
    return vectors


def compare(a: Embedding, b: Embedding, spec: EncoderSpec, threshold: float | None = None) -> Similarity:
    """Compare two unit vectors.

    Args:
        a: the first embedding.
        b: the second embedding.
        spec: the encoder, whose calibration or else default thresholds apply to the modalities of the two.
        threshold: a cosine distance in [0, 2] to use instead.
    """
    cosine = float(np.clip(np.dot(a.vector.astype(np.float64), b.vector.astype(np.float64)), -1.0, 1.0))
    curve = _calibration(a.modality, b.modality, spec)
    limit = threshold if threshold is not None else _default_threshold(a.modality, b.modality, spec)
    distance = 1.0 - cosine
    probability = None if curve is None else curve.probability(cosine)
    truncated_tokens = a.truncated_tokens, b.truncated_tokens
    return Similarity(cosine, distance, limit, distance <= limit, probability, truncated_tokens)


def _calibration(a: Modality, b: Modality, spec: EncoderSpec) -> PairCalibration | None:
    if spec.calibration is None or a == b == "text":
        return None
    return spec.calibration.image_image if a == b else spec.calibration.image_text


def _default_threshold(a: Modality, b: Modality, spec: EncoderSpec) -> float:
    measured = _calibration(a, b, spec)
    if measured is not None:
        return measured.threshold
    if a != b:
        return spec.thresholds.image_text
    return spec.thresholds.image_image if a == "image" else spec.thresholds.text_text
