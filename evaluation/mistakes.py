"""The worst retrieval errors: queries whose nearest irrelevant item beats the nearest relevant one by most.

Dimension letters: q queries, n gallery items, d embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluation.labels import BLOCK_QUERIES
from lookalike.types import Bool, Float32, Int64


@dataclass(frozen=True, slots=True)
class Mistake:
    """A query whose nearest item is irrelevant.

    Attributes:
        query: its position.
        margin: cosine of the nearest irrelevant item less that of the nearest relevant one.
        items: positions of the nearest items, best first.
        cosines: theirs.
        relevant: whether each is relevant.
        best: position of the nearest relevant item.
    """

    query: int
    margin: float
    items: list[int]
    cosines: list[float]
    relevant: list[bool]
    best: int


def worst_mistakes(
    queries: Float32, labels: Int64, gallery: Float32 | None, gallery_labels: Int64, *, count: int, shown: int
) -> list[Mistake]:
    """Return the `count` worst mistakes, worst first, at most one per pair of classes as long as there are others.

    Args:
        queries: (q, d) of unit norm.
        labels: (q,) the label of each query's relevant items; -1 leaves the query out.
        gallery: (n, d) of unit norm; None for the queries themselves, each without itself.
        gallery_labels: (n,).
        count: maximum number of mistakes.
        shown: number of items to list for each.
    """
    items = queries if gallery is None else gallery
    margins = np.full(len(queries), -np.inf)
    for start in range(0, len(queries), BLOCK_QUERIES):
        rows = np.arange(start, min(start + BLOCK_QUERIES, len(queries)))
        scores, relevant = _scores(queries, labels, items, gallery_labels, rows, self_search=gallery is None)
        wrong, best = (np.where(mask, scores, -np.inf).max(axis=1) for mask in (~relevant, relevant))
        valid = np.isfinite(best) & np.isfinite(wrong) & (labels[rows] >= 0)
        margins[rows[valid]] = (wrong - best)[valid]
    ranked = [int(i) for i in np.argsort(-margins, kind="stable") if margins[i] > 0]
    mistakes: list[Mistake] = []
    repeated: list[Mistake] = []  # of a pair of classes that has one
    seen: set[tuple[int, int]] = set()
    for query in ranked[: 40 * count]:
        mistake = _mistake(queries, labels, items, gallery_labels, query, shown, self_search=gallery is None)
        classes = (int(labels[query]), int(gallery_labels[mistake.items[0]]))
        (repeated if classes in seen else mistakes).append(mistake)
        seen.add(classes)
    return sorted((mistakes + repeated)[:count], key=lambda mistake: -mistake.margin)


def _mistake(
    queries: Float32, labels: Int64, items: Float32, item_labels: Int64, query: int, shown: int, *, self_search: bool
) -> Mistake:
    scores, relevant = (
        rows[0] for rows in _scores(queries, labels, items, item_labels, np.array([query]), self_search=self_search)
    )
    order = np.argsort(-scores, kind="stable")[:shown]
    best = int(np.where(relevant, scores, -np.inf).argmax())
    margin = float(np.where(relevant, -np.inf, scores).max() - scores[best])
    return Mistake(query, margin, order.tolist(), scores[order].tolist(), relevant[order].tolist(), best)


def _scores(
    queries: Float32, labels: Int64, items: Float32, item_labels: Int64, rows: Int64, *, self_search: bool
) -> tuple[Float32, Bool]:
    """Return (b, n) cosines and which items are relevant; a query among the items is neither near nor relevant."""
    scores, relevant = queries[rows] @ items.T, labels[rows, None] == item_labels
    if self_search:
        scores[np.arange(len(rows)), rows] = -np.inf
        relevant[np.arange(len(rows)), rows] = False
    return scores, relevant
