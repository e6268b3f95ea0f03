"""The worst retrieval errors: queries whose nearest wrong answer beats the best right one by most.

Knows vectors, labels and owners; images are drawn elsewhere.

Dimension letters: q queries, n gallery items, d embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluation.labels import BLOCK
from lookalike.types import Bool, Float32, Int64


@dataclass(frozen=True, slots=True)
class Mistake:
    """One query that went wrong.

    Attributes:
        query: its position.
        margin: cosine of the nearest wrong item less that of the nearest right one.
        items: positions of the nearest items, best first.
        cosines: theirs.
        right: whether each is an answer.
        best: position of the nearest right item.
    """

    query: int
    margin: float
    items: list[int]
    cosines: list[float]
    right: list[bool]
    best: int


def worst_mistakes(
    queries: Float32, labels: Int64, gallery: Float32 | None, gallery_labels: Int64, *, count: int, shown: int
) -> list[Mistake]:
    """The `count` worst mistakes, worst first, at most one in each pair of classes until these are used up.

    Args:
        queries: (q, d) of unit norm.
        labels: (q,) what answers each query; -1 leaves it out.
        gallery: (n, d) of unit norm; None for the queries themselves, each without itself.
        gallery_labels: (n,).
        count: at most so many.
        shown: items listed for each.
    """
    items = queries if gallery is None else gallery
    margins = np.full(len(queries), -np.inf)
    for start in range(0, len(queries), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(queries)))
        scores, right = _scores(queries, labels, items, gallery_labels, rows, alone=gallery is None)
        wrong, best = (np.where(mask, scores, -np.inf).max(axis=1) for mask in (~right, right))
        asked = np.isfinite(best) & np.isfinite(wrong) & (labels[rows] >= 0)
        margins[rows[asked]] = (wrong - best)[asked]
    ranked = [int(i) for i in np.argsort(-margins, kind="stable") if margins[i] > 0]
    found: list[Mistake] = []
    later: list[Mistake] = []
    seen: set[tuple[int, int]] = set()
    for query in ranked[: 40 * count]:
        mistake = _mistake(queries, labels, items, gallery_labels, query, shown, alone=gallery is None)
        confused = (int(labels[query]), int(gallery_labels[mistake.items[0]]))
        (later if confused in seen else found).append(mistake)
        seen.add(confused)
    return sorted((found + later)[:count], key=lambda mistake: -mistake.margin)


def _mistake(
    queries: Float32, labels: Int64, items: Float32, item_labels: Int64, query: int, shown: int, *, alone: bool
) -> Mistake:
    scores, right = (rows[0] for rows in _scores(queries, labels, items, item_labels, np.array([query]), alone=alone))
    order = np.argsort(-scores, kind="stable")[:shown]
    best = int(np.where(right, scores, -np.inf).argmax())
    margin = float(np.where(right, -np.inf, scores).max() - scores[best])
    return Mistake(query, margin, order.tolist(), scores[order].tolist(), right[order].tolist(), best)


def _scores(
    queries: Float32, labels: Int64, items: Float32, item_labels: Int64, rows: Int64, *, alone: bool
) -> tuple[Float32, Bool]:
    """(b, n) cosines and which items are right; a query among the items is neither near nor right."""
    scores, right = queries[rows] @ items.T, labels[rows, None] == item_labels
    if alone:
        scores[np.arange(len(rows)), rows] = -np.inf
        right[np.arange(len(rows)), rows] = False
    return scores, right
