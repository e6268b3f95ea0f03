"""All metrics of weighted pairs, for the resamples of the bootstrap.

What does not depend on the weights, above all the order of the cosines, is computed once. With all weights 1 the
metrics are those of `evaluation.pairs` and `evaluation.calibrate`. Dimension letter: p pairs.
"""

from __future__ import annotations

import numpy as np

from evaluation.calibrate import BINS
from evaluation.pairs import weighted_metrics
from lookalike.types import Bool, Float64, Int64


class WeightedPairs:
    """Test pairs, prepared for any weights.

    Args:
        cosines: (p,).
        same: (p,), the truth.
        threshold: a pair up to this cosine distance is similar.
        probabilities: (p,) in [0, 1], predicted for these cosines.
    """

    def __init__(self, cosines: Float64, same: Bool, threshold: float, probabilities: Float64) -> None:
        self._cosines, self._same, self._probabilities = cosines, same, probabilities
        self._similar = 1 - cosines <= threshold
        self._order = np.argsort(-cosines, kind="stable")
        descending = cosines[self._order]
        self._ends = np.flatnonzero(np.append(descending[1:] != descending[:-1], True))  # the last of equal cosines
        self._bins = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)

    def metrics(self, weights: Int64) -> dict[str, float]:
        """Compute the metrics with pair i counted weights[i] times; some are left out if one kind has no weight."""
        metrics = weighted_metrics(self._similar, self._same, weights)
        positive, negative = weights * self._same, weights * ~self._same
        if not positive.any() or not negative.any():
            return metrics
        means = [float(kind @ self._cosines / kind.sum()) for kind in (positive, negative)]
        gaps = np.bincount(self._bins, weights=weights * (self._same - self._probabilities), minlength=BINS)
        return {
            **metrics,
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
        false_negative = 1 - true
        equal = int((false >= false_negative).argmax())  # false positives ascend, false negatives descend
        before, after = (float(false[i] - false_negative[i]) for i in (equal - 1, equal))
        rate = false_negative[equal - 1] + before / (before - after) * (
            false_negative[equal] - false_negative[equal - 1]
        )
        return {"roc_auc": float(np.trapezoid(true, false)), "equal_error_rate": float(rate)}
