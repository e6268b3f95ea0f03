"""All figures of pairs where each pair counts some times: what the bootstrap asks a thousand times over.

What does not depend on the weights, above all the order of the cosines, is prepared once. With every weight 1 the
figures are those of `evaluation.pairs` and `evaluation.calibrate`. Dimension letter: p pairs.
"""

from __future__ import annotations

import numpy as np

from evaluation.calibrate import BINS
from evaluation.labels import Float64
from evaluation.pairs import weighted_figures
from lookalike.types import Bool, Int64


class WeightedPairs:
    """Test pairs, ready to be weighted.

    Args:
        cosines: (p,).
        same: (p,), the truth.
        threshold: a pair up to this cosine distance is similar.
        probabilities: (p,) in [0, 1], as stated for these cosines.
    """

    def __init__(self, cosines: Float64, same: Bool, threshold: float, probabilities: Float64) -> None:
        self._cosines, self._same, self._probabilities = cosines, same, probabilities
        self._similar = 1 - cosines <= threshold
        self._order = np.argsort(-cosines, kind="stable")
        descending = cosines[self._order]
        self._ends = np.flatnonzero(np.append(descending[1:] != descending[:-1], True))  # the last of equal cosines
        self._bins = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)

    def figures(self, weights: Int64) -> dict[str, float]:
        """The figures with pair i counted weights[i] times, (p,); NaN where one kind of pair is left out wholly."""
        found = weighted_figures(self._similar, self._same, weights)
        positive, negative = weights * self._same, weights * ~self._same
        if not positive.any() or not negative.any():
            return found
        means = [float(kind @ self._cosines / kind.sum()) for kind in (positive, negative)]
        gaps = np.bincount(self._bins, weights=weights * (self._same - self._probabilities), minlength=BINS)
        return {
            **found,
            **self._roc(positive, negative),
            "expected_calibration_error": float(np.abs(gaps).sum() / weights.sum()),
            "positive_cosine": means[0],
            "negative_cosine": means[1],
            "cosine_gap": means[0] - means[1],
        }

    def _roc(self, positive: Int64, negative: Int64) -> dict[str, float]:
        true, false = (
            np.concatenate([[0.0], np.cumsum(kind[self._order])[self._ends] / kind.sum()])
            for kind in (positive, negative)
        )
        missed = 1 - true
        equal = int((false >= missed).argmax())  # false alarms ascend, misses descend
        before, after = (float(false[i] - missed[i]) for i in (equal - 1, equal))
        rate = missed[equal - 1] + before / (before - after) * (missed[equal] - missed[equal - 1])
        return {"roc_auc": float(np.trapezoid(true, false)), "equal_error_rate": float(rate)}
