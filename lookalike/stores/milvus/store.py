"""Read side of the Milvus store: opens a collection in Milvus by its name and searches it.

A version of a collection keeps to the name that its manifest has, not to the alias: its rows are those of its metadata.
Scores are Milvus's; exact cosines are computed afterwards by `lookalike.rerank`.

Dimension letters: n rows of the collection, q queries, d embedding width, k neighbours.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from lookalike.errors import DimensionMismatch, StoreUnavailable
from lookalike.filters import Filter
from lookalike.metadata import ROWS_FILE, Metadata
from lookalike.stores.exact import ExactStore
from lookalike.stores.milvus.client import (
    LOAD_TIMEOUT,
    alias_target,
    connect,
    file_lock,
    is_own,
    settings,
    translated_errors,
)
from lookalike.stores.milvus.expressions import ROW, Translator
from lookalike.stores.milvus.fields import MilvusField
from lookalike.stores.milvus.indexes import CANDIDATES, MAX_RESULTS, MilvusIndex
from lookalike.stores.milvus.location import is_file
from lookalike.stores.presets import PRESETS
from lookalike.stores.protocol import SearchParameters, VectorStore, check_mask
from lookalike.types import Bool, Float16, Float32, Neighbors

_METRIC = "COSINE"
_MAX_LISTED_ROWS = 10_000
"""A mask becomes an expression if it allows, or excludes, at most so many rows."""
_MAX_RESULTS_OF_CALL = 10_000
"""Results of all queries of a call, so that it ends long before its timeout."""

_log = logging.getLogger(__name__)


class MilvusStore(VectorStore):
    """A collection in Milvus. Calls from several threads are safe.

    Attributes:
        kind: `milvus`.
        dim: d.
        count: n.
        exact: False; scores are Milvus's cosines, of codes or of float32 vectors.
        refines: False.
        defaults: `candidates` (rows to gather for re-ranking), and `nprobe` or `efSearch`.
    """

    kind = "milvus"
    exact = False
    refines = False

    def __init__(
        self,
        client: Any,
        uri: str,
        name: str,
        index: MilvusIndex,
        vectors: Float16,
        translator: Translator | None,
        defaults: SearchParameters,
    ) -> None:
        """Wrap a loaded collection; use `open` for the one that a manifest names."""
        self._client, self._uri, self._name, self._index = client, uri, name, index
        self._vectors, self._translator = vectors, translator
        self._lock = file_lock(uri) if is_file(uri) else nullcontext()
        self._timeout = settings().timeout
        self.count, self.dim = index.count, index.dim
        self.defaults: SearchParameters = index.validated({**index.initial_params(), **defaults})

    @classmethod
    def open(cls, folder: Path, params: Mapping[str, Any], vectors: Float16) -> MilvusStore:
        """Open the collection that the manifest's parameters name, and load it if it is not.

        Args:
            folder: the version's folder; its metadata says what filters compare.
            params: the manifest's parameters of this store.
            vectors: (n, d) float16 of the same rows, for masks that Milvus can't express.

        Raises:
            StoreUnreachable: Milvus does not answer.
            StoreUnavailable: the collection is missing, or has another width or number of rows.
        """
        try:
            uri, name, alias, preset = (str(params[key]) for key in ("uri", "collection", "alias", "preset"))
            index = MilvusIndex(PRESETS[preset].name, int(params["count"]), int(vectors.shape[1]))
            fields = {key: MilvusField.from_dict(field) for key, field in params.get("fields", {}).items()}
        except (KeyError, TypeError, ValueError) as error:
            raise StoreUnavailable(f"the manifest in {folder} names no collection in Milvus; index again") from error
        client = connect(uri)
        with translated_errors(uri, f"the collection {name!r} can't be opened"):
            _check_collection(client, uri, name, index)
            client.load_collection(name, timeout=LOAD_TIMEOUT)
            _check_count(client, uri, name, index.count)
            _warn_if_moved(client, uri, name, alias)
        translator = Translator(Metadata(folder), fields) if (folder / ROWS_FILE).is_file() else None
        known = {CANDIDATES, index.effort}
        defaults = {key: int(value) for key, value in params.items() if key in known}
        return cls(client, uri, name, index, vectors, translator, defaults)

    @override
    def search(
        self, queries: Float32, k: int, params: SearchParameters | None = None, mask: Bool | None = None
    ) -> list[Neighbors]:
        """Return at most k candidates of each query.

        A mask that allows or excludes few rows becomes an expression. With any other mask, the vectors are compared
        with the query here.

        Raises:
            DimensionMismatch: queries or mask of another size than the store's.
            QueryError: a parameter is unknown to this store, or below 1.
            StoreUnreachable: Milvus does not answer.
            StoreUnavailable: Milvus raised an error.
        """
        merged = self._checked(queries, params, mask)
        if mask is None or not len(queries):
            return self._search(queries, k, merged, "")
        expression = _mask_expression(mask)
        if expression is None:
            return self._exact.search(queries, k, mask=mask)
        return self._search_allowed(queries, k, merged, expression, mask)

    def filtered(self, condition: Filter) -> VectorStore:
        """Return the store of the rows that pass a filter, which Milvus evaluates if it can; else this store."""
        expression = self._translator.expression(condition) if self._translator is not None else None
        return self if expression is None else _FilteredStore(self, expression)

    def search_filtered(
        self, queries: Float32, k: int, params: SearchParameters | None, expression: str, mask: Bool
    ) -> list[Neighbors]:
        """Return as `search` does, where the expression selects the rows of the mask."""
        merged = self._checked(queries, params, mask)
        return self._search_allowed(queries, k, merged, expression, mask) if len(queries) else []

    def param_grid(self) -> Sequence[SearchParameters]:
        """Return the search parameters to try, the cheapest first."""
        return self._index.param_grid()

    def _checked(self, queries: Float32, params: SearchParameters | None, mask: Bool | None) -> dict[str, int]:
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise DimensionMismatch(f"queries of shape {queries.shape} for a store of width {self.dim}")
        check_mask(mask, self.count)
        return self._index.validated({**self.defaults, **(params or {})})

    def _search_allowed(
        self, queries: Float32, k: int, params: Mapping[str, int], expression: str, mask: Bool
    ) -> list[Neighbors]:
        """Search among the rows of a mask; search all of the index for queries that find too few."""
        allowed = int(np.count_nonzero(mask))
        if not allowed:
            return [Neighbors(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]
        results = self._search(queries, k, self._index.widened(params, allowed), expression)
        expected = min(k, allowed, MAX_RESULTS)
        short = [i for i, neighbors in enumerate(results) if len(neighbors.rows) < expected]
        if short:
            for i, neighbors in zip(
                short, self._search(queries[short], k, self._index.exhaustive(params), expression), strict=True
            ):
                results[i] = neighbors
        short = [i for i, neighbors in enumerate(results) if len(neighbors.rows) < expected]
        if short:  # a graph, whose walk ended early
            for i, neighbors in zip(short, self._exact.search(queries[short], k, mask=mask), strict=True):
                results[i] = neighbors
        return results

    def _search(self, queries: Float32, k: int, params: Mapping[str, int], expression: str) -> list[Neighbors]:
        k = min(k, self.count, MAX_RESULTS)
        step = max(1, _MAX_RESULTS_OF_CALL // max(k, 1))
        blocks = [queries[start : start + step] for start in range(0, len(queries), step)]
        return [neighbors for block in blocks for neighbors in self._call(block, k, params, expression)]

    def _call(self, queries: Float32, k: int, params: Mapping[str, int], expression: str) -> list[Neighbors]:
        with self._lock, translated_errors(self._uri, "the search failed"):
            found = self._client.search(
                self._name,
                data=list(np.ascontiguousarray(queries, dtype=np.float32)),
                filter=expression,
                limit=k,
                output_fields=[ROW],
                search_params={"metric_type": _METRIC, "params": self._index.search_params(params, k)},
                timeout=self._timeout,
                consistency_level="Eventually",  # all rows are flushed and loaded; `open` has counted them
            )
            return [_neighbors(hits) for hits in found]

    @cached_property
    def _exact(self) -> ExactStore:
        return ExactStore(self._vectors)


class _FilteredStore(VectorStore):
    """A view of a store whose masks are those of one filter, which Milvus evaluates."""

    exact = False
    refines = False

    def __init__(self, store: MilvusStore, expression: str) -> None:
        self._store, self._expression = store, expression
        self.kind, self.dim, self.count, self.defaults = store.kind, store.dim, store.count, store.defaults

    @override
    def search(
        self, queries: Float32, k: int, params: SearchParameters | None = None, mask: Bool | None = None
    ) -> list[Neighbors]:
        if mask is None:
            return self._store.search(queries, k, params)
        return self._store.search_filtered(queries, k, params, self._expression, mask)


def _neighbors(hits: Any) -> Neighbors:
    """Order ties by ascending row, which Milvus does not promise."""
    rows = np.array(hits.ids, dtype=np.int64)
    scores = np.array(hits.distances, dtype=np.float32)
    order = np.lexsort((rows, -scores))
    return Neighbors(rows[order], scores[order])


def _mask_expression(mask: Bool) -> str | None:
    """Return the expression of a mask's rows; None if it would list too many."""
    allowed = int(np.count_nonzero(mask))
    if allowed == len(mask):
        return f"{ROW} >= 0"
    if allowed <= _MAX_LISTED_ROWS:
        return f"{ROW} in {np.flatnonzero(mask).tolist()}"
    if len(mask) - allowed <= _MAX_LISTED_ROWS:
        return f"not ({ROW} in {np.flatnonzero(~mask).tolist()})"
    return None


def _check_collection(client: Any, uri: str, name: str, index: MilvusIndex) -> None:
    if not client.has_collection(name):
        raise StoreUnavailable(f"Milvus at {uri} has no collection {name!r}; index again to load it")
    fields = {field["name"]: field for field in client.describe_collection(name)["fields"]}
    dim = fields.get("vector", {}).get("params", {}).get("dim")
    if ROW not in fields or dim is None or int(dim) != index.dim:
        raise StoreUnavailable(f"the collection {name!r} of Milvus at {uri} has another schema; index again")


def _check_count(client: Any, uri: str, name: str, expected: int) -> None:
    found = client.query(name, filter="", output_fields=["count(*)"], consistency_level="Strong")
    count = int(found[0]["count(*)"])
    if count != expected:
        raise StoreUnavailable(
            f"the collection {name!r} of Milvus at {uri} holds {count} rows where the manifest has {expected}; "
            "index again to load it"
        )


def _warn_if_moved(client: Any, uri: str, name: str, alias: str) -> None:
    """Log where somebody moved the alias to a collection of another origin; this version keeps to its own."""
    target = alias_target(client, alias)
    if target is not None and not is_own(target, alias):
        _log.warning("milvus_alias_moved uri=%s alias=%s: it names %s; %s is searched", uri, alias, target, name)
