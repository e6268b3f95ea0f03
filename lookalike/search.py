"""The one use case: an image, a text or an item in, the nearest items of a collection out; or two of them compared.

The steps are separate, since the service runs them on different threads: `prepare_*` (any thread, pure CPU), `encode_*`
(the threads that own the device), `search_vectors` (any thread). `search_*` and `similarity` walk all of them, for the
shell and for tests. It knows nothing of HTTP.
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
from lookalike.row_search import RowSearcher, SearchOptions
from lookalike.stopwatch import Stopwatch
from lookalike.stores.protocol import VectorStore
from lookalike.types import EncoderSpec, Float32, Hit, Neighbors, SearchResult, UInt8

Kind = Literal["image", "text"]
_DEFAULTS = SearchOptions()


@dataclass(frozen=True, slots=True)
class Limits:
    """What a single query may ask for.

    Attributes:
        results: the largest `limit`.
        candidates: the most rows that a query may have re-ranked, or kept in sight on a graph.
        text: the longest text query, characters.
        pixels: the largest image, width x height.
    """

    results: int = 1_000
    candidates: int = 10_000
    text: int = 1_000
    pixels: int = images.DEFAULT_MAX_PIXELS


@dataclass(frozen=True, slots=True)
class Embedding:
    """A unit vector (d,) float32 and what it was made of."""

    vector: Float32
    kind: Kind


@dataclass(frozen=True, slots=True)
class Similarity:
    """Two sides compared: cosine in [-1, 1], distance = 1 - cosine, `similar` = distance <= threshold.

    `probability` that they belong together is None where the encoder was never calibrated for such a pair.
    """

    cosine: float
    distance: float
    threshold: float
    similar: bool
    probability: float | None = None


class Searcher:
    """One opened collection with its store and its encoder.

    Raises:
        EncoderMismatch: the encoder did not make this collection.
    """

    def __init__(
        self, collection: Collection, store: VectorStore, encoder: Encoder, limits: Limits | None = None
    ) -> None:
        collection.require_encoder(encoder.spec)
        self.collection = collection
        self.store = store
        self.encoder = encoder
        self.limits = limits or Limits()
        self._rows = RowSearcher(store, collection.vectors, collection.metadata, self.limits.candidates)

    def prepare_image(self, data: bytes, watch: Stopwatch) -> UInt8:
        """File bytes -> (3, S, S) uint8. Raises ImageError."""
        with ExitStack() as decoded:
            with watch.stage("decode"):
                target = self.encoder.preprocessing.resize
                decoded_image = decoded.enter_context(
                    images.open_decoded(data, max_pixels=self.limits.pixels, target=target)
                )
            with watch.stage("preprocess"):
                return self.encoder.preprocess(decoded_image.image)

    def prepare_text(self, text: str) -> str:
        """The query as the text tower gets it: white space at the ends removed.

        Raises:
            TextEmpty, TextTooLong, TextUnsupported: as their names say.
        """
        if not self.encoder.spec.text:
            mend = "pip install 'lookalike[text]'" if self.encoder.spec.name == "lite" else "search by image"
            raise TextUnsupported(f"encoder {self.encoder.spec.name!r} has no text tower here: {mend}")
        cleaned = text.strip()
        if not cleaned:
            raise TextEmpty("the text is empty; say what to look for")
        if len(cleaned) > self.limits.text:
            raise TextTooLong(f"the text has {len(cleaned):,} characters; at most {self.limits.text:,} are taken")
        return cleaned

    def encode_images(self, batch: UInt8, watch: Stopwatch) -> Float32:
        """(n, 3, S, S) uint8 -> (n, d) float32 of unit norm."""
        with watch.stage("encode"):
            return _finite(self.encoder.encode_images(batch))

    def encode_texts(self, texts: Sequence[str], watch: Stopwatch) -> Float32:
        """Prepared texts -> (n, d) float32 of unit norm."""
        if not isinstance(self.encoder, TextEncoder):
            raise TextUnsupported(f"encoder {self.encoder.spec.name!r} has no text tower")
        with watch.stage("encode"):
            return _finite(self.encoder.encode_texts(texts))

    def warm_up(self, texts: int) -> None:
        """Encodes batches of nothing, so that the first queries that come together need not wait for a compiler."""
        side = self.encoder.spec.image_size
        count = self.encoder.image_batch + 1  # a full batch, and one that comes beside it
        self.encode_images(np.zeros((count, 3, side, side), np.uint8), Stopwatch())
        if self.encoder.spec.text:
            self.encode_texts(["a photograph"] * texts, Stopwatch())

    def item_vector(self, item_id: str) -> Float32:
        """The stored vector of an item, (d,) float32 of unit norm. Raises UnknownItem."""
        vector = np.asarray(self.collection.vectors[self.collection.metadata.row_of(item_id)], np.float32)
        return vector / max(float(np.linalg.norm(vector)), 1e-12)

    def check_options(self, options: SearchOptions) -> None:
        """Refuses what is out of range, before any work is done.

        Raises:
            InvalidLimit: `limit` is.
            QueryError: a search parameter is.
        """
        if not 1 <= options.limit <= self.limits.results:
            raise InvalidLimit(f"limit is {options.limit}; it must be between 1 and {self.limits.results:,}")
        for name in ("candidates", "efSearch"):
            asked = (options.params or {}).get(name, 0)
            if asked > self.limits.candidates:
                raise QueryError(f"params.{name} is {asked}; at most {self.limits.candidates:,} are taken")

    def search_vectors(self, queries: Float32, options: SearchOptions, watch: Stopwatch) -> list[list[Hit]]:
        """Nearest items by exact cosine.

        Args:
            queries: (q, d) float32 of unit norm.
            options: how many, which, and how thoroughly.
            watch: gets the stages filter, search, rerank and metadata.

        Raises:
            InvalidLimit, FilterInvalid, QueryError: what `options` ask for can't be given.
        """
        self.check_options(options)
        found = self._rows.search(queries, options, watch)
        with watch.stage("metadata"):
            return self._hits(found)

    def search_text(self, text: str, options: SearchOptions = _DEFAULTS) -> SearchResult:
        """Text -> nearest items."""
        watch = Stopwatch()
        vectors = self.encode_texts([self.prepare_text(text)], watch)
        return SearchResult(self.search_vectors(vectors, options, watch)[0], watch.took_ms)

    def search_image(self, data: bytes, options: SearchOptions = _DEFAULTS) -> SearchResult:
        """Image file -> nearest items."""
        watch = Stopwatch()
        vectors = self.encode_images(self.prepare_image(data, watch)[None], watch)
        return SearchResult(self.search_vectors(vectors, options, watch)[0], watch.took_ms)

    def search_item(self, item_id: str, options: SearchOptions = _DEFAULTS) -> SearchResult:
        """Item of the collection -> nearest items, itself first."""
        watch = Stopwatch()
        return SearchResult(self.search_vectors(self.item_vector(item_id)[None], options, watch)[0], watch.took_ms)

    def _hits(self, found: Sequence[Neighbors]) -> list[list[Hit]]:
        """All records are fetched at once: one by one they would take several times as long."""
        rows = [neighbors.rows.tolist() for neighbors in found]
        records = iter(self.collection.metadata.records([row for each in rows for row in each]))
        return [
            [
                Hit(str(record.pop("id")), score, record, row)
                for row, score, record in zip(each, neighbors.scores.tolist(), islice(records, len(each)), strict=True)
            ]
            for each, neighbors in zip(rows, found, strict=True)
        ]


def _finite(vectors: Float32) -> Float32:
    """The vectors. Raises EncoderError: the query is not to blame for what is none."""
    if not np.isfinite(vectors).all():
        raise EncoderError("the encoder gave a vector that is not finite")
    return vectors


def compare(a: Embedding, b: Embedding, spec: EncoderSpec, threshold: float | None = None) -> Similarity:
    """Compares two unit vectors.

    Args:
        a: one side.
        b: the other side.
        spec: the encoder's: its calibration, or else its default thresholds, by the kinds of the two sides.
        threshold: a cosine distance in [0, 2] that overrides them.
    """
    cosine = float(np.clip(np.dot(a.vector.astype(np.float64), b.vector.astype(np.float64)), -1.0, 1.0))
    curve = _calibration(a.kind, b.kind, spec)
    limit = threshold if threshold is not None else _default_threshold(a.kind, b.kind, spec)
    distance = 1.0 - cosine
    probability = None if curve is None else curve.probability(cosine)
    return Similarity(cosine, distance, limit, distance <= limit, probability)


def _calibration(a: Kind, b: Kind, spec: EncoderSpec) -> PairCalibration | None:
    if spec.calibration is None or a == b == "text":
        return None
    return spec.calibration.image_image if a == b else spec.calibration.image_text


def _default_threshold(a: Kind, b: Kind, spec: EncoderSpec) -> float:
    measured = _calibration(a, b, spec)
    if measured is not None:
        return measured.threshold
    if a != b:
        return spec.thresholds.image_text
    return spec.thresholds.image_image if a == "image" else spec.thresholds.text_text
