"""Retrieval by labels and captions against loops that follow the definitions word by word."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import captions, labels
from evaluation.captions import caption_ranks
from evaluation.labels import label_scores


def loops(queries, query_labels, gallery, gallery_labels, depths):
    """One query after the other, one place after the other; None for the gallery is leave-one-out."""
    alone = gallery is None
    items, item_labels = (queries, query_labels) if alone else (gallery, gallery_labels)
    found, asked = [], []
    for q in range(len(queries)):
        others = [i for i in range(len(items)) if not (alone and i == q)]
        total = sum(item_labels[i] == query_labels[q] for i in others)
        if total == 0:
            continue
        asked.append(q)
        score = {i: float(queries[q] @ items[i]) for i in others}
        ranked = sorted(others, key=lambda i: (-score[i], item_labels[i] == query_labels[q]))
        right = [bool(item_labels[i] == query_labels[q]) for i in ranked]
        precision = [sum(right[: i + 1]) / (i + 1) for i in range(len(right))]
        values = {
            "precision_at_1": float(right[0]),
            "r_precision": sum(right[:total]) / total,
            "map_at_r": sum(precision[i] * right[i] for i in range(total)) / total,
        }
        for k in depths:
            values[f"hit_rate_at_{k}"] = float(any(right[:k]))
            values[f"recall_at_{k}"] = sum(right[:k]) / total
        found.append(values)
    return found, asked


def assert_same(scores, asked, expected, expected_asked):
    assert asked.tolist() == expected_asked
    for name, values in scores.items():
        assert values.tolist() == pytest.approx([each[name] for each in expected], abs=1e-12), name


def axes(rng, count, width=4):
    """Rows of few distinct directions, so that many cosines are exactly equal, some of them negative."""
    vectors = np.eye(width, dtype=np.float32)[rng.integers(0, width, count)]
    return vectors * rng.choice(np.float32([-1, 1]), (count, 1))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.booleans())
def test_metrics_equal_naive_loops(seed, tied, alone):
    rng = np.random.default_rng(seed)
    count, size = rng.integers(2, 14, 2)
    make = axes if tied else lambda rng, count: rng.normal(size=(count, 4)).astype(np.float32)
    queries, gallery = make(rng, count), None if alone else make(rng, size)
    query_labels, gallery_labels = rng.integers(0, 4, count), rng.integers(0, 4, size)
    depths = (1, 3, 40)
    scores, asked = label_scores(queries, query_labels, gallery, None if alone else gallery_labels, depths=depths)
    assert_same(scores, asked, *loops(queries, query_labels, gallery, gallery_labels, depths))


def test_metrics_do_not_depend_on_block_size(monkeypatch):
    rng = np.random.default_rng(0)
    vectors, classes = axes(rng, 50), rng.integers(0, 5, 50)
    whole, asked = label_scores(vectors, classes)
    monkeypatch.setattr(labels, "BLOCK_QUERIES", 7)
    parts, asked_again = label_scores(vectors, classes)
    assert asked.tolist() == asked_again.tolist()
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name])


def test_constant_vectors_find_nothing():
    vectors = np.tile(np.float32([1, 0]), (20, 1))
    scores, asked = label_scores(vectors, np.repeat(np.arange(10), 2))
    assert len(asked) == 20
    assert all(values.max() == 0 for values in scores.values())


def test_separated_classes_have_perfect_metrics():
    vectors, classes = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0), np.repeat(np.arange(3), 4)
    scores, _ = label_scores(vectors, classes, depths=(3,))
    assert all(values.min() == 1 for values in scores.values())


def test_no_answerable_query_gives_empty_metrics():
    scores, asked = label_scores(np.eye(3, dtype=np.float32), np.arange(3))
    assert len(asked) == 0
    assert all(len(values) == 0 for values in scores.values())


def test_mismatched_shapes_are_rejected():
    with pytest.raises(ValueError, match="2 labels"):
        label_scores(np.eye(3, dtype=np.float32), np.arange(2))
    with pytest.raises(ValueError, match="depths"):
        label_scores(np.eye(3, dtype=np.float32), np.arange(3), depths=(0,))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_caption_ranks_equal_naive_loops(seed):
    rng = np.random.default_rng(seed)
    images = axes(rng, 6)
    owners = np.concatenate([np.arange(6), rng.integers(0, 6, 7)])
    texts = axes(rng, len(owners))
    scores = texts @ images.T
    forth = [
        1 + sum(scores[t, i] >= scores[t, owners[t]] for i in range(6) if i != owners[t]) for t in range(len(owners))
    ]
    back = []
    for i in range(6):
        best = max(scores[t, i] for t in range(len(owners)) if owners[t] == i)
        back.append(1 + sum(scores[t, i] >= best for t in range(len(owners)) if owners[t] != i))
    found = caption_ranks(images, texts, owners)
    assert [ranks.tolist() for ranks in found] == [forth, back]


def test_caption_ranks_do_not_depend_on_block_size(monkeypatch):
    rng = np.random.default_rng(1)
    images, owners = rng.normal(size=(9, 5)).astype(np.float32), np.repeat(np.arange(9), 3)
    texts = rng.normal(size=(27, 5)).astype(np.float32)
    whole = caption_ranks(images, texts, owners)
    monkeypatch.setattr(captions, "BLOCK_QUERIES", 4)
    for ranks, again in zip(whole, caption_ranks(images, texts, owners), strict=True):
        assert ranks.tolist() == again.tolist()
