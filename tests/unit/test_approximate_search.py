"""Refined candidates give the same results as re-ranking all of them, to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexing.build.stores import build_store
from lookalike.approximate_search import approximate_search
from lookalike.stores.exact import ExactStore
from lookalike.stores.faiss.store import FaissStore
from lookalike.stores.protocol import SearchParameters
from lookalike.types import Bool, Float16, Float32, Neighbors
from tests.unit_vectors import unit

COUNT, DIM = 4_000, 24


@pytest.fixture(scope="module")
def vectors() -> Float16:
    """Vectors with many copies, and others so close that only their norms differ."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((30, DIM))
    x = unit(centres[random.integers(0, 30, COUNT)] + 0.3 * random.standard_normal((COUNT, DIM)))
    x[100:300] = x[100]
    x[500:700] = unit(x[500] + 1e-4 * random.standard_normal((200, DIM)))
    return x.astype(np.float16)


@pytest.fixture(scope="module", params=["ivf-pq4", "ivf-rabitq", "opq-ivf-pq4", "ivf-sq8", "hnsw-sq8"])
def stores(
    request: pytest.FixtureRequest, vectors: Float16, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FaissStore, FaissStore]:
    """The same index with and without vectors to refine candidates."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    build_store(vectors, folder, request.param)
    refining, plain = FaissStore.open(folder, vectors=vectors), FaissStore.open(folder)
    assert refining.refines
    assert not plain.refines
    return refining, plain


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 99), limit=st.integers(1, 40), candidates=st.integers(1, 400))
def test_refined_equals_reranking_all_candidates(
    stores: tuple[FaissStore, FaissStore], vectors: Float16, seed: int, limit: int, candidates: int
) -> None:
    refining, plain = stores
    random = np.random.default_rng(seed)
    rows = [150, 600, *random.integers(0, COUNT, 6)]  # the first two among copies, and among near copies
    queries = unit(vectors[rows].astype(np.float32) + 0.02 * random.standard_normal((8, DIM)))
    queries[0] = unit(vectors[150:151].astype(np.float32))
    params: SearchParameters = {**plain.defaults, "candidates": candidates}
    expected = approximate_search(plain, vectors, queries, limit, params)
    for got, want in zip(approximate_search(refining, vectors, queries, limit, params), expected, strict=True):
        np.testing.assert_array_equal(got.rows, want.rows)
        np.testing.assert_array_equal(got.scores, want.scores)


@pytest.mark.parametrize("share", [0.005, 0.1, 0.6])
def test_masked_scores_are_cosines(stores: tuple[FaissStore, FaissStore], vectors: Float16, share: float) -> None:
    random = np.random.default_rng(7)
    mask: Bool = random.random(COUNT) < share
    queries = unit(random.standard_normal((8, DIM)))
    truth = ExactStore(vectors).search(queries, 10, mask=mask)
    found = approximate_search(stores[0], vectors, queries, 10, {**stores[0].defaults, "candidates": 200}, mask)
    for got, true in zip(found, truth, strict=True):
        assert len(got.rows) == len(true.rows) == min(10, mask.sum())
        assert mask[got.rows].all()
        everyone = dict(zip(true.rows.tolist(), true.scores.tolist(), strict=True))
        assert all(score == everyone.get(row, score) for row, score in zip(got.rows, got.scores, strict=True))
    assert np.mean([np.isin(a.rows, b.rows).mean() for a, b in zip(truth, found, strict=True)]) > 0.9


def test_scores_are_products_with_the_vectors(stores: tuple[FaissStore, FaissStore], vectors: Float16) -> None:
    queries = unit(np.random.default_rng(5).standard_normal((20, DIM)))
    params: SearchParameters = {**stores[0].defaults, "candidates": 200}
    gathered = stores[1].search(queries, 200, params)
    for query, found, all_of_them in zip(queries, stores[0].search(queries, 10, params), gathered, strict=True):
        products = vectors[all_of_them.rows].astype(np.float32) @ query
        np.testing.assert_allclose(found.scores, np.sort(products)[::-1][:10], atol=1e-5)


def test_only_uncertain_queries_are_repeated(vectors: Float16) -> None:
    class Recording:
        kind, exact, refines, dim, count = "recording", False, True, DIM, COUNT

        def __init__(self) -> None:
            self.defaults: SearchParameters = {}
            self.calls: list[tuple[int, int]] = []

        def search(
            self, queries: Float32, k: int, params: SearchParameters | None = None, mask: Bool | None = None
        ) -> list[Neighbors]:
            self.calls.append((len(queries), k))
            products = queries @ vectors.astype(np.float32).T
            rows = np.argsort(-products, axis=1)[:, :k]
            return [Neighbors(r, p[r]) for r, p in zip(rows, products, strict=True)]

    store = Recording()
    queries = unit(vectors[[150, 1_000, 2_000]].astype(np.float32))
    approximate_search(store, vectors, queries, 10, {"candidates": 100})
    assert store.calls == [(3, 28), (1, 100)]  # the first is one of two hundred copies
    store.calls.clear()
    approximate_search(store, vectors, queries, 10, {"candidates": 20})
    assert store.calls == [(3, 20)]


def test_vectors_that_faiss_cant_read_in_place(vectors: Float16, tmp_path: Path) -> None:
    build_store(vectors, tmp_path, "ivf-flat")
    strided = np.repeat(vectors, 2, axis=1)[:, ::2]
    assert not FaissStore.open(tmp_path, vectors=strided).refines
    assert not FaissStore.open(tmp_path, vectors=vectors[:, :-1]).refines
