"""The benchmarks' own judgement: recall counted right."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.recall import K, ann_recall, cosines, floors
from retrieval.types import Float32


def unit(count: int, dim: int, seed: int = 0) -> Float32:
    drawn = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    normed: Float32 = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return normed


class TestRecall:
    def test_is_the_share_of_the_true_ten(self) -> None:
        gallery, queries = unit(300, 8), unit(20, 8, seed=1)
        truth = np.argsort(-queries @ gallery.T, axis=1)[:, :K]
        given = truth.copy()
        given[:, 6:] = np.argsort(queries @ gallery.T, axis=1)[:, : K - 6]  # the farthest: all wrong
        tenth = floors(gallery, queries, truth)
        assert ann_recall(gallery, queries, truth, tenth) == 1.0
        assert ann_recall(gallery, queries, given, tenth) == pytest.approx(0.6)

    def test_a_duplicate_of_the_tenth_is_right(self) -> None:
        gallery = np.concatenate([unit(10, 4), unit(10, 4)])  # row i + 10 is row i again
        queries = unit(3, 4, seed=1)
        truth = np.argsort(-queries @ gallery.T, axis=1, kind="stable")[:, :K]
        twins = (truth + 10) % 20
        assert ann_recall(gallery, queries, twins, floors(gallery, queries, truth)) == 1.0

    def test_missing_and_repeated_rows_find_nothing(self) -> None:
        gallery, queries = unit(50, 8), unit(1, 8, seed=1)
        truth = np.argsort(-queries @ gallery.T, axis=1)[:, :K]
        best = int(truth[0, 0])
        given = np.array([[best, best, best, -1, -1, *truth[0, 1:6]]])
        assert ann_recall(gallery, queries, given, floors(gallery, queries, truth)) == pytest.approx(0.6)
        assert (cosines(gallery, queries, given)[0, 1:5] == -1).all()
