"""Combination of a query's parts, and embeddings that callers send."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lookalike.errors import QueryError
from lookalike.query import combine, unit_embedding

A, B = np.eye(4, dtype=np.float32)[:2]


def test_single_part_of_positive_weight_is_unchanged() -> None:
    vector = np.array([0.6, 0.8, 1e-9, 0.0], np.float32)
    assert combine(vector[None], [0.3]).tobytes() == vector.tobytes()


def test_single_negative_part_is_its_opposite() -> None:
    assert combine(A[None], [-2.0]).tolist() == [-1.0, 0.0, 0.0, 0.0]


def test_parts_are_added_by_their_weights() -> None:
    combined = combine(np.stack([A, B]), [3.0, -4.0])
    np.testing.assert_allclose(combined, [0.6, -0.8, 0.0, 0.0], atol=1e-7)
    assert combined.dtype == np.float32


@pytest.mark.parametrize("scale", [1e-300, 1e-9, 1e300])
def test_only_the_ratio_of_weights_counts(scale: float) -> None:
    np.testing.assert_allclose(combine(np.stack([A, B]), [3 * scale, 4 * scale]), [0.6, 0.8, 0.0, 0.0], atol=1e-7)


@pytest.mark.parametrize(
    ("weights", "message"), [([0.0, 0.0], "all weights of the query are 0"), ([1.0, -1.0], "cancel each other out")]
)
def test_combination_without_direction_is_refused(weights: list[float], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        combine(np.stack([A, A]), weights)


def test_embedding_of_another_norm_is_scaled_with_a_warning() -> None:
    vector, warning = unit_embedding([3.0, 4.0, 0.0, 0.0], 4, "query.embedding")
    np.testing.assert_allclose(vector, [0.6, 0.8, 0.0, 0.0], atol=1e-7)
    assert warning == "query.embedding has norm 5; it was scaled to 1"


def test_embedding_rounded_to_float16_gives_no_warning() -> None:
    rounded = np.array([0.6, 0.8, 0.0, 0.0], np.float16)
    assert unit_embedding(rounded.astype(np.float32), 4, "query")[1] is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, 0.0], "query has 2 numbers; the encoder's embeddings have 4"),
        ([[1.0, 0.0, 0.0, 0.0]], "query has the shape (1, 4); the encoder's embeddings have 4"),
        ([1.0, float("nan"), 0.0, 0.0], "query[1] is nan; an embedding holds finite numbers"),
        ([float("inf"), 0.0, 0.0, 0.0], "query[0] is inf"),
        ([0.0] * 4, "query has norm 0; it has no direction to search in"),
        (["a", "b"], "query is no list of numbers"),
    ],
)
def test_unusable_embeddings_are_refused(values: list[float], message: str) -> None:
    with pytest.raises(QueryError, match=re.escape(message)):
        unit_embedding(values, 4, "query")
