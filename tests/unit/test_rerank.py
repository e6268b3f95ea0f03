"""Exact cosines against a naive loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.errors import DimensionMismatch, QueryError
from lookalike.rerank import normalized_queries, normalized_rows, rerank
from lookalike.types import Float16, Float32, Neighbors


def listed(*rows: list[int]) -> list[Neighbors]:
    return [Neighbors(np.array(r, dtype=np.int64), np.zeros(len(r), dtype=np.float32)) for r in rows]


def naive(query: Float32, rows: list[int], vectors: Float16, k: int) -> tuple[list[int], list[float]]:
    q = query.astype(np.float64)
    scored = []
    for row in rows:
        v = vectors[row].astype(np.float64)
        norm = np.linalg.norm(q) * np.linalg.norm(v)
        scored.append((float(q @ v / norm) if norm else 0.0, row))
    scored.sort(key=lambda pair: (-pair[0], pair[1]))
    return [row for _, row in scored[:k]], [score for score, _ in scored[:k]]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    d=st.sampled_from([1, 3, 16, 65]),
    widths=st.lists(st.integers(0, 40), min_size=0, max_size=6),
    k=st.integers(1, 50),
)
def test_equals_a_naive_loop(seed: int, d: int, widths: list[int], k: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((40, d)).astype(np.float16)
    queries = rng.standard_normal((len(widths), d)).astype(np.float32)
    rows = [rng.permutation(40)[:width].tolist() for width in widths]
    answers = rerank(queries, listed(*rows), vectors, k)
    assert len(answers) == len(widths)
    for query, mine, found in zip(queries, rows, answers, strict=True):
        _, scores = naive(query, mine, vectors, k)
        np.testing.assert_allclose(found.scores, scores, atol=2e-6)
        exact = {row: naive(query, [row], vectors, 1)[1][0] for row in mine}
        np.testing.assert_allclose(found.scores, [exact[int(row)] for row in found.rows], atol=2e-6)
        assert (np.diff(found.scores) <= 0).all()
        assert (np.diff(found.rows)[np.diff(found.scores) == 0] > 0).all()
        assert (found.rows.dtype, found.scores.dtype) == (np.int64, np.float32)


def test_upcasting_is_exact_for_all_finite_float16() -> None:
    """Rows of one element, each beside a large one, so that the norm is known: compare with numpy's own conversion."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    block = np.stack([halves, np.full_like(halves, 4096)], axis=1)
    expected = block.astype(np.float64)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(normalized_rows(block), expected, rtol=3e-7)


@pytest.mark.parametrize("threads", [1, 2, 5, None])
def test_threads_and_blocks_do_not_change_scores(threads: int | None) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((3_000, 512)).astype(np.float16)
    queries = rng.standard_normal((24, 512)).astype(np.float32)
    rows = [rng.permutation(3_000)[:1_200].tolist() for _ in queries]  # two blocks a query, several spans
    batch = rerank(queries, listed(*rows), vectors, 10, threads=threads)
    for query, mine, found in zip(queries, rows, batch, strict=True):
        alone = rerank(query[None], listed(mine[:600]), vectors, 600, threads=1)[0]
        known = dict(zip(alone.rows.tolist(), alone.scores.tolist(), strict=True))
        assert naive(query, mine, vectors, 10)[0] == found.rows.tolist()
        again = [i for i, row in enumerate(found.rows.tolist()) if row in known]
        assert again
        assert all(
            known[int(found.rows[i])] == found.scores[i] for i in again
        )  # the same to the bit, wherever it stood


def test_ties_come_in_row_order() -> None:
    vectors = np.repeat(np.array([[0.6, 0.8], [1.0, 0.0]], dtype=np.float16), 3, axis=0)
    found = rerank(np.array([[0.0, 1.0]], dtype=np.float32), listed([5, 2, 4, 0, 1, 3]), vectors, 4)[0]
    assert found.rows.tolist() == [0, 1, 2, 3]


def test_own_float16_self_scores_one() -> None:
    vectors = np.random.default_rng(0).standard_normal((500, 640)).astype(np.float16)
    found = rerank(vectors.astype(np.float32), listed(*[[i] for i in range(500)]), vectors, 1)
    scores = np.concatenate([f.scores for f in found])
    assert scores.max() <= 1.0
    assert scores.min() >= 1 - 1e-6


def test_a_stored_zero_vector_scores_zero() -> None:
    vectors = np.array([[0, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float16)
    found = rerank(np.ones((1, 4), dtype=np.float32), listed([0, 1]), vectors, 2)
    assert found[0].rows.tolist() == [1, 0]
    assert found[0].scores.tolist() == [0.5, 0.0]


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_zero_and_nonfinite_queries_are_rejected(bad: float) -> None:
    queries = np.stack([np.ones(4), np.full(4, bad)]).astype(np.float32)
    with pytest.raises(QueryError, match="query 1"):
        rerank(queries, listed([0], [0]), np.eye(4, dtype=np.float16), 1)


def test_tiny_and_huge_queries_are_accepted() -> None:
    for scale in (1e-30, 1e30):
        np.testing.assert_allclose(normalized_queries(np.full((1, 4), scale, dtype=np.float32), 4), 0.5)


def test_mismatched_shapes_are_rejected() -> None:
    vectors = np.eye(4, dtype=np.float16)
    with pytest.raises(DimensionMismatch):
        rerank(np.ones((1, 3), dtype=np.float32), listed([0]), vectors, 1)
    with pytest.raises(QueryError, match="2 queries"):
        rerank(np.ones((2, 4), dtype=np.float32), listed([0]), vectors, 1)


def test_empty_inputs_give_empty_results() -> None:
    vectors = np.eye(4, dtype=np.float16)
    assert rerank(np.empty((0, 4), dtype=np.float32), [], vectors, 3) == []
    assert rerank(np.ones((1, 4), dtype=np.float32), listed([]), vectors, 3)[0].rows.size == 0
    assert rerank(np.ones((1, 4), dtype=np.float32), listed([]), vectors[:0], 3)[0].rows.size == 0


def test_inputs_are_not_modified() -> None:
    vectors, queries = np.eye(4, dtype=np.float16), np.full((1, 4), 3.0, dtype=np.float32)
    candidates = listed([3, 1, 2])
    rerank(queries, candidates, vectors, 2)
    assert candidates[0].rows.tolist() == [3, 1, 2]
    assert (queries == 3.0).all()
    assert np.array_equal(vectors, np.eye(4, dtype=np.float16))
