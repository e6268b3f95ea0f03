"""Filtered search of a real inverted file, compared with exact search of the rows that pass."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexing.build.stores import build_store
from lookalike import row_search
from lookalike.errors import QueryError
from lookalike.filters import parse_filter
from lookalike.metadata import Metadata, write_metadata
from lookalike.rerank import rerank
from lookalike.row_search import RowSearcher, SearchOptions
from lookalike.stopwatch import Stopwatch
from lookalike.stores.exact import ExactStore
from lookalike.stores.registry import open_store
from lookalike.types import Float16, Float32, Neighbors

COUNT, DIM, K = 6_000, 16, 10


def clustered(seed: int, count: int) -> Float32:
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((40, DIM))
    rows = centres[random.integers(0, 40, count)] + 0.4 * random.standard_normal((count, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors() -> Float16:
    return clustered(1, COUNT).astype(np.float16)


@pytest.fixture(scope="module")
def folder(vectors: Float16, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("filtered")
    number = np.arange(COUNT)
    table = pa.table({"id": [f"{i}" for i in number], "n": number, "colour": [f"c{i % 7}" for i in number]})
    write_metadata(folder, table.schema, [table])
    build_store(vectors, folder, "faiss")
    return folder


def opened(vectors: Float16, folder: Path, **params: int) -> RowSearcher:
    return RowSearcher(open_store("faiss", folder, vectors, params), vectors, Metadata(folder))


@pytest.fixture(scope="module")
def searcher(vectors: Float16, folder: Path) -> RowSearcher:
    return opened(vectors, folder, nprobe=8, candidates=200)


def exactly(vectors: Float16, queries: Float32, allowed: np.ndarray) -> list[Neighbors]:
    everything = Neighbors(np.flatnonzero(allowed), np.empty(0, np.float32))
    return rerank(queries, [everything] * len(queries), vectors, K)


def options(document: dict[str, Any], **more: Any) -> SearchOptions:
    return SearchOptions(K, parse_filter(json.dumps(document)), **more)


NUMBERS = np.arange(COUNT)


@settings(deadline=None, max_examples=40)
@given(low=st.integers(0, COUNT), width=st.integers(0, COUNT), colour=st.integers(0, 6), seed=st.integers(2, 99))
def test_filtered_search_matches_exact_search(
    searcher: RowSearcher, vectors: Float16, low: int, width: int, colour: int, seed: int
) -> None:
    document = {
        "must": [{"field": "n", "range": {"gte": low, "lt": low + width}}],
        "must_not": [{"field": "colour", "equals": f"c{colour}"}],
    }
    allowed = (low <= NUMBERS) & (low + width > NUMBERS) & (colour != NUMBERS % 7)
    queries = clustered(seed, 20)
    truth = exactly(vectors, queries, allowed)
    exact = searcher.search(queries, options(document, exact=True), Stopwatch())
    for found, expected in zip(exact, truth, strict=True):
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_array_equal(found.scores, expected.scores)
    shared = 0
    for found, expected in zip(searcher.search(queries, options(document), Stopwatch()), truth, strict=True):
        assert len(found.rows) == len(expected.rows)  # the limit is respected
        assert allowed[found.rows].all()
        shared += len(set(found.rows.tolist()) & set(expected.rows.tolist()))
    assert shared >= 0.85 * sum(len(expected.rows) for expected in truth)


@pytest.mark.parametrize(("few", "share"), [(0, 0.0), (COUNT, 1.0)])
def test_scan_and_index_give_the_same_scores(
    searcher: RowSearcher, vectors: Float16, few: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_search, "_MAX_SCANNED_ROWS", few)
    monkeypatch.setattr(row_search, "_MAX_SCANNED_FRACTION", share)
    queries = clustered(5, 10)
    # A new filter each time, since masks are cached.
    document = {"must": [{"field": "colour", "in": ["c1", f"no {few}"]}]}
    found = searcher.search(queries, options(document, params={"nprobe": 10_000, "candidates": COUNT}), Stopwatch())
    for result, expected in zip(found, exactly(vectors, queries, NUMBERS % 7 == 1), strict=True):
        np.testing.assert_array_equal(result.scores, expected.scores)


def test_repeated_filter_is_evaluated_once(searcher: RowSearcher, monkeypatch: pytest.MonkeyPatch) -> None:
    document = {"must": [{"field": "n", "range": {"lt": 4321}}]}
    before = searcher.search(clustered(6, 1), options(document), Stopwatch())
    monkeypatch.setattr(row_search, "filter_mask", None)
    after = searcher.search(clustered(6, 1), options(document), Stopwatch())
    np.testing.assert_array_equal(before[0].rows, after[0].rows)


def test_defaults_grow_with_the_limit(vectors: Float16, folder: Path) -> None:
    queries = clustered(8, 40)
    searcher = opened(vectors, folder, nprobe=2, candidates=40)
    everything = Neighbors(np.arange(COUNT), np.empty(0, np.float32))
    truth = rerank(queries, [everything] * len(queries), vectors, 100)

    def recall(**params: int) -> float:
        found = searcher.search(queries, SearchOptions(100, params=params), Stopwatch())
        return float(np.mean([np.isin(f.rows, t.rows).sum() / 100 for f, t in zip(found, truth, strict=True)]))

    tuned_for_ten = recall(nprobe=2, candidates=40)
    assert recall(nprobe=2) > tuned_for_ten
    assert recall() > recall(nprobe=2)


@pytest.mark.parametrize("preset", ["faiss", "hnsw-sq8"])
def test_search_widens_if_too_few_rows_are_visited(vectors: Float16, preset: str, tmp_path: Path) -> None:
    table = pa.table({"id": [f"{i}" for i in range(COUNT)]})
    write_metadata(tmp_path, table.schema, [table])
    kind, params = build_store(vectors, tmp_path, preset)
    store = open_store(kind, tmp_path, vectors, params)
    searcher = RowSearcher(store, vectors, Metadata(tmp_path))
    narrow = {name: 16 if name == "efSearch" else 1 for name in store.defaults}
    found = searcher.search(clustered(3, 5), SearchOptions(1_000, params=narrow), Stopwatch())
    assert [len(neighbors.rows) for neighbors in found] == [1_000] * 5


@pytest.mark.parametrize(
    "case",
    [
        {"exact": True},
        {"filter": parse_filter('{"must": [{"field": "n", "range": {"lt": 5}}]}')},  # so few that they are scanned
        {"filter": parse_filter('{"must": [{"field": "n", "range": {"lt": 5000}}]}')},
        {},
    ],
)
@pytest.mark.parametrize("params", [{"bogus": 1}, {"nprobe": -5}])
def test_wrong_parameters_are_always_rejected(
    searcher: RowSearcher, case: dict[str, Any], params: dict[str, int]
) -> None:
    with pytest.raises(QueryError, match=next(iter(params))):
        searcher.search(clustered(3, 1), SearchOptions(params=params, **case), Stopwatch())


def test_long_filter_is_not_cached(searcher: RowSearcher) -> None:
    document = {"must": [{"field": "colour", "in": ["c1", "x" * 100_000]}]}
    found = searcher.search(clustered(3, 1), options(document), Stopwatch())[0]
    assert (found.rows % 7 == 1).all()
    assert len(found.rows) == K


def test_store_is_freed_with_its_last_reference(vectors: Float16, tmp_path: Path) -> None:
    table = pa.table({"id": [f"{i}" for i in range(COUNT)]})
    write_metadata(tmp_path, table.schema, [table])
    store = ExactStore(vectors)
    searcher = RowSearcher(store, vectors, Metadata(tmp_path))
    searcher.search(clustered(3, 1), options({"must": [{"field": "id", "equals": "7"}]}), Stopwatch())
    reference = weakref.ref(store)
    gc.disable()
    try:
        del store, searcher
        assert reference() is None
    finally:
        gc.enable()
