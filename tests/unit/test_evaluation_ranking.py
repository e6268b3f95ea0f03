"""Measures against naive loops, over drawn score matrices with many ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.ranking import accuracy, best_ranks, hit_rate_at_k, precision_at_k


@st.composite
def cases(draw):
    queries, items = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    scores = rng.integers(-3, 4, (queries, items)) / 2  # few values: ties are common
    relevant = rng.random((queries, items)) < 0.4
    relevant[np.arange(queries), rng.integers(0, items, queries)] = True
    return scores, relevant


def naive_rank(scores, relevant):
    best = max(s for s, r in zip(scores, relevant, strict=True) if r)
    return 1 + sum(1 for s, r in zip(scores, relevant, strict=True) if not r and s >= best)


def naive_precision(scores, relevant, k):
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], relevant[i]))
    return sum(bool(relevant[i]) for i in order[:k]) / min(k, sum(map(bool, relevant)))


@given(cases())
def test_best_ranks_equal_naive_loop(case):
    scores, relevant = case
    assert best_ranks(scores, relevant).tolist() == [naive_rank(*row) for row in zip(scores, relevant, strict=True)]


@given(cases(), st.integers(1, 12))
def test_precision_equals_naive_loop(case, k):
    scores, relevant = case
    expected = [naive_precision(s, r, k) for s, r in zip(scores, relevant, strict=True)]
    np.testing.assert_allclose(precision_at_k(scores, relevant, k), expected)


def test_constant_scores_find_nothing():
    scores, relevant = np.ones((4, 4)), np.eye(4, dtype=bool)
    assert best_ranks(scores, relevant).tolist() == [4, 4, 4, 4]
    assert precision_at_k(scores, relevant, 3).tolist() == [0, 0, 0, 0]
    assert accuracy(scores, np.arange(4)) == 0


def test_hit_rates_of_known_ranks():
    ranks = np.array([1, 2, 6, 11])
    assert [hit_rate_at_k(ranks, k) for k in (1, 5, 10)] == [0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: best_ranks(np.ones((2, 3)), np.ones((3, 2), bool)), "differ in shape"),
        (lambda: best_ranks(np.ones((1, 3)), np.zeros((1, 3), bool)), "no relevant item"),
        (lambda: precision_at_k(np.ones((1, 3)), np.ones((1, 2), bool), 1), "differ in shape"),
        (lambda: precision_at_k(np.ones((1, 3)), np.ones((1, 3), bool), 0), "k=0"),
        (lambda: hit_rate_at_k(np.array([], np.int64), 1), "0 queries"),
    ],
)
def test_invalid_arguments_are_rejected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
