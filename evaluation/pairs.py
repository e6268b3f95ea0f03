"""Verification of pairs: pairs from labels or from searches by caption, the best threshold, and its metrics.

A *positive* pair belongs together: two images of a class, or an image and its caption.

Dimension letters: p pairs, n images, t texts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluation.captions import BLOCK_QUERIES
from evaluation.extras import import_extra
from evaluation.labels import class_sizes
from lookalike.types import Bool, Float32, Float64, Int64


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs as positions.

    Attributes:
        left: (p,) int64, the anchors: each occurs once in a positive pair and once in a negative one.
        right: (p,) int64.
        same: (p,) bool, whether the pair is positive.
    """

    left: Int64
    right: Int64
    same: Bool

    def cosines(self, lefts: Float32, rights: Float32) -> Float64:
        """Return the (p,) cosines of the pairs, given the unit vectors of both sides."""
        products: Float64 = np.einsum("pd,pd->p", lefts[self.left], rights[self.right]).astype(np.float64)
        return products


def pairs_by_label(labels: Int64, groups: Int64, rng: np.random.Generator) -> Pairs:
    """Draw for each image another one of its class and one of another group, uniformly.

    Images whose class has no other image, or whose group has all images, are no anchors.

    Args:
        labels: (n,) int64, the class of each image.
        groups: (n,) int64; images of a group are no negatives of each other. A class lies within one group.
        rng: for the draws.

    >>> labels = np.array([0, 0, 1, 1])
    >>> pairs = pairs_by_label(labels, labels, np.random.default_rng(0))
    >>> pairs.left.tolist(), pairs.right[:4].tolist(), pairs.same.tolist()
    ([0, 1, 2, 3, 0, 1, 2, 3], [1, 0, 3, 2], [True, True, True, True, False, False, False, False])
    """
    order, starts, sizes = _runs(labels)
    group_order, group_starts, group_sizes = _runs(groups)
    anchors = np.flatnonzero((sizes > 1) & (group_sizes < len(labels)))
    size, start = sizes[anchors], starts[anchors]
    position = np.empty(len(labels), np.int64)
    position[order] = np.arange(len(labels))
    step = rng.integers(1, size)  # positions further round the class: never itself
    positive = order[start + (position[anchors] - start + step) % size]
    size, start = group_sizes[anchors], group_starts[anchors]
    other = rng.integers(0, len(labels) - size)  # a position outside the run
    negative = group_order[np.where(other < start, other, other + size)]
    return _positive_and_negative(anchors, positive, negative)


def pairs_by_search(queries: Float32, items: Float32, owners: Int64, groups: Int64, candidates: Bool) -> Pairs:
    """Pair each query that finds its item with that item, and with the best wrong item.

    A query finds its item if no wrong item has as high a cosine. The best wrong item is the first result of a search
    where the right one is missing.

    Args:
        queries: (q, d) of unit norm.
        items: (n, d) of unit norm.
        owners: (q,) int64, the position of each query's item.
        groups: (n,) int64; items of the same group as a query's own are not wrong.
        candidates: (n,) bool, the items that may be wrong.

    Returns:
        `left` are positions of queries, `right` of items.

    >>> eye, order = np.eye(3, dtype=np.float32), np.arange(3)
    >>> pairs = pairs_by_search(eye[:2], eye, order[:2], order, np.array([True, False, True]))
    >>> pairs.left.tolist(), pairs.right.tolist(), pairs.same.tolist()
    ([0, 1, 0, 1], [0, 1, 2, 0], [True, True, False, False])
    """
    found, wrong = np.zeros(len(queries), bool), np.zeros(len(queries), np.int64)
    for start in range(0, len(queries), BLOCK_QUERIES):
        rows = np.arange(start, min(start + BLOCK_QUERIES, len(queries)))
        scores = queries[rows] @ items.T
        own = scores[np.arange(len(rows)), owners[rows]]
        scores[(groups[owners[rows], None] == groups) | ~candidates] = -np.inf
        wrong[rows], best = scores.argmax(axis=1), scores.max(axis=1)
        found[rows] = (own > best) & np.isfinite(best)
    anchors = np.flatnonzero(found)
    return _positive_and_negative(anchors, owners[anchors], wrong[anchors])


def best_threshold(cosines: Float64, same: Bool) -> float:
    """Return the cosine distance that decides with the best F1: similar where 1 - cosine <= threshold.

    F1 = 2 TP / (2 TP + FP + FN). The threshold is midway between the last pair accepted and the next; the strictest of
    equally good ones.

    Args:
        cosines: (p,) of the validation pairs.
        same: (p,), at least one positive.

    Returns:
        A distance in [0, 2].

    Raises:
        ValueError: there is no positive pair.

    >>> round(best_threshold(np.array([0.9, 0.7, 0.5, 0.1]), np.array([True, True, False, False])), 6)
    0.4
    """
    if not same.any():
        raise ValueError("a threshold needs a positive pair")
    order = np.argsort(-cosines, kind="stable")
    ranked, hits = cosines[order], same[order].cumsum()
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + same.sum())
    f1[:-1][ranked[:-1] == ranked[1:]] = -1  # equal cosines are accepted together
    last = int(f1.argmax())
    following = ranked[last + 1] if last + 1 < len(ranked) else ranked[last]
    return float(np.clip(1 - (ranked[last] + following) / 2, 0, 2))


def decision_metrics(cosines: Float64, same: Bool, threshold: float) -> dict[str, float]:
    """Compute accuracy, precision, recall and F1 of a threshold (cosine distance).

    precision = TP / (TP + FP), 0 where no pair is accepted; recall = TP / (TP + FN).

    >>> decision_metrics(np.array([0.9, 0.2, 0.8, 0.1]), np.array([True, True, False, False]), threshold=0.5)
    {'accuracy': 0.5, 'precision': 0.5, 'recall': 0.5, 'f1': 0.5}
    """
    return weighted_metrics(1 - cosines <= threshold, same, np.ones(len(same)))


def weighted_metrics(similar: Bool, same: Bool, weights: Float64 | Int64) -> dict[str, float]:
    """Compute `decision_metrics`, each pair counted `weights` times."""
    true_positives = float(weights @ (similar & same))
    predicted, positives, correct = (float(weights @ mask) for mask in (similar, same, similar == same))
    return {
        "accuracy": correct / max(float(weights.sum()), 1.0),
        "precision": true_positives / predicted if predicted else 0.0,
        "recall": true_positives / positives if positives else 0.0,
        "f1": 2 * true_positives / (predicted + positives) if predicted + positives else 0.0,
    }


def roc_metrics(cosines: Float64, same: Bool) -> dict[str, float]:
    """Compute the area under the ROC curve, and the equal error rate (false positive rate = false negative rate).

    The ROC curve is scikit-learn's; the equal error rate is interpolated between its points.

    Raises:
        ValueError: there is only one kind of pair.

    >>> roc_metrics(np.array([0.9, 0.8, 0.3, 0.1]), np.array([True, False, True, False]))
    {'roc_auc': 0.75, 'equal_error_rate': 0.5}
    """
    if same.all() or not same.any():
        raise ValueError("a ROC curve needs positive and negative pairs")
    sklearn_metrics = import_extra("sklearn.metrics")
    false_positive_rate, true_positive_rate, _ = sklearn_metrics.roc_curve(same, cosines, drop_intermediate=False)
    false_negative_rate = 1 - true_positive_rate
    # False positives ascend, false negatives descend.
    equal = int((false_positive_rate >= false_negative_rate).argmax())
    before, after = (float(false_positive_rate[i] - false_negative_rate[i]) for i in (equal - 1, equal))
    share = before / (before - after)
    rate = false_negative_rate[equal - 1] + share * (false_negative_rate[equal] - false_negative_rate[equal - 1])
    return {"roc_auc": float(sklearn_metrics.roc_auc_score(same, cosines)), "equal_error_rate": float(rate)}


def cosine_gap(cosines: Float64, same: Bool) -> dict[str, float]:
    """Compute the mean cosine of positive pairs, of negative pairs, and their difference.

    >>> cosine_gap(np.array([0.9, 0.7, 0.25]), np.array([True, True, False]))
    {'positive_cosine': 0.8, 'negative_cosine': 0.25, 'cosine_gap': 0.55}
    """
    positive, negative = float(cosines[same].mean()), float(cosines[~same].mean())
    return {"positive_cosine": positive, "negative_cosine": negative, "cosine_gap": positive - negative}


def _runs(values: Int64) -> tuple[Int64, Int64, Int64]:
    """Return the order in which equal values are runs, and for each value the start and the size of its run."""
    order = np.argsort(values, kind="stable")
    return order, np.searchsorted(values[order], values, "left"), class_sizes(values, values)


def _positive_and_negative(anchors: Int64, positive: Int64, negative: Int64) -> Pairs:
    same = np.repeat([True, False], len(anchors))
    return Pairs(np.concatenate([anchors, anchors]), np.concatenate([positive, negative]), same)
