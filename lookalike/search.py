"""Search of a collection by image, text or item, and comparison of two embeddings.

The steps are separate methods, since the service runs them on different threads: `prepare_*` on any thread, `encode_*`
on the threads that own the device, `search_vectors` on any thread. `search_text`, `search_image` and `search_item` run
all steps, for the command line and for tests.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, Self, get_args

import numpy as np

from lookalike import images
from lookalike.calibration import Calibration, PairCalibration
from lookalike.collection import Collection
from lookalike.encoders.protocol import Encoder, TextEncoder
from lookalike.errors import EncoderError, InvalidLimit, QueryError, TextEmpty, TextTooLong, TextUnsupported
from lookalike.filters import Filter
from lookalike.item_table import ItemTable
from lookalike.match_calibration import MatchCalibration
from lookalike.rerank import normalized_rows
from lookalike.result_selection import Probabilities, ResultSelector, Selected
from lookalike.row_search import RowSearch, RowSearcher, SearchOptions
from lookalike.stopwatch import Stopwatch
from lookalike.stores.protocol import VectorStore
from lookalike.text import normalize_text
from lookalike.types import Bool, EncoderSpec, Float32, Float64, Hit, Int64, SearchResult, UInt8
from lookalike.writes.live_collection import ExtendedColumns, LiveCollection
from lookalike.writes.row_search import LiveRowSearcher

Modality = Literal["image", "text"]
_DEFAULTS = SearchOptions()
_SPECIAL_TOKENS = 4
"""Tokens of a text beside those of its characters, such as its start and its end; no tokenizer here adds more."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a single query.

    Attributes:
        results: maximum `limit`.
        candidates: maximum `candidates` (rows to re-rank), `efSearch`, and `offset` + `limit`.
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
class RankedHits:
    """The results of one query.

    Attributes:
        hits: best first.
        no_match: whether even the query's best item hardly matches it; None where that is not calibrated.
    """

    hits: list[Hit]
    no_match: bool | None


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

    def __init__(
        self,
        collection: Collection,
        store: VectorStore,
        limits: Limits | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        """`calibration` is the encoder's."""
        self.store = store
        self.limits = limits or Limits()
        self._calibration = calibration
        self._search_in(collection, RowSearcher(store, collection.vectors, collection.metadata, self.limits.candidates))

    def _search_in(
        self,
        collection: Collection,
        rows: RowSearch,
        live: Callable[[], Bool] | None = None,
        positions: Callable[[], Int64 | None] = lambda: None,
    ) -> None:
        """Set what is searched; `live` and `positions` are as in `ItemTable`."""
        self.collection = collection
        self._rows = rows
        self._selector = ResultSelector(rows, collection.stored_vectors, collection.metadata, self.limits.candidates)
        self.table = ItemTable(collection.metadata, rows.filtered_rows, live, positions)

    def over(self, written: LiveCollection) -> Self:
        """Return a searcher like this one over its version and what was written since; takes microseconds.

        Args:
            written: its version is the one that this searcher was made for.
        """
        if isinstance(self._rows, LiveRowSearcher):
            version = self._rows.version
        else:
            columns = ExtendedColumns(written.version.metadata, written.types)
            version = RowSearcher(self.store, written.version.vectors, columns, self.limits.candidates)
        searcher = copy.copy(self)
        rows = LiveRowSearcher(version, written)
        searcher._search_in(written, rows, lambda: written.live, lambda: written.positions)
        return searcher

    def item_vector(self, item_id: str) -> Float32:
        """Return the stored vector of an item, (d,) float32 of unit norm; raise UnknownItem if there is none."""
        row = self.collection.metadata.row_of(item_id)
        vector = np.asarray(self.collection.stored_vectors[[row]][0], np.float32)
        return vector / max(float(np.linalg.norm(vector)), 1e-12)

    def check_options(self, options: SearchOptions, modality: Modality | None = None) -> None:
        """Check the options' ranges, before any work is done.

        Args:
            options: of the search.
            modality: as in `search_vectors`.

        Raises:
            InvalidLimit: `limit` is out of range.
            QueryError: another option is out of range, or a column is unknown.
        """
        if not 1 <= options.limit <= self.limits.results:
            raise InvalidLimit(f"limit is {options.limit}; it must be between 1 and {self.limits.results:,}")
        most = self.limits.candidates
        if options.offset < 0 or options.offset + options.limit > most:
            raise QueryError(
                f"offset is {options.offset}; it must be 0 or more, and at most {most:,} together with the limit, "
                f"{options.limit}; a filter or min_score leaves fewer results to page through"
            )
        for name in ("candidates", "efSearch"):
            value = (options.params or {}).get(name, 0)
            if value > most:
                raise QueryError(f"params.{name} is {value}; it must be at most {most:,}")
        self._check_thresholds(options, modality)
        if options.group_size < 1 or (options.group_size > 1 and options.group_by is None):
            raise QueryError(f"group_size is {options.group_size}; it must be 1 or more, and needs group_by")
        if options.group_by is not None:
            try:
                self.collection.metadata.check_single_valued(options.group_by)
            except QueryError as error:
                raise QueryError(f"group_by: {error}") from error
        self.columns(options.fields)

    def _check_thresholds(self, options: SearchOptions, modality: Modality | None) -> None:
        if options.min_score is not None and not -1 <= options.min_score <= 1:
            raise QueryError(f"min_score is {options.min_score}; it must be a cosine between -1 and 1")
        if options.deduplicate is not None and not 0 < options.deduplicate <= 1:
            raise QueryError(f"deduplicate is {options.deduplicate}; it must be a cosine above 0, and at most 1")
        if options.min_probability is None:
            return
        if not 0 <= options.min_probability <= 1:
            raise QueryError(f"min_probability is {options.min_probability}; it must be between 0 and 1")
        if self._probabilities(modality) is None:
            reason = "the query is combined, negative or an embedding"
            if modality is not None:
                reason = f"encoder {self.collection.manifest.encoder.name!r} is not calibrated for {modality} queries"
            raise QueryError(
                f"min_probability is {options.min_probability}, but there are no probabilities: {reason}; use min_score"
            )

    def _probabilities(self, modality: Modality | None) -> Probabilities | None:
        """Return how to compute the probabilities for a kind of query, None where that is not calibrated.

        The collection's own calibration wins over the encoder's.
        """
        for calibration in (self.collection.calibration, self._calibration):
            model = _search_calibration(calibration, modality)
            if model is not None:
                return Probabilities(model, self.collection.sample)
        return None

    def columns(self, fields: Sequence[str] | None) -> list[str] | None:
        """Return the columns to read for records that have an id and `fields`; None for all columns.

        Raises:
            QueryError: a field is no column of the metadata.
        """
        return self.table.columns(fields)

    def filtered_rows(self, condition: Filter) -> Int64:
        """Return the rows that pass a filter, (m,) ascending. Raises FilterInvalid: it does not fit the metadata."""
        return self._rows.filtered_rows(condition)

    def search_vectors(
        self, queries: Float32, options: SearchOptions, stopwatch: Stopwatch, modality: Modality | None = None
    ) -> list[RankedHits]:
        """Return the nearest items by exact cosine, best first, for each query.

        Args:
            queries: (q, d) float32 of unit norm.
            options: of the search.
            stopwatch: times the stages filter, search, rerank and metadata.
            modality: what all queries are, if each is a single text or a single image (as a file or an item); None
                for others, which have no probabilities.

        Raises:
            InvalidLimit: `limit` is out of range.
            FilterInvalid: the filter does not fit the metadata.
            QueryError: another option or a search parameter is unknown or out of range.
        """
        self.check_options(options, modality)
        selected = self._selector.select(queries, options, self._probabilities(modality), stopwatch)
        with stopwatch.stage("metadata"):
            return self._hits(selected, options)

    def search_item(self, item_id: str, options: SearchOptions = _DEFAULTS) -> SearchResult:
        """Return the items nearest to an item of the collection, itself first."""
        stopwatch = Stopwatch()
        ranked = self.search_vectors(self.item_vector(item_id)[None], options, stopwatch, "image")[0]
        return SearchResult(ranked.hits, stopwatch.took_ms, no_match=ranked.no_match)

    def _hits(self, selected: Sequence[Selected], options: SearchOptions) -> list[RankedHits]:
        """Fetch all records in one call: one at a time would take several times as long."""
        rows = [row for each in selected for row in each.rows.tolist()]
        records = iter(self.collection.metadata.records(rows, self.columns(options.fields)))
        embeddings = iter(normalized_rows(self.collection.stored_vectors[rows]) if options.embeddings else ())
        return [
            RankedHits(_page_hits(each, list(islice(records, len(each.rows))), embeddings), each.no_match)
            for each in selected
        ]


def _search_calibration(calibration: Calibration | None, modality: Modality | None) -> MatchCalibration | None:
    if calibration is None or modality is None:
        return None
    return calibration.text_search if modality == "text" else calibration.image_search


def _page_hits(selected: Selected, records: Sequence[dict[str, Any]], embeddings: Iterator[Float32]) -> list[Hit]:
    count = len(records)
    probabilities = [None] * count if selected.probabilities is None else selected.probabilities.tolist()
    return [
        Hit(str(record.pop("id")), score, record, row, probability, group, duplicates, next(embeddings, None))
        for record, score, row, probability, group, duplicates in zip(
            records,
            selected.scores.tolist(),
            selected.rows.tolist(),
            probabilities,
            [None] * count if selected.groups is None else selected.groups,
            selected.duplicates,
            strict=True,
        )
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
        super().__init__(collection, store, limits, encoder.spec.calibration)
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

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each prepared text that the encoder reads."""
        if self._text_encoder is None:
            raise TextUnsupported(f"encoder {self.encoder.spec.name!r} has no text tower")
        return self._text_encoder.token_counts(texts)

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
        ranked = self.search_vectors(self.encode_texts([prepared], stopwatch), options, stopwatch, "text")[0]
        return SearchResult(ranked.hits, stopwatch.took_ms, self.truncated_tokens(prepared), ranked.no_match)

    def search_image(self, data: bytes, options: SearchOptions = _DEFAULTS) -> SearchResult:
        """Return the items nearest to an image file."""
        stopwatch = Stopwatch()
        vectors = self.encode_images(self.prepare_image(data, stopwatch)[None], stopwatch)
        ranked = self.search_vectors(vectors, options, stopwatch, "image")[0]
        return SearchResult(ranked.hits, stopwatch.took_ms, no_match=ranked.no_match)


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


def compare_all(
    a: Sequence[Embedding], b: Sequence[Embedding], spec: EncoderSpec
) -> tuple[Float64, list[list[float | None]]]:
    """Compare each of n unit vectors with each of m.

    Args:
        a: n embeddings, those of the rows.
        b: m embeddings, those of the columns.
        spec: the encoder, whose calibration gives the probabilities.

    Returns:
        (n, m) cosines in [-1, 1], and for each pair the probability that the two belong together, as `compare` gives
        it; None where the encoder is not calibrated for this kind of pair.
    """
    rows = np.stack([each.vector for each in a]).astype(np.float64)
    columns = np.stack([each.vector for each in b]).astype(np.float64)
    cosines = np.clip(rows @ columns.T, -1.0, 1.0)
    curves = {(x, y): _calibration(x, y, spec) for x in get_args(Modality) for y in get_args(Modality)}
    values = {kinds: curve.probabilities_of(cosines) for kinds, curve in curves.items() if curve is not None}
    probabilities = [
        [_cell(values.get((x.modality, y.modality)), i, j) for j, y in enumerate(b)] for i, x in enumerate(a)
    ]
    return cosines, probabilities


def _cell(values: Float64 | None, row: int, column: int) -> float | None:
    return None if values is None else float(values[row, column])


def ensemble(vectors: Float32) -> Float32:
    """Return the unit vector of the mean of (n, d) unit vectors, as prompts are combined (Radford et al. 2021, 3.1.4).

    Returns:
        (d,) float32 of unit norm.
    """
    mean = vectors.astype(np.float64).mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean), np.float32)


def softmax(cosines: Float64, temperature: float) -> Float64:
    """Return the shares of (n, m) cosines in each row, which add to 1, after division by the temperature."""
    logits = (cosines - cosines.max(axis=1, keepdims=True)) / temperature
    shares = np.exp(logits)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


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
