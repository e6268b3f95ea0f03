"""Search of float16 vectors in place: results equal those of upcast vectors to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.stores import exact
from lookalike.stores.exact import ExactStore
from lookalike.stores.faiss.float16_index import Float16Index, can_view
from lookalike.types import Bool, Float16, Float32, Neighbors


def unit(count: int, dim: int, seed: int) -> Float32:
    made = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


class Counting(ExactStore):
    """Counts the queries that were compared with upcast vectors."""

    upcast = 0

    def _candidates_by_blocks(self, unit: Float32, k: int, mask: Bool | None) -> list[Neighbors]:
        self.upcast += len(unit)
        return super()._candidates_by_blocks(unit, k, mask)


def both(vectors: Float16, queries: Float32, k: int, mask: Bool | None = None) -> tuple[int, list[Neighbors]]:
    """Return the number of queries that needed upcasting, and the results, which must equal a small store's."""
    expected = ExactStore(vectors).search(queries, k, mask=mask)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "MAX_EXACT_FLOAT32_BYTES", 0)
        store = Counting(vectors)
        found = store.search(queries, k, mask=mask)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours.rows, theirs.rows)
        np.testing.assert_array_equal(ours.scores, theirs.scores)
    return store.upcast, found


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3000), st.sampled_from([1, 3, 64, 129]), st.integers(1, 32), st.integers(1, 700), st.data())
def test_results_equal_those_of_a_small_store(n: int, dim: int, q: int, k: int, data: st.DataObject) -> None:
    share = data.draw(st.sampled_from([None, 0.0, 0.1, 0.5, 1.0]))
    mask = None if share is None else np.random.default_rng(n).random(n) < share
    both(unit(n, dim, seed=n).astype(np.float16), unit(q, dim, seed=q + 1), k, mask)


@pytest.mark.parametrize("share", [None, 0.3])
def test_few_queries_need_no_upcasting(share: float | None) -> None:
    mask = None if share is None else np.random.default_rng(0).random(5000) < share
    assert both(unit(5000, 64, seed=1).astype(np.float16), unit(4, 64, seed=2), 10, mask)[0] == 0


def test_many_queries_and_narrow_masks_upcast() -> None:
    vectors, mask = unit(5000, 64, seed=1).astype(np.float16), np.arange(5000) < 100
    assert both(vectors, unit(21, 64, seed=2), 10)[0] == 21
    assert both(vectors, unit(1, 64, seed=2), 10, mask)[0] == 1
    assert both(vectors, unit(16, 64, seed=2), 10, np.arange(5000) < 3000)[0] == 16


def test_many_ties_are_ordered_by_row() -> None:
    vectors = unit(2000, 64, seed=1)
    vectors[100:1100] = vectors[100]
    upcast, (found, other) = both(vectors.astype(np.float16), vectors[[100, 5]], 10)
    assert upcast == 1  # the query with a thousand equally near rows
    assert found.rows.tolist() == list(range(100, 110))
    assert other.rows[0] == 5


def test_rows_within_rounding_of_the_last_are_rescored() -> None:
    """The largest rounding errors of norms reverse the order of products."""
    query = np.zeros((1, 64), np.float32)
    query[0, 0] = 1.0
    vectors = np.zeros((3, 64), np.float16)
    vectors[:, 0] = 0.9
    vectors[:, 1] = np.sqrt(1 - 0.81)
    vectors[0] *= np.float16(1 + 2**-10)  # a larger product, the same cosine or less
    vectors[1, 1] *= np.float16(1 - 2**-10)  # the largest cosine
    assert both(vectors, query, 1)[1][0].rows.tolist() == [1]


def test_empty_mask_and_zero_vectors() -> None:
    vectors = unit(400, 8, seed=1).astype(np.float16)
    vectors[3] = 0
    mask = np.zeros(400, bool)
    assert [len(found.rows) for found in Float16Index(vectors).candidates(unit(2, 8, seed=2), 5, mask)] == [0, 0]
    found = both(vectors, unit(1, 8, seed=2), 400)[1][0]
    assert found.scores[found.rows == 3].tolist() == [0.0]


def test_only_contiguous_float16_is_viewed() -> None:
    vectors = unit(4, 8, seed=1).astype(np.float16)
    assert can_view(vectors)
    assert not can_view(vectors[:, ::2])
    assert not can_view(vectors[:0])
    assert not can_view(vectors.astype(np.float32))  # type: ignore[arg-type]
    assert both(np.asfortranarray(vectors), unit(1, 8, seed=2), 2)[0] == 1
